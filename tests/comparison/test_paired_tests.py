"""Paired statistics against scipy, statsmodels and brute force."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from scipy import stats as scipy_stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.alignment import Aligned
from olmes_suite.comparison.clusters import ClusterSums, Pairs
from olmes_suite.comparison.compare import TaskComparison, compare_average
from olmes_suite.comparison.paired_tests import Difference

COUNTS = st.integers(0, 300)


def pairs(difference: np.ndarray, stratum: np.ndarray | None = None, cluster: np.ndarray | None = None) -> Pairs:
    """Pairs of equal weight."""
    n = len(difference)
    zeros = np.zeros(n, dtype=np.int64)
    own = np.arange(n, dtype=np.int64)
    return Pairs(
        np.asarray(difference, dtype=float),
        np.full(n, 1 / n),
        zeros if stratum is None else stratum,
        own if cluster is None else cluster,
        binary=False,
    )


@settings(deadline=None)
@given(COUNTS, COUNTS)
def test_mcnemar_is_statsmodels_and_the_binomial_distribution(wins: int, losses: int) -> None:
    exact, mid = paired_tests.mcnemar(wins, losses)
    if wins + losses:
        assert exact == pytest.approx(reference_mcnemar([[5, wins], [losses, 9]], exact=True).pvalue, abs=1e-9)
    point = scipy_stats.binom.pmf(min(wins, losses), wins + losses, 0.5)
    expected = 1.0 if wins == losses else 2 * scipy_stats.binom.cdf(min(wins, losses), wins + losses, 0.5) - point
    assert mid == pytest.approx(min(1.0, expected), abs=1e-9)


@settings(deadline=None)
@given(COUNTS, COUNTS)
def test_p_of_a_drop_is_the_upper_tail_with_half_the_observed_point(wins: int, losses: int) -> None:
    n = wins + losses
    expected = scipy_stats.binom.sf(losses, n, 0.5) + scipy_stats.binom.pmf(losses, n, 0.5) / 2
    assert paired_tests.drop_p(wins, losses) == pytest.approx(expected, abs=1e-9)


def likeliest_loss(wins: int, losses: int, n: int, delta: float) -> float:
    """Probability of a loss that maximises the likelihood of the table given the difference, by search."""

    def minus(q: float) -> float:
        cells = ((wins, q + delta), (losses, q), (n - wins - losses, 1 - 2 * q - delta))
        return -sum(count * np.log(max(p, 1e-300)) for count, p in cells if count)

    low, high = max(0.0, -delta), (1 - delta) / 2
    found = optimize.minimize_scalar(minus, bounds=(low, high), method="bounded", options={"xatol": 1e-13})
    return float(min((found.x, low, high), key=minus))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(1, 200), st.sampled_from([1.2815, 1.6449, 1.96]))
def test_tango_bound_solves_the_score_equation(wins: int, losses: int, rest: int, z: float) -> None:
    """At the bound the score statistic, with the loss probability found by brute-force search, equals z."""
    n = wins + losses + rest
    bound = float(paired_tests.tango_lower(wins, losses, n, z))
    assert -1 <= bound <= (wins - losses) / n
    q = likeliest_loss(wins, losses, n, bound)
    variance = n * (2 * q + bound * (1 - bound))
    assert (wins - losses - n * bound) / np.sqrt(variance) == pytest.approx(z, abs=2e-4)


def test_tango_without_any_flip() -> None:
    """z² / (n + z²), by hand."""
    assert paired_tests.tango_lower(0, 0, 164, 1.6448536) == pytest.approx(
        -(1.6448536**2) / (164 + 1.6448536**2), abs=1e-9
    )


def test_tango_is_antisymmetric() -> None:
    low, high = paired_tests.tango(12, 2, 50, 1.96)
    assert paired_tests.tango(2, 12, 50, 1.96) == pytest.approx((-high, -low), abs=1e-12)


@settings(deadline=None, max_examples=10)  # statsmodels takes 50 ms for each
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
@pytest.mark.long
def test_adjusted_p_values_are_statsmodels(p: list[float]) -> None:
    assert paired_tests.holm(p) == pytest.approx(multipletests(p, method="holm")[1], abs=1e-9)
    assert paired_tests.benjamini_hochberg(p) == pytest.approx(multipletests(p, method="fdr_bh")[1], abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(100, 400))
def test_graded_scores_give_the_paired_t_test(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    d = rng.normal(0.02, 0.2, n).clip(-1, 1)
    found, expected = paired_tests.compare(pairs(d)), scipy_stats.ttest_1samp(d, 0)
    assert found.method == "t"
    assert found.p == pytest.approx(expected.pvalue, rel=1e-9)
    assert found.ci95 == pytest.approx(tuple(expected.confidence_interval()), abs=1e-9)
    one_sided = scipy_stats.ttest_1samp(d, 0, alternative="less")
    assert found.p_drop == pytest.approx(one_sided.pvalue, rel=1e-9)
    greater = scipy_stats.ttest_1samp(d, 0, alternative="greater")
    assert found.lower == pytest.approx(greater.confidence_interval().low, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_clustered_differences_give_the_cluster_robust_t_test(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 150, 600)
    d = (rng.normal(0, 0.2, 600) + rng.normal(0, 0.1, 150)[cluster]).clip(-1, 1)
    found = paired_tests.compare(pairs(d, cluster=cluster))
    groups = len(np.unique(cluster))
    fitted = OLS(d, np.ones(600)).fit(cov_type="cluster", cov_kwds={"groups": cluster}, use_t=True)
    assert found.stderr == pytest.approx(fitted.bse[0], rel=1e-9)
    assert found.df == pytest.approx(groups - 1)
    assert found.p == pytest.approx(fitted.pvalues[0], rel=1e-9)
    assert found.ci95 == pytest.approx(tuple(fitted.conf_int()[0]), abs=1e-9)


def test_two_strata_give_welch_degrees_of_freedom() -> None:
    """A macro average of two sub-tasks has the error, and Satterthwaite's degrees of freedom, of Welch's test."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(0, 0.1, 120), rng.normal(0, 0.3, 60)
    stratum = np.repeat([0, 1], [120, 60])
    weight = np.where(stratum == 0, 0.5 / 120, 0.5 / 60)
    sums = ClusterSums.of(Pairs(np.concatenate([one, -other]), weight, stratum, np.arange(180), False))
    stderr, df = sums.error()
    welch = scipy_stats.ttest_ind(one, other, equal_var=False)
    assert df == pytest.approx(welch.df, rel=1e-9)
    assert (one.mean() - other.mean()) / (2 * stderr) == pytest.approx(welch.statistic, rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1.0, 1.0]), min_size=1, max_size=14))
