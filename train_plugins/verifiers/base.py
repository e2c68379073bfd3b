"""The interface of verifiers: calls, verdicts and errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import DataError, StageRefused

Verifier = Callable[[str, Any, Mapping[str, Any]], float | bool | None]
"""A function of a response, the row's ground truth and the row. It returns the verified fraction from 0 to 1 (True is
1), or None if the row cannot be judged and is to be skipped, and raises `Malformed` for a truth that it cannot read."""


@dataclass(frozen=True, slots=True)
class Call:
    """One response to verify."""

    verifier: str
    """Name of the verifier, in upper or lower case."""
    response: str
    truth: Any
    """The row's `ground_truth`; None if the verifier reads other columns."""
    row: Mapping[str, Any]
    """The row of the training data. Error messages name it by `row`, its number in the set."""


class VerifierFailed(StageRefused):
    """A verifier raised an error or did not return a fraction; training stops and names the row."""


class Malformed(DataError):
    """A ground truth cannot be read; the message says why, and the caller adds verifier and row."""


class OutOfTime(Exception):
    """A verdict took too long; the response counts as not verified."""


def shown(value: Any, limit: int = 60) -> str:
    """Format a value for an error message as one short line."""
    try:
        text = " ".join(repr(value).split())
    except (RecursionError, ValueError):  # lists in lists, or an integer too long to be shown
        text = f"a {type(value).__name__} that is too large to be shown"
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def where(call: Call) -> str:
    """Name verifier and row for an error message."""
    return f"verifier {call.verifier}, row {call.row.get('row', '?')} (ground truth {shown(call.truth)})"
