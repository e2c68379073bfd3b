"""GSM8K in the OLMo 3 regime (allenai/olmes `gsm8k::olmo3:adapt`), and a variant with repaired reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import cascade, exact_match, module_beside, scorer
from olmes_suite.scoring.careful_answers import same_number, stated_answer

_ABOUT = "Solve the following grade school math word problem:\n"
_FORM = (
    '\n\nShow your work and conclude with "Therefore, the final answer is \\boxed{answer}." where answer is just the '
    "final number that solves the problem. E.g., if the answer is 6, conclude with "
    '"Therefore, the final answer is \\boxed{6}."'
)


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    return f"{_ABOUT}{doc['question']}{_FORM}"


def _compared(text: str) -> str:
    return str(module_beside(__file__, "task.py").compared(text))


def _target(doc: Mapping[str, Any]) -> str:
    return str(module_beside(__file__, "task.py").doc_to_target(doc))


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the answer; the strict metric is 0 for a box or a number outside a statement."""
    read = cascade.final_answer(response, number=True)
    flexible = exact_match(_compared(read.answer), _compared(_target(doc)), ignore_punctuation=False)
    strict = flexible if read.form >= cascade.STRICT_FROM else 0.0
    return Scored({"exact_match": strict, "exact_match_flex": flexible}, read.answer, failed=not read.answer)


@scorer()
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score whether the stated answer is the right number: "$240", "240 units" and "240.00" are 240, -240 is not."""
    answer = stated_answer(response)
    value = float(same_number(answer, _target(doc)))
    return Scored({"exact_match_flex": value}, answer, failed=not answer)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"We add up. Therefore, the final answer is \\boxed{{{_target(doc)}}}."


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return f"We add up. Therefore, the final answer is \\boxed{{1{_target(doc)}7}}."