def test_sign_flips_of_single_documents_are_mcnemars_test(moved: list[float]) -> None:
    losses, wins = moved.count(-1.0), moved.count(1.0)
    p_drop, p = paired_tests.sign_flip(np.array(moved))
    assert p_drop == pytest.approx(float(paired_tests.drop_p(wins, losses)), abs=1e-12)
    assert p == pytest.approx(float(paired_tests.mcnemar(wins, losses)[1]), abs=1e-12)


def test_drawn_sign_patterns_agree_with_counting_all() -> None:
    totals = np.random.default_rng(5).normal(-0.2, 1, 14)
    counted = paired_tests.sign_flip(totals)
    drawn = paired_tests.sign_flip(np.append(totals, [1e-7] * 2))
    assert drawn[0] == pytest.approx(counted[0], abs=0.02)


def test_few_clusters_bring_the_bootstrap_and_the_wider_interval() -> None:
    rng = np.random.default_rng(11)
    cluster = np.repeat(np.arange(20), 5)
    found = paired_tests.compare(pairs(rng.normal(0, 0.3, 100), cluster=cluster))
    assert found.method == "randomisation+bootstrap"
    plain = scipy_stats.t.ppf(0.975, 19) * (found.stderr or 0)
    assert found.ci95 is not None
    assert found.ci95[0] <= found.delta - plain
    assert found.ci95[1] >= found.delta + plain


def test_a_bootstrap_on_request_is_close_to_t_for_many_documents() -> None:
    d = np.random.default_rng(2).normal(0.01, 0.2, 2000)
    plain, drawn = paired_tests.compare(pairs(d)), paired_tests.compare(pairs(d), resamples=2000)
    assert plain.ci95 is not None
    assert drawn.ci95 == pytest.approx(plain.ci95, abs=0.001)


def test_one_document_has_no_interval() -> None:
    found = paired_tests.compare(pairs(np.array([1.0])))
    assert (found.delta, found.ci95, found.p, found.lower) == (1.0, None, None, None)


