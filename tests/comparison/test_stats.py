"""Error bars against statsmodels and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import proportion_confint

from olmes_suite import stats
from olmes_suite.evaluation.record import suite_result
from olmes_suite.runs.schema import Metric, TaskResult


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 7), (50, 100), (164, 164), (900, 1319)])
def test_wilson_is_statsmodels(successes: int, n: int) -> None:
    assert stats.wilson(successes, n) == pytest.approx(proportion_confint(successes, n, method="wilson"), abs=1e-12)


def test_clustered_error_is_the_sandwich_estimate() -> None:
    rng = np.random.default_rng(7)
    clusters = rng.integers(0, 30, 200)
    x = rng.random(200) + 0.3 * (clusters % 3)
    fitted = OLS(x, np.ones(200)).fit(cov_type="cluster", cov_kwds={"groups": clusters})
    found = stats.mean(x.tolist(), [str(c) for c in clusters])
    assert found.value == pytest.approx(fitted.params[0])
    assert found.stderr == pytest.approx(fitted.bse[0], rel=1e-9)


def test_plain_error_is_the_standard_error_of_the_mean() -> None:
    x = np.random.default_rng(1).random(50)
    assert stats.mean(x.tolist()).stderr == pytest.approx(x.std(ddof=1) / np.sqrt(50))


def test_weights_give_the_ratio_of_sums() -> None:
    found = stats.mean([1.0, 0.5, 0.0], weights=[1, 2, 3])
    assert found.value == pytest.approx(2 / 6)


def test_one_document_has_no_error_bar() -> None:
    assert stats.mean([1.0]) == stats.Estimate(1.0, n=1)
    assert stats.combine([stats.mean([1.0]), stats.mean([0.0, 1.0])]).stderr is None


def test_no_interval_is_a_point() -> None:
    """All wrong on ten clusters, or in two sub-tasks of ten documents, leaves room above zero."""
    clustered = stats.mean([0.0] * 40, [str(i // 4) for i in range(40)])
    assert clustered.ci95 == pytest.approx(stats.wilson(0, 10))
    assert stats.combine([stats.mean([0.0] * 10)] * 2).ci95 == pytest.approx(stats.wilson(0, 20))
    assert stats.combine([stats.mean([1.0] * 10), stats.mean([1.0] * 10)], [1, 1]).ci95 == pytest.approx(
        stats.wilson(20, 20)
    )


def test_combine_macro_and_micro() -> None:
    a, b = stats.Estimate(0.2, 0.03), stats.Estimate(0.6, 0.04)
    assert stats.combine([a, b]).value == pytest.approx(0.4)
    assert stats.combine([a, b]).stderr == pytest.approx(0.025)
    assert stats.combine([a, b], [300, 100]).value == pytest.approx(0.3)


def test_an_average_of_scores_that_do_not_vary_is_not_certain() -> None:
    right, wrong = stats.mean([1.0] * 4), stats.mean([0.0] * 12)
    assert stats.combine([right, right]).ci95 == pytest.approx(stats.wilson(8, 8))
    assert stats.combine([right, wrong]).ci95 == pytest.approx(stats.wilson(6, 12))
    assert stats.wilson_size(right.ci95) == pytest.approx(4) and stats.wilson_size(wrong.ci95) == pytest.approx(12)
    assert stats.wilson_size((1.0, 1.0)) is None
    singles = [stats.mean([1.0])] * 5
    assert stats.combine(singles).ci95 == pytest.approx(stats.wilson(5, 5))


def test_a_widened_interval_stays_within_the_scores() -> None:
    """Two documents of which one is right have nearly the whole range by themselves."""
    for score in (0.0, 1.0):
        low, high = stats.combine([stats.mean([score] * 2), stats.mean([0.0, 1.0])]).ci95 or (-1.0, 2.0)
        assert 0 <= low < 0.02 + score and high <= 1


def test_a_group_of_scores_that_do_not_vary_is_not_certain_in_a_group_or_suite() -> None:
    inner = stats.combine([stats.mean([1.0] * 4), stats.mean([0.0] * 4)])
    other = stats.mean([0.0, 1.0] * 50)
    outer = stats.combine([inner, other])
    assert inner.ci95 and other.ci95 and outer.ci95 and outer.value == 0.5
    half = math.hypot(0.5 - inner.ci95[0], 0.5 - other.ci95[0]) / 2
    assert outer.ci95 == pytest.approx((0.5 - half, 0.5 + half), abs=0.002)
    tasks = {
        name: TaskResult(primary="acc", n=n, metrics={"acc": Metric(value=e.value, stderr=e.stderr, ci95=e.ci95)})
        for name, n, e in (("group", 8, inner), ("plain", 100, other))
    }
    assert suite_result(["group", "plain"], tasks).ci95 == pytest.approx(outer.ci95, abs=0.001)


def result(n: int, e: stats.Estimate) -> TaskResult:
    """A task as it stands in results.json."""
    return TaskResult.from_json(TaskResult(primary="acc", n=n, metrics={"acc": Metric.of(e)}).as_json())


def test_a_part_that_does_not_vary_widens_a_group_and_the_suite_above_it_alike() -> None:
    varied, alike, other = stats.mean([0.0, 1.0, 1.0] * 20), stats.mean([1.0] * 4), stats.mean([0.0, 1.0] * 50)
    group = stats.combine([varied, alike])
    low, high = stats.wilson(4, 4)
    assert group.room == pytest.approx(((1 - low) / 2, 0)) and high == 1
    suite = suite_result(["group", "other"], {"group": result(64, group), "other": result(100, other)})
    known = suite_result(
        ["group", "other"], {"group": result(64, replace(group, room=None)), "other": result(100, other)}
    )
    assert suite.value and suite.ci95 and known.value and known.ci95 and suite.stderr == known.stderr
    assert suite.value - suite.ci95[0] == pytest.approx(math.hypot(known.value - known.ci95[0], (1 - low) / 4))
    assert suite.ci95[1] == pytest.approx(known.ci95[1])


def test_room_is_recorded_only_beside_a_part_that_does_not_vary() -> None:
    varied = stats.mean([0.0, 1.0, 1.0] * 20)
    graded = stats.mean([0.5] * 10)  # has no interval that room could be taken from
    for other in (varied, graded):
        assert "room" not in Metric.of(stats.combine([varied, other])).as_json()
    found = Metric.of(stats.combine([varied, stats.mean([1.0] * 4)])).as_json()["room"]
    assert found == [pytest.approx(0.245, abs=0.001), 0.0]


@pytest.mark.parametrize("rate", [0.3, 0.7])
def test_the_interval_of_a_suite_covers_where_a_sub_task_rarely_varies(rate: float) -> None:
    """All four documents of the sub-task often have one score; without its room 86 % of the intervals cover."""
    rng, rounds, inside = np.random.default_rng(11), 800, 0
    for _ in range(rounds):
        drawn = ((rng.random(n) < p).astype(float).tolist() for n, p in ((24, 0.4), (4, rate), (100, 0.7)))
        one, few, other = (stats.mean(scores) for scores in drawn)
        tasks = {"group": result(28, stats.combine([one, few])), "other": result(100, other)}
        low, high = suite_result(["group", "other"], tasks).ci95 or (1.0, 0.0)
        inside += low <= (0.2 + rate / 2 + 0.7) / 2 <= high
    assert inside / rounds >= 0.93


def test_a_suite_without_a_wrong_answer_has_the_interval_of_its_documents() -> None:
    ends = {name: stats.wilson(n, n) for name, n in (("a", 4), ("b", 12))}
    tasks = {
        name: TaskResult(primary="acc", n=100, metrics={"acc": Metric(value=1.0, stderr=0.0, ci95=pair)})
        for name, pair in ends.items()
    }
    assert suite_result(["a", "b"], tasks).ci95 == pytest.approx(stats.wilson(12, 12))


@pytest.mark.parametrize("kind", ["independent", "clustered"])
def test_intervals_cover_the_truth_as_often_as_they_say(kind: str) -> None:
    rng, hits, rounds = np.random.default_rng(3), 0, 2000
    for _ in range(rounds):
        if kind == "independent":
            x, clusters = (rng.random(150) < 0.7).astype(float), None
        else:
            level = rng.random(60)
            x = np.repeat(level, 4) * 0.5 + rng.random(240) * 0.5
            clusters = [str(i // 4) for i in range(240)]
        low, high = stats.mean(x.tolist(), clusters).ci95 or (0, 0)
        hits += low <= (0.7 if kind == "independent" else 0.5) <= high
    assert 0.93 <= hits / rounds <= 0.97


def test_detectable_difference_is_statsmodels() -> None:
    n = 500
    solved = NormalIndPower().solve_power(effect_size=None, nobs1=n, alpha=0.05, power=0.8, ratio=1)
    assert stats.detectable_difference(n) == pytest.approx(solved * 0.5, rel=1e-3)
