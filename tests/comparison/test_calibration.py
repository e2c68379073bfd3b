"""Error rates by simulation, with fixed seeds, through the functions that the commands call.

Each bound leaves three binomial standard errors of the number of simulations.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from olmes_suite import stats
from olmes_suite.comparison import paired_tests, power
from olmes_suite.comparison.clusters import Pairs
from olmes_suite.comparison.gate import gate
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.power import PlannedTask
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores

pytestmark = pytest.mark.long

SIZES, DISCORDANCES = (50, 164, 541, 1319), (0.02, 0.1, 0.3)
MANY = 40_000
Z = stats.normal_quantile(0.95)


def slack(rate: float, simulations: int) -> float:
    """Three binomial standard errors."""
    return 3 * math.sqrt(rate * (1 - rate) / simulations)


def draw_table(
    rng: np.random.Generator, n: int, flips: float, drop: float, size: int
) -> tuple[npt.NDArray[np.int64], ...]:
    """(wins, losses) of `size` candidates whose true score is lower by `drop`."""
    losses = rng.binomial(n, (flips + drop) / 2, size)
    return rng.binomial(n - losses, (flips - drop) / 2 / (1 - (flips + drop) / 2)), losses


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("flips", DISCORDANCES)
def test_false_alarms_of_binary_scores(n: int, flips: float) -> None:
    wins, losses = draw_table(np.random.default_rng(n), n, flips, 0.0, MANY)
    rate = float((paired_tests.drop_p(wins, losses) <= 0.05).mean())
    assert rate <= 0.052 + slack(0.05, MANY)
    if n * flips >= 15:
        assert rate >= 0.025


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("flips", DISCORDANCES)
@pytest.mark.parametrize("margin", [0.01, 0.02])
def test_a_true_drop_of_the_margin_rarely_passes(n: int, flips: float, margin: float) -> None:
    wins, losses = draw_table(np.random.default_rng(n), n, flips, margin, MANY)
    passes = float((paired_tests.tango_lower(wins, losses, n, Z) > -margin).mean())
    assert passes <= 0.065


def graded(rng: np.random.Generator, n: int, flips: float, drop: float) -> npt.NDArray[np.float64]:
    """Differences of magnitude 0 to 1, mean 1/2, of which more are losses."""
    uniform = rng.random(n)
    sign = np.where(uniform < flips / 2 + drop, -1.0, np.where(uniform < flips, 1.0, 0.0))
    return sign * rng.random(n)


def clustered(
    rng: np.random.Generator, groups: int, flips: float, drop: float, share: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Binary differences in clusters of 1 to 9 documents, of which a share moves with its cluster."""
    cluster = np.repeat(np.arange(groups), rng.integers(1, 10, groups))
    one = np.select([(u := rng.random(groups)) < (flips + drop) / 2, u < flips], [-1.0, 1.0], 0.0)[cluster]
    own = np.select([(u := rng.random(len(cluster))) < (flips + drop) / 2, u < flips], [-1.0, 1.0], 0.0)
    return np.where(rng.random(len(cluster)) < share, one, own), cluster


def equal(difference: npt.NDArray[np.float64], cluster: npt.NDArray[np.int64] | None = None) -> Pairs:
    """Pairs of equal weight in one stratum."""
    n = len(difference)
    zeros = np.zeros(n, dtype=np.int64)
    return Pairs(difference, np.full(n, 1 / n), zeros, np.arange(n) if cluster is None else cluster, False)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("flips", DISCORDANCES)
def test_error_rates_of_graded_scores(n: int, flips: float) -> None:
    rng, simulations, margin = np.random.default_rng(n), 600, 0.01
    same = [paired_tests.compare(equal(graded(rng, n, flips, 0.0))) for _ in range(simulations)]
    assert np.mean([d.p_drop <= 0.05 for d in same if d.p_drop is not None]) <= 0.05 + slack(0.05, simulations)
    worse = [paired_tests.compare(equal(graded(rng, n, flips, min(margin, flips / 2)))) for _ in range(simulations)]
    assert np.mean([(d.lower or 0) > -min(margin, flips / 2) for d in worse]) <= 0.05 + slack(0.05, simulations)


@pytest.mark.parametrize(("groups", "simulations"), [(12, 300), (29, 150), (60, 400), (300, 400)])
@pytest.mark.parametrize("flips", [0.1, 0.3])
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_error_rates_of_clustered_scores(groups: int, simulations: int, flips: float, share: float) -> None:
    rng, margin = np.random.default_rng(groups), 0.03
    same = [paired_tests.compare(equal(*clustered(rng, groups, flips, 0.0, share))) for _ in range(simulations)]
    assert np.mean([d.p_drop <= 0.05 for d in same if d.p_drop is not None]) <= 0.05 + slack(0.05, simulations)
    worse = [paired_tests.compare(equal(*clustered(rng, groups, flips, margin, share))) for _ in range(simulations)]
    assert np.mean([(d.lower or 0) > -margin for d in worse]) <= 0.05 + slack(0.05, simulations)


def run_scores(name: str, tasks: dict[str, npt.NDArray[np.float64]]) -> RunScores:
    """A run in memory, without files."""
    found = {}
    for task, scores in tasks.items():
        ids = np.arange(len(scores), dtype=np.int64)
        found[task] = TaskScores(
            task, {task: LeafScores(ids, scores, ids, np.zeros_like(ids))}, value=float(scores.mean())
        )
    return RunScores(name, name, found, imported=True)