def test_no_flip_leaves_room_below_zero() -> None:
    """Identical answers on 50 documents do not show that a point is not lost."""
    for found in (
        paired_tests.compare(pairs(np.zeros(50))),
        paired_tests.compare(pairs(np.zeros(200), cluster=np.arange(200) // 4)),
    ):
        assert found.lower is not None
        assert found.lower < -0.04
        assert found.p == 1.0


def test_strata_of_one_cluster_are_collapsed() -> None:
    """57 sub-tasks with one document each have an error bar: that of the 57 documents."""
    d = np.random.default_rng(4).normal(0, 0.3, 57)
    found = paired_tests.compare(pairs(d, stratum=np.arange(57)))
    assert found.stderr == pytest.approx(scipy_stats.sem(d))


def tasks_of(*differences: np.ndarray) -> Pairs:
    """Pairs of tasks that weigh alike, each a stratum."""
    sizes = [len(d) for d in differences]
    weight = np.repeat([1 / n / len(sizes) for n in sizes], sizes)
    return Pairs(
        np.concatenate(differences), weight, np.repeat(np.arange(len(sizes)), sizes), np.arange(sum(sizes)), False
    )


MANY_CHANGES = np.tile([1.0, 0.0, 0.0, -1.0], 250)


@pytest.mark.parametrize("d", [-1.0, 0.0, 1.0])
def test_documents_that_differ_alike_leave_room_by_the_exact_bound(d: float) -> None:
    sums = ClusterSums.of(pairs(np.full(12, d)))
    for q in (0.975, 0.95):
        others = proportion_confint(0, 12, alpha=2 * (1 - q), method="beta")[1]
        assert sums.unseen(q) == pytest.approx((others * (1 + d), others * (1 - d)))


def test_a_task_without_a_change_widens_the_average() -> None:
    """Where many documents of other tasks change, five that do not show little about theirs."""
    alone = paired_tests.compare(pairs(MANY_CHANGES))
    found = paired_tests.compare(tasks_of(MANY_CHANGES, np.zeros(5)))
    assert alone.lower and found.lower and alone.stderr and found.stderr == pytest.approx(alone.stderr / 2)
    assert found.lower == pytest.approx(-float(np.hypot(alone.lower, 1 - 0.05 ** (1 / 5))) / 2)
    assert found.p_drop == pytest.approx(alone.p_drop)


def test_tasks_that_vary_leave_the_average_as_it_is() -> None:
    sums = ClusterSums.of(tasks_of(MANY_CHANGES, np.array([0.0, 0.0, 0.1])))
    assert sums.unseen(0.975) == (0, 0) and sums.error_of_no_difference() == sums.error()


def test_two_documents_that_both_got_worse_are_no_proof() -> None:
    found = paired_tests.compare(tasks_of(MANY_CHANGES, -np.ones(2)))
    assert found.delta == -0.5 and found.stderr and found.stderr < 0.02
    assert found.p_drop and 0.1 < found.p_drop < 0.5
    assert found.ci95 and found.ci95[0] < -0.5 and found.ci95[1] > 0


@pytest.mark.parametrize(("small", "drops"), [(np.zeros(5), True), (-np.ones(2), False)])
def test_beside_a_score_that_is_no_mean_small_tasks_are_tested_alike(small: np.ndarray, drops: bool) -> None:
    """Five unchanged documents hide no drop of the others, and two that both got worse are no proof of one."""
    none, tasks = np.zeros(0), []
    for d in (np.where(np.arange(1000) < 60, -1.0, 0.0), small):
        given = tasks_of(d)
        aligned = Aligned((), given.stratum, given.cluster, none, none, given, 0, 0, none.astype(bool))
        tasks.append(TaskComparison("t", "s", difference=paired_tests.compare(given), aligned=aligned))
    other = TaskComparison("u", "s", difference=Difference(0.0, 500, 0, 0, stderr=0.01))
    for found in (compare_average(tasks), compare_average([*tasks, other])):
        assert found is not None and found.p_drop is not None and (found.p_drop < 0.001) == drops
        assert found.lower is not None and found.lower < -0.1
        assert found.ci95 is not None and found.ci95[0] < found.delta - 0.1 * drops and found.ci95[1] > 0


@pytest.mark.parametrize(("lost", "gained"), [(0.1, 0.0), (0.4, 0.0), (0.0, 0.2)])
def test_the_average_covers_where_a_small_task_rarely_changes(lost: float, gained: float) -> None:
    """Without room for the five documents 40 % of the intervals cover, and 60 % pass a drop of the margin."""
    rng, rounds, inside, passed = np.random.default_rng(12), 400, 0, 0
    true = (gained - lost) / 3
    for _ in range(rounds):
        large = (rng.choice([-1.0, 0.0, 1.0], 500, p=[0.05, 0.9, 0.05]) for _ in range(2))
        d = paired_tests.compare(tasks_of(*large, rng.choice([-1.0, 0.0, 1.0], 5, p=[lost, 1 - lost - gained, gained])))
        assert d.ci95 is not None and d.lower is not None
        inside += d.ci95[0] <= true <= d.ci95[1]
        passed += d.lower > true
    assert inside / rounds >= 0.93 and passed / rounds <= 0.07


@pytest.mark.parametrize(("n", "changes"), [(2, 0.8), (3, 0.8), (5, 0.3)])
def test_a_small_task_that_changes_alike_raises_no_false_alarms(n: int, changes: float) -> None:
    rng, rounds, alarms = np.random.default_rng(13), 400, 0
    for _ in range(rounds):
        small = rng.choice([-1.0, 0.0, 1.0], n, p=[changes / 2, 1 - changes, changes / 2])
        d = paired_tests.compare(tasks_of(rng.permutation(MANY_CHANGES[:500]), small))
        alarms += d.p_drop is not None and d.p_drop <= 0.05
    assert alarms / rounds <= 0.08


@pytest.mark.parametrize("table", [(0, 0, 10), (3, 1, 40), (0, 7, 164), (50, 50, 100), (12, 30, 1319), (100, 0, 100)])
def test_tango_of_numbers_is_that_of_arrays(table):
    for z in (1.645, 1.96):
        assert paired_tests.tango_bound(*table, z) == pytest.approx(
            float(paired_tests.tango_lower(*table, z)), abs=1e-15
        )
