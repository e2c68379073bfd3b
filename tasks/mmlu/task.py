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
"""Patterns in the order in which they are tried where the exact phrase is absent or not requested. The first match of
the first pattern that matches is the answer."""


def _subject(doc: Mapping[str, Any]) -> str:
    return str(doc["subject"]).replace("_", " ")


def summarize_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn of `cot::summarize`; it ends with a newline."""
    return (
        f"The following are multiple choice questions about {_subject(doc)}. Summarize your reasoning concisely, "
        "then conclude with 'Therefore, the answer is: X' where X is one of A, B, C, or D.\n\n"
        f"Question: {doc['question']}\n{dotted(doc['choices'])}"
    )


def zero_shot_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn of `0shot_cot::tulu3`."""
    return wrapped(f"Question: {doc['question']}\n{parenthesised(doc['choices'])}\n", "(A), (B), (C), (D).")


def mc_text(doc: Mapping[str, Any]) -> str:
    """Return a question turn of `mc::tulu`, after the description where the document has one."""
    return f"{doc.get('description', '')}Question: {doc['question']}\n{dotted(doc['choices'])}Answer:"


def fewshot(task: Any) -> list[dict[str, Any]]:
    """Return the first five rows of the subject's `dev` split, with the description before the first one only."""
    rows = [dict(row) for row in islice(cycle(task.dataset["dev"]), 5)]
    subject = task.config.dataset_name.replace("_", " ")
    about = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
    return [{**rows[0], "description": about}, *rows[1:]]


def letter(doc: Mapping[str, Any]) -> str:
    """Return the letter of the right choice."""
    return LETTERS[doc["answer"]]


def right_choice(doc: Mapping[str, Any]) -> int:
    """Return the index of the right choice."""
    return int(doc["answer"])


def extract(response: str, exact_phrase: bool = False) -> str:
    """Extract the letter that the reference reads, in upper case; "" where there is none.

    With `exact_phrase` the last "Therefore, the answer is (X)" has priority.
    """
    if exact_phrase and (letter_read := last_match(_EXACT_PHRASE, response)):
        return letter_read
    for pattern in _STATEMENTS:
        if match := re.search(pattern, response):
            return match.group(1).upper()
    return first_line_last_alone("A-D", response)


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    return Scored({"exact_match": exact_match(answer, letter(doc))}, answer, failed=not answer)


@scorer()
def summarize_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the first stated answer, even if the model corrects itself later."""
    return _scored(doc, extract(response))


@scorer()
def zero_shot_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the last answer in the requested form, otherwise of the first in a looser form."""
    return _scored(doc, extract(response, exact_phrase=True))


@scorer()
def mc_score(doc: Mapping[str, Any], loglikelihoods: Sequence[float]) -> Scored:
    """Score 1 if the right letter has the largest summed log-probability; among equal ones the first counts."""
    best = max(range(len(loglikelihoods)), key=loglikelihoods.__getitem__)
    return Scored({"acc_raw": float(best == doc["answer"])}, LETTERS[best])


def summarize_gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"Only this choice fits the question. Therefore, the answer is: {letter(doc)}"


def summarize_corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return f"Only this choice fits the question. Therefore, the answer is: {another(letter(doc), len(LETTERS))}"


def zero_shot_gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"Only this choice fits the question. Therefore, the answer is ({letter(doc)})"


def zero_shot_corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return f"{zero_shot_gold(doc)}. No. Therefore, the answer is ({another(letter(doc), len(LETTERS))})"


def mc_gold(doc: Mapping[str, Any]) -> list[float]:
    """Return log-likelihoods that score 1."""
    return [-0.5 if i == doc["answer"] else -2.5 for i in range(len(LETTERS))]


def mc_corrupt(doc: Mapping[str, Any]) -> list[float]:
    """Return log-likelihoods that score 0."""
    return [-2.5 if i == doc["answer"] else -0.5 for i in range(len(LETTERS))]