def candidates(rng: np.random.Generator, sizes: list[int], flips: float, drop: float) -> tuple[RunScores, RunScores]:
    """A baseline and a candidate of binary scores."""
    before, after = {}, {}
    for number, n in enumerate(sizes):
        one = (rng.random(n) < 0.5).astype(float)
        lost = rng.random(n) < flips + drop  # of the right ones; the rate over all documents is half of it
        won = rng.random(n) < flips - drop
        before[f"t{number}"], after[f"t{number}"] = one, np.where(one == 1, 1.0 - lost, 1.0 * won)
    return run_scores("a", before), run_scores("b", after)


def test_twelve_tasks_together_fail_an_unchanged_model_at_most_at_alpha() -> None:
    rng, simulations = np.random.default_rng(12), 300
    sizes = [50, 50, 164, 164, 164, 300, 300, 541, 541, 817, 1000, 1319]
    verdicts = [gate(*candidates(rng, sizes, 0.1, 0.0)).verdict for _ in range(simulations)]
    assert verdicts.count("fail") / simulations <= 0.05 + slack(0.05, simulations)


@pytest.mark.parametrize(("flips", "drop", "margin"), [(0.1, 0.0, 0.02), (0.3, 0.0, 0.03), (0.1, 0.02, 0.01)])
def test_the_gate_is_green_and_red_as_often_as_power_says(flips: float, drop: float, margin: float) -> None:
    rng, simulations = np.random.default_rng(5), 450
    sizes, rules = [541, 817, 1319, 1319], Rules(margin=margin)
    planned = power.gate_power([PlannedTask(f"t{i}", (n,)) for i, n in enumerate(sizes)], rules, flips, drop)
    verdicts = [gate(*candidates(rng, sizes, flips, drop), rules).verdict for _ in range(simulations)]
    for verdict, expected in (("pass", planned.green), ("fail", planned.red)):
        found = verdicts.count(verdict) / simulations
        assert abs(found - expected) <= 0.03 + slack(found, simulations) / 1.5


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_intervals_of_proportions_cover(n: int, p: float) -> None:
    """In expectation over the binomial distribution, not by simulation."""
    from scipy.stats import binom

    counts = np.arange(n + 1)
    inside = np.array([low <= p <= high for low, high in (stats.wilson(float(k), n) for k in counts)])
    assert 0.925 <= float(binom.pmf(counts, n, p)[inside].sum()) <= 0.975


@pytest.mark.parametrize(("groups", "share"), [(30, 0.3), (50, 0.3), (50, 1.0), (200, 0.6)])
@pytest.mark.parametrize("p", [0.3, 0.6, 0.8])
def test_intervals_of_clustered_scores_cover(groups: int, share: float, p: float) -> None:
    rng, simulations, inside = np.random.default_rng(groups), 1200, 0
    for _ in range(simulations):
        cluster = np.repeat(np.arange(groups), 5)
        one, own = (rng.random(groups) < p)[cluster], rng.random(len(cluster)) < p
        scores = np.where(rng.random(len(cluster)) < share, one, own).astype(float)
        low, high = stats.mean(scores.tolist(), cluster.tolist()).ci95 or (1.0, 0.0)
        inside += low <= p <= high
    assert 0.925 - slack(0.05, simulations) <= inside / simulations <= 0.975 + slack(0.05, simulations)


@pytest.mark.parametrize("rate", [0.02, 0.1, 0.3, 0.9])
def test_the_interval_of_an_average_covers_where_a_small_task_rarely_varies(rate: float) -> None:
    """All four documents often have one score; with the standard errors alone 83 % to 95 % of intervals cover."""
    rng, simulations, inside = np.random.default_rng(10), 1500, 0
    sizes, rates = (24, 100, 4), (0.4, 0.7, rate)
    for _ in range(simulations):
        parts = [stats.mean((rng.random(n) < p).astype(float).tolist()) for n, p in zip(sizes, rates, strict=True)]
        low, high = stats.combine(parts).ci95 or (1.0, 0.0)
        inside += low <= sum(rates) / 3 <= high
    assert inside / simulations >= 0.95 - slack(0.05, simulations)


@pytest.mark.parametrize("micro", [False, True])
@pytest.mark.parametrize(
    ("sizes", "rates"),
    [
        ([50, 50, 50], [0.1, 0.5, 0.9]),
        ([20, 200, 1000], [0.3, 0.4, 0.2]),
        ([5] * 30, [0.1] * 30),
        ([1] * 30, [0.3] * 30),
    ],
)
def test_intervals_of_macro_and_micro_averages_cover(sizes: list[int], rates: list[float], micro: bool) -> None:
    rng, simulations, inside = np.random.default_rng(9), 1500, 0
    weights = [float(n) for n in sizes] if micro else None
    true = float(np.average(rates, weights=weights))
    for _ in range(simulations):
        parts = [stats.mean((rng.random(n) < p).astype(float).tolist()) for n, p in zip(sizes, rates, strict=True)]
        low, high = stats.combine(parts, weights).ci95 or (1.0, 0.0)
        inside += low <= true <= high
    assert 0.925 - slack(0.05, simulations) <= inside / simulations <= 0.975 + slack(0.05, simulations)
