"""MMLU as the reference renders and scores it (allenai/olmes `mmlu_<subject>`: `cot::summarize`, `mc::tulu`,
`0shot_cot::tulu3`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import exact_match, last_match, scorer
from olmes_suite.scoring.multiple_choice import another, dotted, first_line_last_alone, parenthesised, wrapped

LETTERS = "ABCD"
_EXACT_PHRASE = r"Therefore, the answer is \(([A-D])\)"
_STATEMENTS = (
    r"(?i)therefore,?\s*the\s*answer\s*is:?\s*\(?([A-D])\b",
    r"(?i)answer\s*is:?\s*\(?([A-D])\b",
    r"(?i)([A-D])\)?\s+is\s+correct",
    r"\(([A-D])\)",
)
"""Tried in this order when the exact phrase is absent, or not asked for; the first match of the first that hits."""


def _subject(doc: Mapping[str, Any]) -> str:
    return str(doc["subject"]).replace("_", " ")


def summarize_text(doc: Mapping[str, Any]) -> str:
    """The one user turn of `cot::summarize`; it ends with a newline."""
    return (
        f"The following are multiple choice questions about {_subject(doc)}. Summarize your reasoning concisely, "
        "then conclude with 'Therefore, the answer is: X' where X is one of A, B, C, or D.\n\n"
        f"Question: {doc['question']}\n{dotted(doc['choices'])}"
    )


def zero_shot_text(doc: Mapping[str, Any]) -> str:
    """The one user turn of `0shot_cot::tulu3`."""
    return wrapped(f"Question: {doc['question']}\n{parenthesised(doc['choices'])}\n", "(A), (B), (C), (D).")


def mc_text(doc: Mapping[str, Any]) -> str:
    """A question turn of `mc::tulu`, after the description where the document brings one."""
    return f"{doc.get('description', '')}Question: {doc['question']}\n{dotted(doc['choices'])}Answer:"


def fewshot(task: Any) -> list[dict[str, Any]]:
    """The first five rows of the subject's `dev` split; the description stands before the first one only."""
    rows = [dict(row) for row in islice(cycle(task.dataset["dev"]), 5)]
    subject = task.config.dataset_name.replace("_", " ")
    about = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    return [{**rows[0], "description": about}, *rows[1:]]


def letter(doc: Mapping[str, Any]) -> str:
    """The letter of the right choice."""
    return LETTERS[doc["answer"]]


def right_choice(doc: Mapping[str, Any]) -> int:
    """The index of the right choice."""
    return int(doc["answer"])


def extract(response: str, exact_phrase: bool = False) -> str:
    """The letter that the reference reads, in upper case; "" where there is none.

    With `exact_phrase` the last "Therefore, the answer is (X)" goes before all else.
    """
    if exact_phrase and (found := last_match(_EXACT_PHRASE, response)):
        return found
    for pattern in _STATEMENTS:
        if match := re.search(pattern, response):
            return match.group(1).upper()
    return first_line_last_alone("A-D", response)


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    return Scored({"exact_match": exact_match(answer, letter(doc))}, answer, failed=not answer)


@scorer()
def summarize_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Exact match of the first statement of an answer: a model that corrects itself is held to its first word."""
    return _scored(doc, extract(response))


@scorer()
def zero_shot_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Exact match of the last answer in the asked-for form, else of the first in a looser one."""
    return _scored(doc, extract(response, exact_phrase=True))


@scorer()
def mc_score(doc: Mapping[str, Any], loglikelihoods: Sequence[float]) -> Scored:
    """1 if the right letter has the largest summed log-probability; of equals the first counts."""
    best = max(range(len(loglikelihoods)), key=loglikelihoods.__getitem__)
    return Scored({"acc_raw": float(best == doc["answer"])}, LETTERS[best])


def summarize_gold(doc: Mapping[str, Any]) -> str:
    """A response that scores 1."""
    return f"Only this choice fits the question. Therefore, the answer is: {letter(doc)}"


def summarize_corrupt(doc: Mapping[str, Any]) -> str:
    """A response that scores 0."""
    return f"Only this choice fits the question. Therefore, the answer is: {another(letter(doc), len(LETTERS))}"


def zero_shot_gold(doc: Mapping[str, Any]) -> str:
    """A response that scores 1."""
    return f"Only this choice fits the question. Therefore, the answer is ({letter(doc)})"


def zero_shot_corrupt(doc: Mapping[str, Any]) -> str:
    """A response that scores 0."""
    return f"{zero_shot_gold(doc)}. No. Therefore, the answer is ({another(letter(doc), len(LETTERS))})"


def mc_gold(doc: Mapping[str, Any]) -> list[float]:
    """Log-likelihoods that score 1."""
    return [-0.5 if i == doc["answer"] else -2.5 for i in range(len(LETTERS))]


def mc_corrupt(doc: Mapping[str, Any]) -> list[float]:
    """Log-likelihoods that score 0."""
    return [-2.5 if i == doc["answer"] else -0.5 for i in range(len(LETTERS))]
