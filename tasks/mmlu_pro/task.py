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
    """The one user turn of `0shot_cot::tulu3`."""
    return wrapped(f"Question: {doc['question']}\n{parenthesised(doc['options'])}\n", "(A), (B), (C), (D), (E), etc.")


def llama31_text(doc: Mapping[str, Any]) -> str:
    """A question turn of `cot::llama3.1`."""
    return (
        "Given the following question and candidate answers, choose the best answer.\n"
        f"Question: {doc['question']}\n{dotted(doc['options'])}\n"
        'Your response should end with "The answer is [the_answer_letter]." where the [the_answer_letter] is a letter '
        f"from the provided choices.\n\n{_THINK}"
    )


def fewshot(task: Any) -> list[dict[str, Any]]:
    """The first five `validation` rows of the category (the sample data have fewer, and repeat)."""
    return [dict(row) for row in islice(cycle(task.dataset["validation"]), 5)]


def fewshot_target(doc: Mapping[str, Any]) -> str:
    """An exemplar's chain of thought, without the phrase that the prompt already ends with."""
    return str(doc["cot_content"]).replace(f"A: {_THINK}", "").strip()


def letter(doc: Mapping[str, Any]) -> str:
    """The letter of the right choice, from `answer`; `answer_index` differs from it in one row of the test split."""
    return str(doc["answer"])


def extract(response: str, asked_for: str) -> str:
    """The letter that the reference reads, as it stands in the response; "" where there is none.

    The last match of the form that was asked for; else the first "answer is X", where X may be the first letter of a
    word ("the answer is a function"); else "answer: X"; else the last stand-alone capital.
    """
    if found := last_match(asked_for, response):
        return found
    if match := re.search(r"(?i)answer is:?\s*\(?([A-J])\)?", response):
        return match.group(1)
    return _after_colon(response) or last_alone("A-J", response)


def _after_colon(response: str) -> str:
    r"""The last "answer: X" on the first line that has one: the first match of `.*[aA]nswer:\s*([A-J])`."""
    found = list(re.finditer(r"[aA]nswer:(?=\s*([A-J]))", response))
    if not found:
        return ""
    end = response.find("\n", found[0].start())
    return [match.group(1) for match in found if end < 0 or match.start() < end][-1]


def _scored(doc: Mapping[str, Any], answer: str) -> Scored:
    value = exact_match(answer, letter(doc), ignore_punctuation=False)
    return Scored({"exact_match": value}, answer, failed=not answer)


@scorer()
def zero_shot_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Exact match, "Therefore, the answer is (X)" first."""
    return _scored(doc, extract(response, _ZERO_SHOT))


@scorer()
def llama31_score(doc: Mapping[str, Any], response: str) -> Scored:
    """Exact match, "The answer is X" first."""
    return _scored(doc, extract(response, _LLAMA31))


def gold(doc: Mapping[str, Any]) -> str:
    """A response that scores 1 in both forms."""
    return f"Only this choice fits. The answer is ({letter(doc)}). Therefore, the answer is ({letter(doc)})"


def corrupt(doc: Mapping[str, Any]) -> str:
    """A response that scores 0 in both forms."""
    wrong = another(letter(doc), len(doc["options"]))
    return f"{gold(doc)}. No. The answer is ({wrong}). Therefore, the answer is ({wrong})"
