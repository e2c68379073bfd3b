"""The language of prompts with formulas and code."""

from __future__ import annotations

import pytest

pytest.importorskip("langdetect")
from train_plugins.data.curation.text_filters import language_of


@pytest.mark.parametrize(
    ("text", "language"),
    [
        (
            "Given that $\\tan \\alpha = \\frac{\\sin \\beta}{\\cos \\gamma}$, what is the value of $\\sin \\alpha$?",
            "en",
        ),
        ("\\[\\cosh x = \\frac{1}{\\sqrt{\\tan x}}\\] Which real numbers make this equation true?", "en"),
        ("Sort the list that follows without a library.\n```python\ndef sorteer(lijst): return lijst\n```", "en"),
        ("Bestimme alle reellen Zahlen $x$, für die $\\frac{x}{2} > 3$ gilt, und begründe die Antwort.", "de"),
        ("Simplify $\\frac{\\sec x}{\\sin x} - \\frac{\\sin x}{\\cos x}$.", None),
        ("The ticket costs $5 and the book costs $12 more than the ticket in the old town.", "en"),
    ],
)
def test_the_language_is_that_of_the_words(text: str, language: str | None) -> None:
    assert language_of(text) == language
