"""AGIEval in the OLMo 3 regime (allenai/olmes `agi_eval_<set>::olmo3:adapt`), and a variant with repaired reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import cascade, exact_match, scorer

LETTERS = "A-F"
_FORM = r"Therefore, the answer is \(([A-F])\)"


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    return Scored({"exact_match": exact_match(answer, doc["label"])}, answer, failed=not answer)


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that the reference reads, the article "a" included."""
    return _scored(doc, cascade.choice(response, LETTERS, _FORM).answer)


@scorer()
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that a careful reader reads."""
    return _scored(doc, cascade.careful_choice(response, LETTERS, _FORM).answer)
