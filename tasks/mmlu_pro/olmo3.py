"""MMLU-Pro sampled, as the successor of the reference asks it (allenai/olmo-eval `mmlu_pro_<category>:cot`).

The prompt is that of `task.zero_shot_text`; the cascade reads the answer, with the templates that know a box.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import cascade, exact_match, scorer

LETTERS = "A-J"
_FORM = r"Therefore, the answer is \(([A-J])\)"


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    return Scored({"exact_match": exact_match(answer, doc["answer"])}, answer, failed=not answer)


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that the successor reads, the article "a" included."""
    return _scored(doc, cascade.choice(response, LETTERS, _FORM, cascade.BOXED_TEMPLATES).answer)


@scorer()
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that a careful reader reads."""
    return _scored(doc, cascade.careful_choice(response, LETTERS, _FORM).answer)
