"""MMLU in the OLMo 3 regime (allenai/olmes `mmlu_<subject>:cot::olmo3:adapt`), and a variant with repaired reading.

The prompt is that of `task.summarize_text`; only the reading of the answer differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import cascade, exact_match, module_beside, scorer

LETTERS = "A-D"


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    value = exact_match(answer, module_beside(__file__, "task.py").letter(doc))
    return Scored({"exact_match": value}, answer, failed=not answer)


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that the reference reads, the article "a" included."""
    return _scored(doc, cascade.choice(response, LETTERS).answer)


@scorer()
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that a careful reader reads."""
    return _scored(doc, cascade.careful_choice(response, LETTERS).answer)
