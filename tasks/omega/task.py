r"""OMEGA in the OLMo 3 regime (allenai/olmes `omega_500:0-shot-chat_deepseek`), and a variant with repaired reading.

The defects of the reference's extraction are in `olmes_suite.scoring.cascade.final_answer`. Answers are compared as
text; there is no mathematical equivalence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import cascade, exact_match, scorer
from olmes_suite.scoring.careful_answers import same_number, same_text, stated_answer

_DATA_FORM = "\n\nPresent the answer in LaTex format: \\boxed{Your answer}"
"""The request at the end of the data set's own prompts, which the reference removes."""
_FORM = (
    '\n\nShow your work and conclude with "Therefore, the final answer is \\boxed{answer}." where answer is just the '
    "final solution that solves the problem. E.g., if the answer is 6, conclude with "
    '"Therefore, the final answer is \\boxed{6}."'
)


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn."""
    return doc["messages"][0]["content"].replace(_DATA_FORM, "") + _FORM


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the right answer as the data set has it."""
    return str(doc["ground_truth"])


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the answer; the strict metric is 0 for a box or a line outside a statement."""
    read = cascade.final_answer(response, number=False)
    flexible = exact_match(read.answer, doc_to_target(doc), ignore_punctuation=False)
    strict = flexible if read.form >= cascade.STRICT_FROM else 0.0
    return Scored({"exact_match": strict, "exact_match_flex": flexible}, read.answer, failed=not read.answer)


@scorer()
def score_repaired(doc: Mapping[str, Any], response: str) -> Scored:
    """Score whether the stated answer is the right one: the last box with paired braces, or what follows a colon."""
    answer, right = stated_answer(response), doc_to_target(doc)
    number = right.lstrip("-").replace(".", "", 1).isdigit()
    value = same_text(answer, right) or (number and same_number(answer, right))
    return Scored({"exact_match_flex": float(value)}, answer, failed=not answer)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"We work it out. Therefore, the final answer is \\boxed{{{doc_to_target(doc)}}}."


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return "We work it out. Therefore, the final answer is \\boxed{-987654321012345}."
