r"""Verifiers of a final answer in words or digits.

`gsm8k` compares numbers by value. `gsm8k_benchmark` extracts and compares like the evaluator's task, which drops the
sign of integers and compares digits as text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from train_plugins.verifiers.base import Malformed, shown
from train_plugins.verifiers.numbers import MINUS, last_number, only_number
from train_plugins.verifiers.task_modules import task

_BOX = re.compile(r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*){0,20})\}")
_HASHES = re.compile(r"####([^\n]*)")
_AROUND = ".,;:!?\"'()[]{}*_`\u2018\u2019\u201c\u201d\u00ab\u00bb\u2026"
_ACRONYM = re.compile(r"\b(?:[a-z]\.){2,}")
_INSIDE = re.compile(r"(?<=[^\W\d_])['\u2019-](?=[^\W\d_])")
_BULLETS = ("-", "*", "\u2022")


def gsm8k(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    r"""Compare the response's answer with the truth by value: a number, or a GSM8K solution ending in `#### number`.

    The answer is the last number in the last `\boxed{}` or after the last `####`, otherwise in the response.
    """
    gold = number_of(truth)
    answer = _answer(response)
    return float((last_number(response) if answer is None else last_number(answer, alone=True)) == gold)


def gsm8k_benchmark(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return the task's `exact_match`, by which 5 equals -5, and 8.0 differs from 8."""
    text = text_with_digits(truth)
    return float(task("gsm8k").score.one({"answer": text}, response).scores["exact_match"])


def string(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Compare the response with one or several accepted answers.

    Case, white space, and punctuation around words are ignored; numbers are compared by value. Punctuation inside a
    word counts, but for hyphens and apostrophes between letters.
    """
    return float(any(_same_text(response, one) for one in accepted_of(truth)))


def accepted_of(truth: Any) -> list[str]:
    """Return the answers that a truth accepts: one, or a list. Raises Malformed."""
    accepted = list(truth) if isinstance(truth, (list, tuple)) else [truth]
    if not accepted:
        raise Malformed("the list of accepted answers is empty")
    return [text_of(one) for one in accepted]


def text_with_digits(truth: Any) -> str:
    """Return the text of a truth that contains a number. Raises Malformed."""
    text = text_of(truth)
    if not any(character.isdigit() for character in text):
        raise Malformed("it contains no number")
    return text


def text_of(truth: Any) -> str:
    """Return a text or number as text. Raises Malformed.

    Parquet turns 72 into 72.0, which no response contains, so whole floats become integers.
    """
    if isinstance(truth, bool) or not isinstance(truth, (str, int, float)) or not str(truth).strip() or truth != truth:
        raise Malformed(f"expected text or a number, not {shown(truth)}")
    return str(int(truth) if isinstance(truth, float) and truth.is_integer() else truth)


def number_of(truth: Any) -> Fraction:
    """Return the number of a truth. Raises Malformed."""
    gold = last_number(text_of(truth).split("####")[-1], alone=True)
    if gold is None:
        raise Malformed("it contains no number")
    return gold


def _answer(response: str) -> str | None:
    """Return the part of a response that is marked as its answer; None if none is."""
    marked = [match for pattern in (_BOX, _HASHES) for match in pattern.finditer(response)]
    marked = [match for match in marked if any(character.isdigit() for character in match[1])]
    return max(marked, key=re.Match.start)[1] if marked else None


def _same_text(response: str, truth: str) -> bool:
    answer, gold = only_number(response.strip(_AROUND + " \n")), only_number(truth)
    if gold is not None and answer is not None:
        return answer == gold
    return _words(response) == _words(truth)


def _words(text: str) -> list[str]:
    """Return the words that are compared; for a text of nothing but punctuation, that punctuation."""
    folded = unicodedata.normalize("NFC", text).translate(MINUS).lower()
    folded = _INSIDE.sub("", _ACRONYM.sub(lambda match: match[0].replace(".", ""), folded))
    parts = folded.split()
    if len(parts) > 1 and parts[0] in _BULLETS and not parts[1][:1].isdigit():
        parts = parts[1:]
    return [word for part in parts if (word := part.strip(_AROUND))] or parts
