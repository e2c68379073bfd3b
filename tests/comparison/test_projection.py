"""Projected scores: exact where they must be, with intervals that cover by simulation."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from olmes_suite.comparison import projection
from olmes_suite.comparison.compare import compare_task
from olmes_suite.comparison.projection import Sample, project
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores

_PATH = Path(__file__).parents[2] / "benchmarks" / "deciding.py"


def _benchmark() -> Any:
    spec = importlib.util.spec_from_file_location("deciding", _PATH)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DECIDING = _benchmark()


@pytest.mark.parametrize(
    "setting",
    [pytest.param(one, marks=pytest.mark.long) if one[1] > 10_000 else one for one in DECIDING.SETTINGS],
    ids=lambda s: "-".join(map(str, s)),
)
def test_intervals_cover_the_score_on_all_documents(setting: tuple[str, int, float, float, float]) -> None:
    """Where fewer than five changes are expected, the score interval of a count is wider than it must be."""
    covered, ratio = DECIDING.coverage(setting, 250)
    kind, size, share, _, flips = setting
    most = 0.985 if size * share * flips >= 5 else 1.0
    assert 0.915 <= covered <= max(most, 0.99)  # the share of 250 has a standard error of 1.4 points
    if kind == "binary" and share == 0.1:
        assert ratio <= {0.02: 0.35, 0.10: 0.70}.get(flips, 1.0)


def simple(before: list[float], after: list[float], of: int, mean: float) -> Sample:
    n = len(before)
    return Sample(
        np.array(before), np.array(after), np.zeros(n, dtype=np.int64), np.array([of]), np.ones(1), np.array([mean])
    )


def test_the_difference_estimator_by_hand() -> None:
    found = project(simple([1, 1, 0, 0], [1, 0, 0, 0], 16, 0.6))
    assert found.value == pytest.approx(0.6 - 0.25)
    assert found.stderr == pytest.approx(np.sqrt((1 - 4 / 16) * 0.25 / 4))  # the differences have the variance 1/4
    assert (found.n, found.of, found.method) == (4, 16, "difference")
    assert found.ci95[0] < found.value < found.ci95[1]


def test_all_documents_leave_no_error() -> None:
    found = project(simple([1, 1, 0, 0], [1, 0, 0, 1], 4, 0.5))
    assert (found.value, found.stderr, found.ci95) == (0.5, 0.0, (0.5, 0.5))


def test_no_projection_is_beyond_what_all_documents_can_give() -> None:
    """The baseline has half of the asked documents and most of the others, the candidate all that were asked."""
    found = project(simple([1, 1, 0, 0], [1, 1, 1, 1], 16, 0.9))  # 0.9 + 0.5 by the estimator
    assert found.value == 1.0 and found.ci95[0] <= found.value == found.ci95[1]
    lost = project(simple([1, 1, 1, 0], [0, 0, 0, 1], 16, 0.3))  # 0.3 - 0.5, but a document is right
    assert lost.value == lost.ci95[0] == 1 / 16
    half = project(simple([1, 1, 0, 0], [0, 0, 0, 0], 8, 0.75))
    assert half.ci95[1] <= 0.5  # the four that were asked are wrong


def test_a_slope_is_used_where_it_helps() -> None:
    """Scores that regress to the mean: the difference estimator has more variance than the plain mean."""
    rng = np.random.default_rng(5)
    before = rng.random(200)
    after = 0.5 + 0.1 * (before - 0.5) + rng.normal(0, 0.02, 200)
    found = project(simple(before.tolist(), after.tolist(), 2000, 0.5))
    assert found.method == "regression"
    assert found.stderr < 0.1 * projection._with_slope(simple(before.tolist(), after.tolist(), 2000, 0.5), 1).stderr


def leaf(doc_ids: Any, scores: Any, of: int | None = None) -> LeafScores:
    n = len(doc_ids)
    return LeafScores(
        np.array(doc_ids), np.array(scores, dtype=float), np.arange(n), np.zeros(n, dtype=np.int64), of=of
    )


def pair(aggregate: str, seed: int = 1) -> tuple[TaskScores, TaskScores, float]:
    """A baseline's task of two unequal sub-tasks, an unequal sample of a candidate, and the candidate's full score."""
    rng = np.random.default_rng(seed)
    sizes, asked = {"a": 400, "b": 100}, {"a": 40, "b": 50}
    before = {name: (rng.random(n) < p).astype(float) for (name, n), p in zip(sizes.items(), (0.8, 0.3), strict=True)}
    after = {name: np.where(rng.random(len(x)) < 0.1, 1 - x, x) for name, x in before.items()}
    rows = {name: np.sort(rng.choice(n, asked[name], replace=False)) for name, n in sizes.items()}
    whole = TaskScores("t", {name: leaf(range(n), before[name]) for name, n in sizes.items()}, aggregate=aggregate)
    part = TaskScores(
        "t", {name: leaf(rows[name], after[name][rows[name]], sizes[name]) for name in sizes}, aggregate=aggregate,
        planned=True,
    )  # fmt: skip
    means = [x.mean() for x in after.values()]
    return whole, part, float(np.mean(means) if aggregate == "macro" else (400 * means[0] + 100 * means[1]) / 500)


@pytest.mark.parametrize("aggregate", ["macro", "micro"])
def test_unequal_draws_stay_unbiased(aggregate: str) -> None:
    errors, plain = [], []
    for seed in range(200):
        whole, part, truth = pair(aggregate, seed)
        found = projection.project_task(whole, part)
        compared = compare_task(whole, part)
        assert found is not None and compared.candidate is not None
        errors.append(found.value - truth)
        plain.append(compared.candidate - truth)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(200)
    assert abs(np.mean(plain)) < 3 * np.std(plain) / np.sqrt(200)  # weighed by what each document stands for
    assert np.std(errors) < 0.8 * np.std(plain)


def test_suites_join_tasks_in_part_and_in_full() -> None:
    whole, part, truth = pair("macro")
    full = TaskScores("u", {"u": leaf(range(10), [1.0] * 10)}, value=1.0)
    run = projection.project_run(
        RunScores("b", "m", {"t": whole, "u": full}), RunScores("c", "m", {"t": part, "u": full})
    )
    assert set(run.tasks) == {"t", "a", "b"} and run.exact == {"u": (1.0, 10)}
    average = projection.average(run, ["t", "u"])
    assert average is not None
    assert average.value == pytest.approx((run.tasks["t"].value + 1) / 2)
    assert average.stderr == pytest.approx(run.tasks["t"].stderr / 2)
    assert abs(average.value - (truth + 1) / 2) < 4 * average.stderr
    assert (average.n, average.of) == (100, 510)
    assert projection.average(run, ["t", "missing"]) is None


def test_nothing_is_projected_without_ground() -> None:
    whole, part, _ = pair("macro")
    limited = replace(whole, leaves={name: replace(x, of=10_000) for name, x in whole.leaves.items()})
    assert projection.project_task(limited, part) is None  # the baseline itself is not whole
    stranger = replace(part, leaves={**part.leaves, "a": leaf([0, 999], [1, 1], 400)})
    assert projection.project_task(whole, stranger) is None  # a document that the baseline does not have
    assert projection.project_task(whole, replace(part, leaves={"a": part.leaves["a"]})) is None  # a stratum is missing
