"""Verifiers of a final answer in words or digits; `gsm8k` extracts and compares like the evaluator's task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.scoring.scorers import exact_match
from train_plugins.verifiers.base import Malformed, shown
from train_plugins.verifiers.task_modules import task


def gsm8k(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Compare the response's last number with the truth: a number, or a GSM8K solution ending in `#### number`."""
    text = text_of(truth)
    if not any(character.isdigit() for character in text):
        raise Malformed("it contains no number")
    return float(task("gsm8k").score.one({"answer": text}, response).scores["exact_match"])


def string(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Compare the response with one or several accepted answers, ignoring case, punctuation and white space."""
    accepted = list(truth) if isinstance(truth, (list, tuple)) else [truth]
    if not accepted:
        raise Malformed("the list of accepted answers is empty")
    return float(any(_same_text(response, text_of(one)) for one in accepted))


def _same_text(response: str, truth: str) -> bool:
    answer, gold = " ".join(response.split()), " ".join(truth.split())
    letters = any(character.isalnum() for character in gold)
    return bool(exact_match(answer, gold, ignore_punctuation=letters))


def text_of(truth: Any) -> str:
    """Return a text or number as text. Raises Malformed.

    Parquet turns 72 into 72.0, which no response contains, so whole floats become integers.
    """
    if isinstance(truth, bool) or not isinstance(truth, (str, int, float)) or not str(truth).strip():
        raise Malformed(f"expected text or a number, not {shown(truth)}")
    return str(int(truth) if isinstance(truth, float) and truth.is_integer() else truth)
