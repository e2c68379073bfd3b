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

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.paired_tests import ClusterSums, Pairs

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


@pytest.mark.parametrize("table", [(0, 0, 10), (3, 1, 40), (0, 7, 164), (50, 50, 100), (12, 30, 1319), (100, 0, 100)])
def test_tango_of_numbers_is_that_of_arrays(table):
    for z in (1.645, 1.96):
        assert paired_tests.tango_bound(*table, z) == pytest.approx(
            float(paired_tests.tango_lower(*table, z)), abs=1e-15
        )
