"""Stopping early: error rates over all looks, by simulation through what the command calls."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from olmes_suite.comparison import planning
from olmes_suite.comparison.alignment import Aligned
from olmes_suite.comparison.clusters import Pairs
from olmes_suite.comparison.compare import TaskComparison
from olmes_suite.comparison.deciding import Look, Looks, Target, chunks
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.planning import Candidate
from olmes_suite.comparison.spending import Spending

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


def seen(name: str, n: int, wins: int, losses: int) -> TaskComparison:
    """A task of which n documents were asked."""
    difference = np.concatenate([np.ones(wins), -np.ones(losses), np.zeros(n - wins - losses)])
    number, none = np.arange(n), np.zeros(0)
    pairs = Pairs(difference, np.full(n, 1 / n), np.zeros(n, dtype=np.int64), number, True)
    return TaskComparison(name, "other", aligned=Aligned((), pairs.stratum, number, none, none, pairs, 0, 0, none == 1))


def looks_at(*sizes: tuple[str, int], required: str = "", margin: float = 0.01) -> Looks:
    return Looks(Rules(), [Target(name, margin, name == required, 1 / size) for name, size in sizes])


class TestSingleTasks:
    """Tasks are asked no further one by one."""

    SIZES = (("big", 10_000), ("small", 200))

    def test_a_task_that_adds_nothing_is_asked_no_further(self) -> None:
        look = looks_at(*self.SIZES).look([seen("big", 4000, 20, 20), seen("small", 50, 5, 5)])
        assert (look.verdict, look.open) == ("continue", {"small"})

    def test_a_required_task_is_asked_until_it_passes(self) -> None:
        found = [seen("big", 4000, 200, 200), seen("small", 50, 5, 5)]
        assert looks_at(*self.SIZES, required="big").look(found).open == {"big", "small"}

    def test_a_task_is_asked_until_a_large_drop_is_excluded(self) -> None:
        found = [seen("big", 60, 4, 5), seen("small", 200, 0, 0)]
        assert "big" in looks_at(*self.SIZES).look(found).open

    def test_a_task_that_may_still_fail_is_asked(self) -> None:
        found = [seen("big", 4000, 100, 126), seen("small", 50, 5, 5)]
        assert "big" in looks_at(*self.SIZES).look(found).open

    def test_a_run_gives_up_before_all_documents(self) -> None:
        look = looks_at(("one", 10_000), ("two", 200)).look([seen("one", 9000, 9, 9), seen("two", 190, 19, 18)])
        assert look.verdict == "inconclusive"

    def test_chunks_nest_and_leave_settled_tasks_as_they_are(self) -> None:
        tasks = [Candidate("big", {"big": 10_000}, variance=0.1), Candidate("small", {"small": 400}, variance=0.1)]
        plans, looks = planning.chunks(tasks), looks_at(("big", 10_000), ("small", 400))
        asked = [{"big": 0, "small": 0}]
        for counts in chunks(plans, looks):
            assert all(counts[name] >= asked[-1][name] for name in counts) and counts != asked[-1]
            was_open = looks.last.open
            assert all(counts[name] == asked[-1][name] for name in counts if was_open and name not in was_open)
            asked.append(counts)
            small, big = counts["small"], counts["big"]
            looks.look([seen("big", big, big // 100, big // 100), seen("small", small, small // 8, small // 8)])
        assert looks.last.verdict == "inconclusive" and asked[-1]["small"] == 400 and asked[-1]["big"] < 10_000

    def test_a_task_that_is_open_again_after_the_last_plan_is_asked_in_full(self) -> None:
        tasks = [Candidate("big", {"big": 500}, variance=0.1), Candidate("small", {"small": 400}, variance=0.1)]
        plans, looks = planning.chunks(tasks), looks_at(("big", 500), ("small", 400))
        asked = []
        for counts in chunks(plans, looks):
            asked.append(counts)
            whole = counts["small"] == 400
            looks.last = Look("continue", open=frozenset({"big"} if whole else {"small"}))
            if counts["big"] == 500:
                looks.last = Look("inconclusive")
        assert asked[-1] == {"big": 500, "small": 400} and asked[-2]["big"] == 50


@pytest.mark.long
@pytest.mark.parametrize(
    ("flips", "drop", "task", "held"),
    [
        (0.02, 0.0, "", {"fail": 0.10, "tokens": 0.12}),
        (0.10, 0.0, "", {"fail": 0.10, "tokens": 0.30}),
        (0.10, 0.03, "", {"pass": 0.0, "tokens": 0.12}),
        (0.02, 0.01, "", {"pass": 0.12}),
        (0.20, 0.0, "", {"fail": 0.10, "tokens": 0.90, "most": 1.0}),
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
