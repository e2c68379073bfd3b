"""Verifiers of form, for rewards beside that of the answer: the marks of a thought, a pattern, a length.

They read the whole response with its thought. A length is counted in tokens, which the trainer puts into the row as
`response_tokens`; where it is not there, in words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from olmes_suite.thinking import built_in
from train_plugins.verifiers.base import Malformed, shown

SCALE = 32_768
"""Number of tokens beyond the wanted length at which the value reaches 0, as in open-instruct."""


def think_format(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return 1 for a response that starts with its only thought, which ends, and goes on with an answer.

    The marks are the row's `thought_marks`, [open, close, …], otherwise those of the reader `think`. The truth is not
    read.
    """
    opening, *closing = row.get("thought_marks") or _marks()
    text = response.strip()
    closes = [mark for mark in closing if mark in text]
    if not text.startswith(opening) or text.count(opening) != 1 or len(closes) != 1 or text.count(closes[0]) != 1:
        return 0.0
    thought, _, answer = text[len(opening) :].partition(closes[0])
    return float(bool(thought.strip()) and bool(answer.strip()))


def re_search(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return 1 if the truth, a regular expression, is found in the response. A dot also matches a line's end."""
    return float(pattern_of(truth).search(response) is not None)


def max_length(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return how near the length is to the wanted one: 1 − |length − wanted| / scale, at least 0."""
    wanted, scale = length_of(truth)
    return max(1 - abs(_length(response, row) - wanted) / scale, 0.0)


def up_to_max_length(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return 1 up to the wanted length, and less beyond it: 1 − (length − wanted) / scale, at least 0."""
    wanted, scale = length_of(truth)
    return min(max(1 - (_length(response, row) - wanted) / scale, 0.0), 1.0)


def length_of(truth: Any) -> tuple[float, float]:
    """Return the wanted length and the scale: of a number, or of {"length", "scale"} or its JSON. Raises Malformed."""
    if isinstance(truth, str) and truth.lstrip().startswith("{"):
        try:
            truth = json.loads(truth)
        except (ValueError, RecursionError):
            raise Malformed("it is not JSON") from None
    fields = truth if isinstance(truth, Mapping) else {"length": truth}
    unknown = [key for key in fields if key not in ("length", "scale")]
    if unknown:
        raise Malformed(f"a length has the keys length and scale, not {shown(unknown[0])}")
    numbers = []
    for key, least, default in (("length", 0, None), ("scale", 1, SCALE)):
        value = fields.get(key, default)
        try:
            number = float("nan") if isinstance(value, bool) or value is None else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not least <= number < float("inf"):
            raise Malformed(f"{key} must be a number of at least {least}, not {shown(value)}")
        numbers.append(number)
    return numbers[0], numbers[1]


def pattern_of(truth: Any) -> re.Pattern[str]:
    """Return the regular expression of a truth. Raises Malformed."""
    if not isinstance(truth, str) or not truth:
        raise Malformed(f"expected a regular expression, not {shown(truth)}")
    try:
        return re.compile(truth, re.DOTALL)
    except (re.error, RecursionError, OverflowError) as error:
        raise Malformed(f"it is no regular expression: {error}") from None


def _length(response: str, row: Mapping[str, Any]) -> int:
    counted = row.get("response_tokens")
    return len(response.split()) if counted is None else int(counted)


def _marks() -> list[str]:
    reader = built_in("think")
    return [reader.open, *reader.close]
