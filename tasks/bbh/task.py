"""BIG-Bench Hard as the reference renders and scores it (allenai/olmes `bbh_<name>`: `cot-v1::tulu`, `cot::tulu`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import Scorer, exact_match, lm_eval_config, scorer
from olmes_suite.scoring.multiple_choice import another

CHOICE = r"\([A-Z]\)"
_BACKSPACES = "\x08([A-Z])\x08"
r"""The reference writes `\b` in a string that is not raw, which is a backspace: it never reads a bare letter."""
_OPPOSITES = {"True": "False", "Yes": "No", "yes": "no", "valid": "invalid"}
_WRONG = _OPPOSITES | {wrong: right for right, wrong in _OPPOSITES.items()}


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return a question turn, after the description where the document has one."""
    return f"{doc.get('description', '')}Q: {doc['input']}\nA: Let's think step by step."


def fewshot(task: Any) -> list[dict[str, str]]:
    """Return the three exemplars of lm-eval's `bbh_cot_fewshot`, with its description before the first."""
    config = lm_eval_config(f"bbh/cot_fewshot/{task.config.dataset_name}.yaml")
    first, *others = config["fewshot_config"]["samples"]
    return [{**first, "description": config["description"]}, *others]


def extract(response: str, pattern: str) -> str:
    """Extract the answer as the current extractor does: the last match of the first of its seven patterns that matches.

    `pattern` is the form of the sub-task's answers. The reference also strips quotes, asterisks and dollar signs, which
    no form of answer can contain.
    """
    for matches in _matches(response, pattern):
        if matches:
            answer = matches[-1].strip()
            return f"({answer})" if pattern == CHOICE and len(answer) == 1 else answer
    return ""


def _matches(response: str, pattern: str) -> Iterator[list[str]]:
    yield re.findall(rf"(?i)So the answer is ({pattern})\.?", response)
    yield re.findall(rf"(?i)answer is ({pattern})", response)
    yield _next_after("answer:", pattern, response)
    yield _next_after(r"answer\b", pattern, response)
    yield re.findall(pattern, response)
    if pattern == CHOICE:
        yield re.findall(_BACKSPACES, response)
    yield re.findall(rf"(?i){pattern}", response)


def _next_after(head: str, pattern: str, response: str) -> list[str]:
    """Find the matches of `(?i)head.*?(pattern)` in linear time."""
    start, answer = re.compile(head, re.IGNORECASE), re.compile(pattern, re.IGNORECASE)
    matches = []
    for line in response.split("\n"):
        position = 0
        while (begun := start.search(line, position)) and (match := answer.search(line, begun.end())):
            matches.append(match.group())
            position = match.end()
    return matches


def extract_v0(response: str) -> str:
    """Extract the answer as in 2024-11: the text after the first "the answer is ", without its last character."""
    match = re.search(r"(?<=the answer is )(.*)(?=.)", response)
    return match.group().strip(".") if match else ""


def _scored(doc: Mapping[str, Any], answer: str, ignore_punctuation: bool) -> Scored:
    value = exact_match(answer, doc["target"], ignore_punctuation=ignore_punctuation)
    return Scored({"exact_match": value}, answer, failed=not answer)


def _scorer(pattern: str, ignore_punctuation: bool = True) -> Scorer:
    def score(doc: Mapping[str, Any], response: str) -> Scored:
        """Score the exact match of the current extractor's answer."""
        return _scored(doc, extract(response, pattern), ignore_punctuation)

    return scorer()(score)


choice = _scorer(CHOICE)
boolean = _scorer("[tT]rue|[fF]alse")
yes_no = _scorer("[yY]es|[nN]o")
validity = _scorer("[iI]nvalid|[vV]alid")
integer = _scorer(r"-?\d+")
count = _scorer(r"\d+")
words = _scorer("[a-z ]+")
brackets = _scorer(r"[\]\)\}\> ]+", ignore_punctuation=False)


@scorer()
def score_v0(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the exact match of the answer of the paper's extractor; punctuation counts."""
    return _scored(doc, extract_v0(response), ignore_punctuation=False)


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1."""
    return f"We go through it step by step. So the answer is {doc['target']}."


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return gold({"target": _wrong(doc["target"])})


def _wrong(target: str) -> str:
    if target in _WRONG:
        return _WRONG[target]
    if re.fullmatch(CHOICE, target):
        return f"({another(target[1], 26)})"
    if re.fullmatch(r"-?\d+", target):
        return str(int(target) + 1)
    return f"{target} >" if re.fullmatch(r"[\]\)\}\> ]+", target) else f"{target} zzz"
