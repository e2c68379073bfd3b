"""MMLU-Pro as the reference renders and scores it (allenai/olmes `mmlu_pro_<category>`: `0shot_cot::tulu3`,
`cot::llama3.1`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import cycle, islice
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import exact_match, last_match, scorer
from olmes_suite.scoring.multiple_choice import another, dotted, last_alone, parenthesised, wrapped

_ZERO_SHOT = r"Therefore, the answer is \(([A-J])\)"
_LLAMA31 = r"The answer is:?\s*\(?([A-J])\b"
_THINK = "Let's think step by step."


def zero_shot_text(doc: Mapping[str, Any]) -> str:
    """Return the single user turn of `0shot_cot::tulu3`."""
    return wrapped(f"Question: {doc['question']}\n{parenthesised(doc['options'])}\n", "(A), (B), (C), (D), (E), etc.")


def llama31_text(doc: Mapping[str, Any]) -> str:
    """Return a question turn of `cot::llama3.1`."""
    return (
        "Given the following question and candidate answers, choose the best answer.\n"
        f"Question: {doc['question']}\n{dotted(doc['options'])}\n"
        'Your response should end with "The answer is [the_answer_letter]." where the [the_answer_letter] is a letter '
        f"from the provided choices.\n\n{_THINK}"
    )


def fewshot(task: Any) -> list[dict[str, Any]]:
    """Return the first five `validation` rows of the category (the sample data have fewer, which repeat)."""
    return [dict(row) for row in islice(cycle(task.dataset["validation"]), 5)]


def fewshot_target(doc: Mapping[str, Any]) -> str:
    """Return an exemplar's chain of thought, without the phrase that the prompt already ends with."""
    return str(doc["cot_content"]).replace(f"A: {_THINK}", "").strip()


def letter(doc: Mapping[str, Any]) -> str:
    """Return the letter of the right choice, `answer`; `answer_index` differs in one row of the test split."""
    return str(doc["answer"])


def extract(response: str, asked_for: str) -> str:
    """Extract the letter that the reference reads, in the response's case; "" where there is none.

    The last match of the form that the prompt requests; otherwise the first "answer is X", where X may be the first
    letter of a word ("the answer is a function"); otherwise "answer: X"; otherwise the last stand-alone capital.
    """
    if letter_read := last_match(asked_for, response):
        return letter_read
    if match := re.search(r"(?i)answer is:?\s*\(?([A-J])\)?", response):
        return match.group(1)
    return _after_colon(response) or last_alone("A-J", response)


def _after_colon(response: str) -> str:
    r"""Find the last "answer: X" on the first line that has one: the first match of `.*[aA]nswer:\s*([A-J])`."""
    matches = list(re.finditer(r"[aA]nswer:(?=\s*([A-J]))", response))
    if not matches:
        return ""
    end = response.find("\n", matches[0].start())
    return [match.group(1) for match in matches if end < 0 or match.start() < end][-1]


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    value = exact_match(answer, letter(doc), ignore_punctuation=False)
    return Scored({"exact_match": value}, answer, failed=not answer)


@scorer()
def zero_shot_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match; "Therefore, the answer is (X)" has priority."""
    return _scored(doc, extract(response, _ZERO_SHOT))


@scorer()
def llama31_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match; "The answer is X" has priority."""
    return _scored(doc, extract(response, _LLAMA31))


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1 in both forms."""
    return f"Only this choice fits. The answer is ({letter(doc)}). Therefore, the answer is ({letter(doc)})"


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0 in both forms."""
    wrong = another(letter(doc), len(doc["options"]))
    return f"{gold(doc)}. No. The answer is ({wrong}). Therefore, the answer is ({wrong})"
