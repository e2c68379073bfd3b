"""GPQA (main) in the OLMo 3 regime: the public prompt (allenai/olmes `gpqa::olmo3:adapt`), the boxed prompt of the
paper (`gpqa:0shot_cot::qwen3-instruct`, published as olmo-eval's `gpqa_main:cot`), and a variant with repaired reading.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import cascade, exact_match, scorer
from olmes_suite.scoring.multiple_choice import another, parenthesised

LETTERS = "A-D"
_FORM = r"Therefore, the answer is \(([A-D])\)"
_BOXED = (
    "\n\nPlease reason step by step, and put your final answer within \\boxed{}. "
    "Please only provide the letter of the answer in the box."
)


def boxed_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn of the boxed prompt, which has no description."""
    return f"Question: {doc['Question']}\nChoices:\n{parenthesised(doc['choices'])}{_BOXED}"


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    return Scored({"exact_match": exact_match(answer, doc["letter"])}, answer, failed=not answer)


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that the reference reads, the article "a" included."""
    return _scored(doc, cascade.choice(response, LETTERS, _FORM).answer)


@scorer()
def score_boxed(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that olmo-eval reads; its templates include the box."""
    return _scored(doc, cascade.choice(response, LETTERS, _FORM, cascade.BOXED_TEMPLATES).answer)


@scorer()
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the letter that a careful reader reads."""
    return _scored(doc, cascade.careful_choice(response, LETTERS, _FORM).answer)


def boxed_gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"Only this choice fits. \\boxed{{{doc['letter']}}}"


def boxed_corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return f"Only this choice fits. \\boxed{{{another(doc['letter'], 4)}}}"
