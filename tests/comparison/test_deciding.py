"""Stopping early: error rates over all looks, by simulation through what the command calls."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from olmes_suite.comparison.deciding import Spending

_PATH = Path(__file__).parents[2] / "benchmarks" / "deciding.py"


@pytest.fixture(scope="module")
def deciding() -> Any:
    spec = importlib.util.spec_from_file_location("deciding_gates", _PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 13])
@pytest.mark.parametrize("times", [(1.0,), (0.3, 1.0), (0.04, 0.06, 0.1, 0.2, 0.35, 0.6, 0.62, 1.0)])
def test_all_looks_together_spend_alpha(alpha: float, times: tuple[float, ...]) -> None:
    from scipy.special import ndtr

    rng, draws = np.random.default_rng(4), 400_000
    bounds = Spending(alpha)
    levels = [bounds.at(time) for time in times]
    steps = np.sqrt(np.diff([0.0, *times]))
    process = np.cumsum(rng.normal(size=(draws, len(times))) * steps, axis=1)
    crossed = (1 - ndtr(process / np.sqrt(times)) <= levels).any(axis=1).mean()
    assert crossed == pytest.approx(alpha, rel=0.03)


def test_a_single_look_is_the_plain_test_and_repeated_looks_spend_nothing() -> None:
    bounds = Spending(0.05)
    assert bounds.at(1.0) == pytest.approx(0.05, rel=1e-3)
    assert bounds.at(1.0) == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("flips", "drop", "task", "held"),
    [
        (0.02, 0.0, "", {"fail": 0.10, "tokens": 0.12}),
        (0.10, 0.0, "", {"fail": 0.10, "tokens": 0.30}),
        (0.10, 0.03, "", {"pass": 0.0, "tokens": 0.12}),
        (0.02, 0.01, "", {"pass": 0.12}),
        (0.10, 0.10, "tulu3_ifeval", {"pass": 0.08}),
    ],
)
def test_verdicts_of_runs_that_stop_early(
    deciding: Any, flips: float, drop: float, task: str, held: dict[str, float]
) -> None:
    """A small version of the benchmark: 40 runs, whose shares have a standard error of 3.5 points at 5 %."""
    found = next(deciding.gates(40, [(flips, drop, task)]))
    for name, most in held.items():
        assert found[name] <= most, found
    if drop >= 0.03:
        assert found["fail"] >= 0.95 * found["full fail"]
