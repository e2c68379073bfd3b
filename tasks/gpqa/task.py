"""GPQA (main) as the reference renders and scores it (allenai/olmes `gpqa:0shot_cot::tulu3`, `::llama3.1`)."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import exact_match, last_match, scorer
from olmes_suite.scoring.multiple_choice import another, last_alone, parenthesised, wrapped

LETTERS = "ABCD"
_SEED = 111
_COLUMNS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Correct Answer")
_ZERO_SHOT = r"Therefore, the answer is \(([A-D])\)"
_LLAMA31 = r"The best answer is (\(?[A-D])"
_STEPS = """
- For simple problems:
Directly provide the answer with minimal explanation.

- For complex problems:
Use this step-by-step format:
## Step 1: [Concise description]
[Brief explanation]
## Step 2: [Concise description]
[Brief explanation]

Regardless of the approach, always conclude with:
The best answer is [the_answer_letter].
where the [the_answer_letter] is one of A, B, C or D.

Let's think step by step."""


def clean(choice: str | None) -> str:
    """Clean a choice as the reference does. The question is not cleaned."""
    if choice is None:
        return " "
    text = choice.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def shuffled(row: Mapping[str, Any], index: int) -> tuple[list[str], str]:
    """Return the four choices in the order of row `index` of the split, and the letter of the right one."""
    choices = [clean(row[column]) for column in _COLUMNS]
    right = choices[-1]
    random.Random(_SEED + index).shuffle(choices)
    return choices, LETTERS[choices.index(right)]


def process_docs(rows: Any) -> Any:
    """Add to every document its shuffled choices and the letter of the right one, which depend on its row."""
    pairs = [shuffled(row, index) for index, row in enumerate(rows)]
    added = rows.add_column("choices", [choices for choices, _ in pairs])
    return added.add_column("letter", [letter for _, letter in pairs])


def _question(doc: Mapping[str, Any]) -> str:
    return f"Question: {doc['Question']}\nChoices:\n{parenthesised(doc['choices'])}\n\n"


def zero_shot_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn of `0shot_cot::tulu3`."""
    return wrapped(_question(doc), "(A), (B), (C), (D).")


def llama31_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn of `0shot_cot::llama3.1`."""
    about = "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n\n"
    return about + _question(doc).removesuffix("\n") + _STEPS


def extract(response: str, asked_for: str) -> str:
    """Extract the letter that the reference reads; "" where there is none.

    The last match of the form that the prompt requests; otherwise the last "(X)"; otherwise "The correct answer is: X";
    otherwise the last stand-alone capital.
    """
    letter = last_match(asked_for, response) or last_match(r"\(([A-D])\)", response)
    if not letter and (match := re.search(r"The correct answer is: ([A-D])", response)):
        letter = match.group(1)
    return (letter or last_alone("A-D", response)).strip("()")


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    return Scored({"exact_match": exact_match(answer, doc["letter"])}, answer, failed=not answer)


@scorer()
def zero_shot_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match; "Therefore, the answer is (X)" has priority."""
    return _scored(doc, extract(response, _ZERO_SHOT))


@scorer()
def llama31_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match; "The best answer is X" has priority."""
    return _scored(doc, extract(response, _LLAMA31))


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1 in both forms."""
    return f"Only this choice fits. The best answer is {doc['letter']}. Therefore, the answer is ({doc['letter']})"


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0 in both forms."""
    wrong = another(doc["letter"], len(LETTERS))
    return f"{gold(doc)}. No. The best answer is {wrong}. Therefore, the answer is ({wrong})"
