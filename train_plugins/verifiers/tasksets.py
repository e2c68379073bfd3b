"""The verifier `taskset`: the rewards of a task of the package `verifiers`, from rows of `olmes tasks taskset`.

A ground truth is `{"taskset": the module's name, "data": the task's data}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from olmes_suite.errors import DataError
from olmes_suite.extras import require_module
from olmes_suite.scoring import tasksets
from train_plugins.verifiers.base import Malformed, shown


def taskset(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return the reward of a response, cut to 0 to 1. Raises Malformed."""
    name, data = _parts(truth)
    try:
        reward, _ = tasksets.score_answer(name, data, row.get("messages") or [], response)
    except DataError as error:
        raise Malformed(str(error)) from None
    return min(max(reward, 0.0), 1.0)


def check_truth(truth: Any, row: Mapping[str, Any]) -> None:
    """Raise Malformed for a truth of another form, UsageError where the package is not installed."""
    _parts(truth)
    prepare()


def prepare() -> None:
    """Raise UsageError where the package is not installed."""
    require_module("verifiers", "the verifier taskset needs the package verifiers")


def _parts(truth: Any) -> tuple[str, Mapping[str, Any]]:
    """Return the taskset's name and the task's data. Raises Malformed."""
    if isinstance(truth, str):
        try:
            truth = json.loads(truth)
        except ValueError:
            raise Malformed("it is not JSON") from None
    if isinstance(truth, Mapping) and isinstance(truth.get("taskset"), str) and isinstance(truth.get("data"), Mapping):
        return truth["taskset"], truth["data"]
    raise Malformed(f"expected {{taskset, data}}, as `olmes tasks taskset` writes it, not {shown(truth)}")
