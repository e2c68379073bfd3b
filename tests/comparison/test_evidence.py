"""Bounds at several levels from one pass, and what more documents would say, against `compare` and simulations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri

from olmes_suite.comparison import evidence, paired_tests
from olmes_suite.comparison.clusters import Pairs
from olmes_suite.comparison.compare import TaskComparison, compare_average
from olmes_suite.comparison.evidence import Evidence
from olmes_suite.comparison.paired_tests import Difference


def pairs(kind: str, seed: int, n: int = 240) -> Pairs:
    rng = np.random.default_rng(seed)
    difference = rng.choice([-1.0, 0.0, 1.0], n, p=[0.12, 0.8, 0.08])
    alone, none = np.arange(n), np.zeros(n, dtype=np.int64)
    even = np.full(n, 1 / n)
    if kind == "binary":
        return Pairs(difference, even, none, alone, True)
    if kind == "few":
        return Pairs(np.where(alone < 9, difference, 0), even, none, alone, False)
    if kind == "graded":
        return Pairs(rng.normal(-0.02, 0.2, n), even, none, alone, False)
    if kind in ("alike", "worse"):  # all documents of a stratum
        moved = np.where(alone < 200, rng.choice([-1.0, 0.0, 1.0], n, p=[0.2, 0.6, 0.2]), -1.0 * (kind == "worse"))
        return Pairs(moved, even, np.where(alone < 200, 0, 1), alone, False)
    if kind == "small":
        return Pairs(rng.normal(-0.02, 0.2, 12), np.full(12, 1 / 12), none[:12], alone[:12], False)
    stratum = np.sort(rng.integers(0, 4, n))
    weight = (1 / 4 / np.bincount(stratum))[stratum]
    return Pairs(difference, weight, stratum, stratum * 1000 + rng.integers(0, 15, n), False)


@pytest.mark.parametrize("kind", ["binary", "few", "graded", "small", "clusters", "alike", "worse"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_evidence_is_what_compare_says(kind: str, seed: int) -> None:
    given = pairs(kind, seed)
    found = evidence.of_pairs(given)
    assert found is not None
    for level in (0.05, 0.004):
        expected = paired_tests.compare(given, level)
        assert found.delta == pytest.approx(expected.delta) and found.stderr == pytest.approx(expected.stderr)
        assert found.lower(level) == pytest.approx(expected.lower)
        assert found.p_drop == pytest.approx(expected.p_drop)


@pytest.mark.parametrize(
    "kinds",
    [("binary", "graded", "clusters"), ("few", "few"), ("binary",), ("graded", "alike"), ("worse",), ("small",)],
)
@pytest.mark.parametrize("apart", [0, 2])
def test_the_average_is_what_compare_says(kinds: tuple[str, ...], apart: int) -> None:
    from olmes_suite.comparison.alignment import Aligned

    none = np.zeros(0)
    tasks, found = [], []
    for number, kind in enumerate(kinds):
        given = pairs(kind, number)
        aligned = Aligned((), given.stratum, given.cluster, none, none, given, 0, 0, none.astype(bool))
        difference = paired_tests.compare(given)
        tasks.append(TaskComparison(kind, "other", difference=difference, aligned=aligned))
        found.append(evidence.of_pairs(given))
    for number in range(apart):
        difference = Difference(0.01 * number, 50, 0, 0, stderr=0.03)
        tasks.append(TaskComparison(f"apart {number}", "other", difference=difference))
        found.append(evidence.of_scores(difference))
    expected, average = compare_average(tasks, 0.05), evidence.of_average(found)
    assert expected is not None and average is not None
    assert average.delta == pytest.approx(expected.delta)
    assert average.lower(0.05) == pytest.approx(expected.lower)
    assert average.p_drop == pytest.approx(expected.p_drop)


def test_no_average_without_evidence_of_every_task() -> None:
    one = evidence.of_pairs(pairs("binary", 1))
    assert evidence.of_average([one, None]) is None and evidence.of_average([]) is None
    assert evidence.of_scores(Difference(0.1, 5, 0, 0)) is None


def some(z: float, changed: int = 10_000) -> Evidence:
    """Evidence of a drop with this z."""
    start = evidence.of_scores(Difference(-z, changed, 0, 0, stderr=1.0))
    assert start is not None
    return replace(start, changed=changed)


@pytest.mark.parametrize(("z", "time"), [(1.0, 0.3), (2.5, 0.5), (-0.5, 0.8)])
def test_predictive_probabilities_are_those_of_the_process(z: float, time: float) -> None:
    rng, draws, level = np.random.default_rng(5), 400_000, 0.05
    drift = z / np.sqrt(time) + rng.normal(size=draws) / np.sqrt(time)  # the posterior under a flat prior
    end = z * np.sqrt(time) + drift * (1 - time) + rng.normal(size=draws) * np.sqrt(1 - time)
    share = (end > -ndtri(level)).mean()
    assert evidence.drop_at_the_end(some(z), time, level) == pytest.approx(share, abs=0.004)


def test_few_changes_leave_more_open() -> None:
    assert evidence.drop_at_the_end(some(0.0, changed=3), 0.5, 0.01) > evidence.drop_at_the_end(some(0.0), 0.5, 0.01)
    assert evidence.drop_at_the_end(some(3.0), 1.0, 0.01) == 1 and evidence.drop_at_the_end(some(2.0), 1.0, 0.01) == 0
