"""Aligning two runs: shared documents and the weight that each has in the score."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from olmes_suite.comparison.alignment import align
from olmes_suite.comparison.compare import compare_average, compare_runs, compare_task
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores


def leaf(scores: list[float], strata: list[int] | None = None) -> LeafScores:
    """A leaf task of independent documents."""
    ids = np.arange(len(scores), dtype=np.int64)
    numbers = np.zeros_like(ids) if strata is None else np.asarray(strata, dtype=np.int64)
    return LeafScores(ids, np.asarray(scores, dtype=float), ids, numbers, None)


def task(name: str, aggregate: str = "mean", **leaves: LeafScores) -> TaskScores:
    """A task of the given leaves."""
    return TaskScores(name, leaves, aggregate=aggregate)


def test_macro_weighs_subtasks_and_micro_documents() -> None:
    a = {"x": leaf([0.0] * 10), "y": leaf([0.0] * 2)}
    b = {"x": leaf([1.0] * 10), "y": leaf([0.0] * 2)}
    for aggregate, expected in (("macro", 0.5), ("micro", 10 / 12)):
        found = align(task("t", aggregate, **a), task("t", aggregate, **b))
        assert found is not None
        assert found.values == pytest.approx((0.0, expected))
        assert found.pairs.weight.sum() == pytest.approx(1)


def test_strata_of_one_task_weigh_the_same() -> None:
    """Two benign and eight harmful rows: the score is the mean of the two rates."""
    strata = [0, 0, *[1] * 8]
    found = compare_task(task("t", t=leaf([0.0] * 10, strata)), task("t", t=leaf([1.0, 1.0, *[0.0] * 8], strata)))
    assert (found.baseline, found.candidate) == (0.0, 0.5)
    assert found.difference is not None
    assert found.difference.delta == pytest.approx(0.5)
    assert found.difference.method != "mcnemar"


def test_scores_that_are_no_mean_are_compared_unpaired_and_marked() -> None:
    a = replace(task("t", t=leaf([np.nan] * 4)), value=0.5, stderr=0.03)
    b = replace(a, value=0.6, stderr=0.04)
    d = compare_task(a, b).difference
    assert d is not None
    assert (d.method, d.stderr) == ("unpaired", pytest.approx(0.05))
    assert d.p == pytest.approx(0.0455, abs=1e-4)


def test_flags_are_counted_where_the_score_is_no_mean() -> None:
    """The clean difference is that of the clean scores which the runs report."""
    flagged = replace(leaf([np.nan] * 9), flagged=frozenset({1, 2}))
    a = replace(task("t", t=leaf([np.nan] * 9)), value=0.5, stderr=0.03)
    b = replace(task("t", t=flagged), value=0.6, stderr=0.04, clean=(0.45, 0.04))
    found = compare_task(a, b)
    assert found.flagged == 2 and found.clean is not None and found.difference is not None
    assert (found.clean.n, found.clean.delta) == (7, pytest.approx(-0.05))
    assert (compare_task(a, a).flagged, compare_task(a, a).clean) == (0, None)


def test_each_side_is_flagged_by_its_own_names_of_documents() -> None:
    own = replace(leaf([0.0, 1.0] * 6), flagged=frozenset({1, 2, 11}))
    names = np.asarray(sorted(map(str, range(12))))
    imported = replace(leaf([1.0] * 12), doc_ids=names, flagged=frozenset({"10", "2"}))
    for a, b in ((own, imported), (imported, own)):
        found = compare_task(task("t", t=a), task("t", t=b), force=True)
        assert found.flagged == 4 and found.clean is not None and found.clean.n == 8


def test_the_average_is_the_mean_of_the_tasks_and_takes_all_their_errors() -> None:
    rng = np.random.default_rng(1)
    names = ("x", "y", "z")
    one = {n: task(n, **{n: leaf(rng.random(200).tolist())}) for n in names}
    other = {n: task(n, **{n: leaf(rng.random(200).tolist())}) for n in names}
    found = compare_runs(RunScores("a", "a", one), RunScores("b", "b", other))
    average = compare_average(found.tasks)
    assert average is not None
    each = [t.difference for t in found.tasks if t.difference is not None]
    assert average.delta == pytest.approx(np.mean([d.delta for d in each]))
    assert average.stderr == pytest.approx(np.sqrt(sum((d.stderr or 0) ** 2 for d in each)) / 3)


def test_an_average_with_an_unpaired_task_counts_both_errors() -> None:
    paired_one, paired_two = task("x", x=leaf([0.0, 1.0] * 100)), task("x", x=leaf([1.0, 0.0] * 100))
    loose = replace(task("y", y=leaf([np.nan] * 4)), value=0.5, stderr=0.03)
    tasks = [compare_task(paired_one, paired_two), compare_task(loose, replace(loose, value=0.7))]
    average = compare_average(tasks)
    assert average is not None
    assert average.delta == pytest.approx(0.1)
    spread = tasks[0].difference
    assert spread is not None
    assert average.stderr == pytest.approx(np.hypot(spread.stderr or 0, np.hypot(0.03, 0.03)) / 2, rel=1e-3)


def test_string_and_integer_ids_are_the_same_documents() -> None:
    a = leaf([0.0, 1.0])
    b = replace(a, doc_ids=np.array(["0", "1"]))
    found = align(task("t", t=a), task("t", t=b))
    assert found is not None
    assert (len(found.doc_ids), found.only_baseline) == (2, 0)


def test_another_aggregate_is_another_score() -> None:
    leaves = {"x": leaf([0.0] * 10), "y": leaf([0.0] * 2)}
    assert compare_task(task("t", "macro", **leaves), task("t", "micro", **leaves)).differs == ("scorer",)


def test_an_average_with_an_unpaired_task_keeps_the_room_for_unseen_losses() -> None:
    same = task("x", x=leaf([1.0] * 50))
    loose = replace(task("y", y=leaf([np.nan] * 4)), value=0.5, stderr=1e-6)
    average = compare_average([compare_task(same, same), compare_task(loose, loose)])
    assert average is not None
    assert average.lower is not None
    assert average.lower < -0.02
