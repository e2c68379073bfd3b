r"""Verifiers of mathematical answers.

`math` compares the answer that a response states last. `math_benchmark` extracts and compares like the evaluator's task
`math`: any of several candidates may be right, and what its normalisation loses (bases, all but the last equation, the
`ft` in `\left`) is not compared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from train_plugins.verifiers.base import Malformed
from train_plugins.verifiers.final_answer import text_of
from train_plugins.verifiers.numbers import MINUS, only_number
from train_plugins.verifiers.task_modules import task

_SENTENCE = "Final Answer: The final answer is"
_PHRASE = re.compile(r"\banswer(?:\s+is|:)\s*:?([^\n]*)", re.IGNORECASE)
_REPLACED = (
    (re.compile(r"\\(?:left|right)(?![a-zA-Z])"), ""),
    (re.compile(r"\\([lg])e(?![a-zA-Z])"), r"\\\1eq"),
    (re.compile(r"\\[,;:!]|\^\{?\\circ\}?"), ""),
    (re.compile(r"(?<=\d)\\[dt]?frac\s*\{?(\d)\}?\s*\{?(\d)\}?(?!\d)"), r"+\\frac{\1}{\2}"),
    (re.compile(r"(?<=\d)\\[dt]?frac\s*\{(\d+)\}\s*\{(\d+)\}"), r"+\\frac{\1}{\2}"),
    (re.compile(r"(?<=[\d}])\s*\\(?:text|mathrm|textrm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?\s*$"), ""),
)
"""Spellings that the task's normalisation damages or keeps apart; the last is a unit after a number."""
_LISTED = re.compile(r"\\text\s*\{\s*(?:or|and)\s*\}|(?<![a-zA-Z\\])(?:or|and)(?![a-zA-Z])")
_NAMED = re.compile(r"^\s*[a-zA-Z](?:_\{?\w+\}?)?\s*=(?!=)")
_BASED = re.compile(r"^\s*(\w+)_\{?(\d+)\}?\s*$")
_OPERATOR = re.compile(r"[-+*/^]|\\(?:times|cdot|[dt]?frac)(?![a-zA-Z])")
_LONGEST = 2000
"""Number of characters up to which an answer is divided into elements."""


def math(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    r"""Compare the answer that the response states last; the truth is LaTeX, or a solution with a `\boxed{}`.

    The answer is the last `\boxed{}` or Minerva's closing sentence, whichever comes later; without either, what follows
    "answer is"; otherwise the last `$…$`, or the whole response. Expressions, numbers, lists and tuples are equal where
    their parts are, by the task's comparison.
    """
    return float(_same(_stated(response), gold_of(truth)))


def math_benchmark(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    r"""Return the task's `exact_match_flex`; the truth is an answer in LaTeX, or a solution with a `\boxed{}`.

    The verdict equals the scorer's with less work: the strict metric is not computed separately, because its answer is
    among the flexible metric's candidates, so equal strings never reach SymPy.
    """
    scorer = task("math")
    gold = scorer.normalize(gold_of(truth))
    return float(any(scorer.same(answer, gold) for answer in scorer.candidates(response)))


def prepare() -> None:
    """Load SymPy and its LaTeX parser outside any verdict's time."""
    task("math").same_by_sympy("1", "2")


def gold_of(truth: Any) -> str:
    """Return the answer of a truth as it is written. Raises Malformed."""
    text = text_of(truth)
    return _gold_text(text)


@lru_cache(maxsize=8192)
def _gold_text(text: str) -> str:
    scorer = task("math")
    gold: str | None = scorer.boxed(text if "\\boxed" in text or "\\fbox" in text else f"\\boxed{{{text}}}")
    if gold is None or not scorer.normalize(gold).strip():
        raise Malformed("it contains no answer, or its braces do not match")
    return gold


def _stated(response: str) -> str:
    """Return the answer that a response states last, as it is written."""
    sentence = response.rfind(_SENTENCE)
    box: str | None = task("math").boxed(response)
    if box is not None and response.rfind("\\boxed") > sentence:
        return box
    if sentence >= 0:
        return response[sentence + len(_SENTENCE) :].partition(". I hope it is correct")[0].strip()
    phrase = None
    for phrase in _PHRASE.finditer(response):  # noqa: B007 - only the last one is used
        pass
    text = phrase[1] if phrase is not None and phrase[1].strip() else response
    text = text.replace("**", "")  # bold type in Markdown
    formulas = text.split("$")
    if len(formulas) < 3:
        return text
    return formulas[1] if phrase is not None else formulas[-2]


def _same(answer: str, gold: str) -> bool:
    answer, gold = _cleaned(answer), _cleaned(gold)
    elements, wanted = _elements(answer), _elements(gold)
    if len(elements) > 1 or len(wanted) > 1:
        return len(elements) == len(wanted) and _same_in_any_order(elements, wanted)
    return _same_one(answer, gold)


def _same_in_any_order(elements: list[str], wanted: list[str]) -> bool:
    left = list(elements)
    for one in wanted:
        found = next((place for place, element in enumerate(left) if _same_one(element, one)), None)
        if found is None:
            return False
        del left[found]
    return True


def _same_one(answer: str, gold: str) -> bool:
    value, wanted = only_number(answer), only_number(gold)
    if value is not None and wanted is not None:
        return value == wanted
    base, wanted_base = _BASED.match(answer), _BASED.match(gold)
    if base and wanted_base:
        return base.groups() == wanted_base.groups()
    if (base or wanted_base) and _OPERATOR.search(answer + gold):  # the task's normalisation ends at a base
        return False
    if (parts := _tuple(answer)) and (wanted_parts := _tuple(gold)):
        (brackets, inner), (wanted_brackets, wanted_inner) = parts, wanted_parts
        return (
            brackets == wanted_brackets and len(inner) == len(wanted_inner) and all(map(_same_one, inner, wanted_inner))
        )
    scorer = task("math")
    return bool(scorer.same(scorer.normalize(answer), scorer.normalize(gold)))


def _cleaned(text: str) -> str:
    text = text.translate(MINUS).strip().strip("$").strip()
    for pattern, replacement in _REPLACED:
        text = pattern.sub(replacement, text)
    return text.removesuffix(".").strip()


def _elements(text: str) -> list[str]:
    """Return the elements of a list or a set, without the names of variables; one element for anything else."""
    inner = text[2:-2] if text.startswith("\\{") and text.endswith("\\}") else text
    if len(inner) > _LONGEST or only_number(inner) is not None:
        return [inner]
    parts = [part for group in _LISTED.split(inner) for part in _at_commas(group)]
    parts = [part for part in parts if part]
    return [_NAMED.sub("", part).strip() for part in parts] if len(parts) > 1 else [inner]


def _tuple(text: str) -> tuple[str, list[str]] | None:
    """Return the brackets and the elements of a tuple or an interval; None for anything else."""
    if len(text) > _LONGEST or text[:1] not in ("(", "[") or text[-1:] not in (")", "]"):
        return None
    parts = _at_commas(text[1:-1])
    return (text[0] + text[-1], parts) if len(parts) > 1 else None


def _at_commas(text: str) -> list[str]:
    """Divide a text at the commas outside brackets; where brackets do not match, it stays whole."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            return [text.strip()]
        if character == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    return [*parts, text[start:].strip()] if depth == 0 else [text.strip()]
