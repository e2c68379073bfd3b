"""Comparison of two runs, with documents aligned by id and task fingerprint and never by position. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.paired_tests import Difference, Pairs
from olmes_suite.runs.scores import PARTS, LeafScores, RunScores, TaskScores
from olmes_suite.stats import Floats, normal_quantile, t_quantile

UNPAIRED = "unpaired"
"""The method for scores that are not means over documents: their standard errors are combined as if independent."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """The documents of one task that both runs have."""

    leaves: tuple[str, ...]
    leaf: npt.NDArray[np.int64]
    """The leaf task of each document, as a position in `leaves`."""
    doc_ids: npt.NDArray[Any]
    baseline: Floats
    candidate: Floats
    pairs: Pairs
    only_baseline: int
    only_candidate: int
    flagged: npt.NDArray[np.bool_]
    """Whether the training data of either checkpoint is known to contain each document."""

    def clean(self) -> Pairs | None:
        """Return the documents that are not flagged, with the strata's weights unchanged, or None without any."""
        pairs, clean = self.pairs, ~self.flagged
        if not clean.any():
            return None
        before = np.bincount(pairs.stratum, weights=pairs.weight)
        left = np.bincount(pairs.stratum[clean], weights=pairs.weight[clean], minlength=len(before))
        weight = pairs.weight[clean] * (before / np.where(left > 0, left, 1))[pairs.stratum[clean]]
        weight = weight / weight.sum()
        return Pairs(pairs.difference[clean], weight, pairs.stratum[clean], pairs.cluster[clean], pairs.binary)

    @property
    def values(self) -> tuple[float, float]:
        """The scores of baseline and candidate over the shared documents."""
        part, weight = self.pairs.stratum, self.pairs.weight
        size, share = np.bincount(part), np.bincount(part, weights=weight)
        means = [share @ (np.bincount(part, weights=scores) / size) for scores in (self.baseline, self.candidate)]
        return float(means[0]), float(means[1])


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """The comparison of one task of two runs."""

    task: str
    skill: str
    baseline: float | None = None
    candidate: float | None = None
    difference: Difference | None = None
    """The difference; None where the scores cannot be compared."""
    differs: tuple[str, ...] = ()
    """The parts of the fingerprints that differ; empty where the scores are comparable."""
    only_baseline: int = 0
    only_candidate: int = 0
    p_holm: float | None = None
    p_bh: float | None = None
    aligned: Aligned | None = field(default=None, repr=False)
    flagged: int = 0
    """The number of documents that the training data of either checkpoint is known to contain."""
    clean: Difference | None = None
    """The difference without the flagged documents; None where no document is flagged or none is left."""
    reason: str | None = None
    """The reason for a missing difference, apart from differing fingerprints."""

    @property
    def comparable(self) -> bool:
        """Whether both scores were computed in the same way."""
        return not self.differs


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two runs."""

    baseline: str
    candidate: str
    tasks: tuple[TaskComparison, ...]
    only_baseline: tuple[str, ...] = ()
    """Tasks without a score of the candidate."""
    only_candidate: tuple[str, ...] = ()
    imported: bool = False
    """Whether the scores of either run were imported, without fingerprints."""

    @property
    def incomparable(self) -> tuple[TaskComparison, ...]:
        """The tasks whose fingerprints differ."""
        return tuple(task for task in self.tasks if not task.comparable)


def differing_parts(a: TaskScores, b: TaskScores) -> tuple[str, ...]:
    """Return the parts of the fingerprints that differ on the shared leaf tasks.

    Different metrics and aggregates count as "scorer". Scores without fingerprints are comparable only with each other,
    and differ from other scores in "fingerprint".
    """
    parts = set()
    for name in a.leaves.keys() & b.leaves.keys():
        one, other = a.leaves[name].fingerprint, b.leaves[name].fingerprint
        if one is None and other is None:
            continue
        if one is None or other is None:
            parts.add("fingerprint")
        else:
            parts |= {part for part in PARTS if one.get(part) != other.get(part)}
    if (a.primary, _weighting(a)) != (b.primary, _weighting(b)):
        parts.add("scorer")
    return tuple(part for part in (*PARTS, "fingerprint") if part in parts)


def _weighting(task: TaskScores) -> str:
    if len(task.leaves) == 1 or task.aggregate in ("macro", "mean"):
        return "macro"
    return "micro"


def align(a: TaskScores, b: TaskScores) -> Aligned | None:
    """Align the documents of both runs, with their weights in the score. Returns None without shared documents.

    Leaf tasks have equal weights for macro averages, and weights by their documents for micro averages. The strata of a
    leaf task have equal weights, and so have the documents of a stratum.
    """
    shared = [name for name in a.leaves if name in b.leaves]
    parts, only = [], [0, 0]
    for side, (one, other) in enumerate(((a, b), (b, a))):
        only[side] += sum(len(leaf.doc_ids) for name, leaf in one.leaves.items() if name not in other.leaves)
    for name in shared:
        rows_a, rows_b = _shared_rows(a.leaves[name], b.leaves[name])
        only[0] += len(a.leaves[name].doc_ids) - len(rows_a)
        only[1] += len(b.leaves[name].doc_ids) - len(rows_b)
        if len(rows_a):
            parts.append((name, rows_a, rows_b))
    if not parts:
        return None
    sizes = np.array([len(rows) for _, rows, _ in parts])
    leaf = np.repeat(np.arange(len(parts)), sizes)
    share = np.full(len(parts), 1 / len(parts)) if _weighting(a) == "macro" else sizes / sizes.sum()
    stratum, weight = _weights([b.leaves[name].strata[rows] for name, _, rows in parts], share)
    baseline = np.concatenate([a.leaves[name].scores[rows] for name, rows, _ in parts])
    candidate = np.concatenate([b.leaves[name].scores[rows] for name, _, rows in parts])
    clusters, alone = _clusters([b.leaves[name].clusters[rows] for name, _, rows in parts])
    whole = bool(np.isin(baseline, (0.0, 1.0)).all() and np.isin(candidate, (0.0, 1.0)).all())
    binary = whole and alone and bool(np.ptp(weight) < 1e-15)
    return Aligned(
        tuple(name for name, _, _ in parts),
        leaf,
        np.concatenate([a.leaves[name].doc_ids[rows] for name, rows, _ in parts]),
        baseline,
        candidate,
        Pairs(candidate - baseline, weight, stratum, clusters, binary),
        only[0],
        only[1],
        np.concatenate(
            [_flagged(a.leaves[name], rows_a) | _flagged(b.leaves[name], rows_b) for name, rows_a, rows_b in parts]
        ),
    )


def _flagged(leaf: LeafScores, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which rows of a run are flagged, by the run's ids of documents."""
    return np.isin(leaf.doc_ids[rows], list(leaf.flagged)) if leaf.flagged else np.zeros(len(rows), dtype=bool)


def _weights(strata: Sequence[npt.NDArray[np.int64]], share: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Number the strata over all leaf tasks and weigh the documents; the strata of a leaf task share its weight."""
    numbers, weights, start = [], [], 0
    for leaf_strata, leaf_share in zip(strata, share, strict=True):
        present, inverse, size = np.unique(leaf_strata, return_inverse=True, return_counts=True)
        numbers.append(inverse + start)
        weights.append((leaf_share / (len(present) * size))[inverse])
        start += len(present)
    return np.concatenate(numbers), np.concatenate(weights)


def _shared_rows(a: LeafScores, b: LeafScores) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows of both runs with a shared doc_id, in the same order."""
    if len(a.doc_ids) == len(b.doc_ids) and np.array_equal(a.doc_ids, b.doc_ids):
        same = np.arange(len(a.doc_ids))
        return same, same
    one, other = (x.doc_ids if a.doc_ids.dtype.kind == b.doc_ids.dtype.kind else x.doc_ids.astype(str) for x in (a, b))
    _, rows_a, rows_b = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    return rows_a, rows_b


def _clusters(parts: Sequence[npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int64], bool]:
    """Number the clusters over all leaf tasks, and return whether every document is its own cluster."""
    shifted, start = [], 0
    for numbers in parts:
        shifted.append(numbers + start)
        start += int(numbers.max()) + 1
    joined = np.concatenate(shifted)
    return joined, len(np.unique(joined)) == len(joined)


def compare_task(
    a: TaskScores, b: TaskScores, *, alpha: float = 0.05, resamples: int = 0, force: bool = False
) -> TaskComparison:
    """Compare one task of two runs. With `force`, tasks with differing fingerprints are compared and marked."""
    differs = differing_parts(a, b)
    start = TaskComparison(b.name, b.skill, a.value, b.value, differs=differs)
    if differs and not force:
        return start
    if not (a.by_document and b.by_document):
        return _without_documents(start, a, b, alpha)
    aligned = align(a, b)
    if aligned is None:
        return replace(start, reason="no document in common", only_baseline=a.n, only_candidate=b.n)
    value_a, value_b = aligned.values
    flagged = int(aligned.flagged.sum())
    rest = aligned.clean() if flagged else None
    return replace(
        start,
        flagged=flagged,
        clean=paired_tests.compare(rest, alpha, resamples) if rest is not None else None,
        baseline=value_a,
        candidate=value_b,
        difference=paired_tests.compare(aligned.pairs, alpha, resamples),
        only_baseline=aligned.only_baseline,
        only_candidate=aligned.only_candidate,
        aligned=aligned,
    )


def _without_documents(start: TaskComparison, a: TaskScores, b: TaskScores, alpha: float) -> TaskComparison:
    """Compare a task whose score is not a mean over documents; clean scores are those that the runs report."""
    aligned = align(a, b)
    flagged = int(aligned.flagged.sum()) if aligned is not None else 0
    rest = None
    if flagged:
        one, other = (
            replace(side, value=side.clean[0], stderr=side.clean[1]) if side.clean else side for side in (a, b)
        )
        rest = _unpaired(one, other, alpha)
        rest = replace(rest, n=rest.n - flagged) if rest else None
    return replace(start, difference=_unpaired(a, b, alpha), flagged=flagged, clean=rest)


def _unpaired(a: TaskScores, b: TaskScores, alpha: float) -> Difference | None:
    """Compare two reported scores as if the runs were independent, with a wider interval than a paired one."""
    if a.value is None or b.value is None:
        return None
    start = Difference(b.value - a.value, min(a.n, b.n), 0, 0, method=UNPAIRED)
    if a.stderr is None or b.stderr is None:
        return start
    return with_normal_error(start, math.hypot(a.stderr, b.stderr), alpha)


def with_normal_error(start: Difference, stderr: float, alpha: float) -> Difference:
    """Return the difference with intervals and p-values from a standard error, by the normal approximation."""
    from scipy.special import ndtr

    delta = start.delta
    p_drop = float(ndtr(delta / stderr)) if stderr else 0.5
    wide = normal_quantile(0.975) * stderr
    return replace(
        start,
        stderr=stderr,
        df=math.inf,
        ci95=(delta - wide, delta + wide),
        lower=delta - normal_quantile(1 - alpha) * stderr,
        p=min(1.0, 2 * min(p_drop, 1 - p_drop)),
        p_drop=p_drop,
        detectable=paired_tests.detectable(stderr),
    )


def compare_runs(
    a: RunScores, b: RunScores, *, alpha: float = 0.05, resamples: int = 0, force: bool = False
) -> Comparison:
    """Compare all tasks that have a score in both runs. P-values are adjusted over the comparable tasks."""
    shared = [name for name in a.tasks if name in b.tasks]
    tasks = [
        compare_task(a.tasks[name], b.tasks[name], alpha=alpha, resamples=resamples, force=force) for name in shared
    ]
    return Comparison(
        a.name,
        b.name,
        tuple(adjusted(tasks)),
        tuple(name for name in {**a.tasks, **a.failed} if name not in b.tasks),
        tuple(name for name in {**b.tasks, **b.failed} if name not in a.tasks),
        a.imported or b.imported,
    )


def adjusted(tasks: Sequence[TaskComparison]) -> list[TaskComparison]:
    """Return the tasks with Holm's and Benjamini and Hochberg's adjusted p-values, over comparable tasks."""
    comparable = [(i, task.difference.p) for i, task in enumerate(tasks) if task.comparable and task.difference]
    tested = [(i, p) for i, p in comparable if p is not None]
    adjusted_tasks = list(tasks)
    if tested:
        p = [p for _, p in tested]
        for (i, _), holm, bh in zip(tested, paired_tests.holm(p), paired_tests.benjamini_hochberg(p), strict=True):
            adjusted_tasks[i] = replace(adjusted_tasks[i], p_holm=holm, p_bh=bh)
    return adjusted_tasks


def compare_average(tasks: Sequence[TaskComparison], alpha: float = 0.05, resamples: int = 0) -> Difference | None:
    """Return the difference of the unweighted mean of tasks, or None unless each task has a difference."""
    if not tasks or any(task.difference is None for task in tasks):
        return None
    share = 1 / len(tasks)
    parts = [task.aligned.pairs for task in tasks if task.aligned is not None]
    others = [task.difference for task in tasks if task.aligned is None and task.difference is not None]
    if not parts:
        start = Difference(share * sum(d.delta for d in others), sum(d.n for d in others), 0, 0, method=UNPAIRED)
        errors = [d.stderr for d in others]
        if None in errors:
            return start
        return with_normal_error(start, share * math.hypot(*(e or 0.0 for e in errors)), alpha)
    paired = paired_tests.compare(_joined(parts, share), alpha, resamples)
    if not others:
        return paired
    total = replace(
        paired, delta=paired.delta + share * sum(d.delta for d in others), method=paired.method + "+" + UNPAIRED
    )
    if paired.stderr is None or paired.lower is None or any(d.stderr is None for d in others):
        return replace(total, stderr=None, ci95=None, lower=None, p=None, p_drop=None, detectable=None)
    # Where few documents differ, the bound is wider than the error alone; the error has to include this width.
    error = max(paired.stderr, (paired.delta - paired.lower) / t_quantile(1 - alpha, paired.df))
    return with_normal_error(total, math.hypot(error, *(share * (d.stderr or 0.0) for d in others)), alpha)


def _joined(parts: Sequence[Pairs], share: float) -> Pairs:
    """Join the documents of several tasks into one sample, where each task has the weight `share`."""
    strata, clusters, strata_at, clusters_at = [], [], 0, 0
    for part in parts:
        strata.append(part.stratum + strata_at)
        clusters.append(part.cluster + clusters_at)
        strata_at, clusters_at = strata_at + int(part.stratum.max()) + 1, clusters_at + int(part.cluster.max()) + 1
    binary = len(parts) == 1 and share == 1 and parts[0].binary
    return Pairs(
        np.concatenate([part.difference for part in parts]),
        np.concatenate([part.weight * share for part in parts]),
        np.concatenate(strata),
        np.concatenate(clusters),
        binary,
    )


def flips(task: TaskComparison) -> list[tuple[str, Any, float, float]]:
    """Return (leaf task, doc_id, baseline's score, candidate's score) of changed documents, largest change first."""
    if task.aligned is None:
        return []
    docs = task.aligned
    changed = np.flatnonzero(docs.pairs.difference)
    order = changed[np.argsort(-np.abs(docs.pairs.difference[changed]), kind="stable")]
    return [
        (docs.leaves[docs.leaf[i]], docs.doc_ids[i].item(), float(docs.baseline[i]), float(docs.candidate[i]))
        for i in order
    ]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Return the comparison in the form of `olmes compare --json`; scores and differences are fractions."""
    return {
        "baseline": comparison.baseline,
        "candidate": comparison.candidate,
        "tasks": [_task_json(task) for task in comparison.tasks],
        "only_baseline": list(comparison.only_baseline),
        "only_candidate": list(comparison.only_candidate),
        "imported": comparison.imported,
    }


def _task_json(task: TaskComparison) -> dict[str, Any]:
    d = task.difference
    fields: dict[str, Any] = {
        "task": task.task, "comparable": task.comparable, "differs": list(task.differs), "reason": task.reason,
        "baseline": task.baseline, "candidate": task.candidate, "only_baseline": task.only_baseline,
        "only_candidate": task.only_candidate,
    }  # fmt: skip
    if d is None:
        return fields
    return fields | {
        "n": d.n, "delta": d.delta, "stderr": d.stderr, "ci95": list(d.ci95) if d.ci95 else None, "p": d.p,
        "p_exact": d.p_exact, "p_adjusted": task.p_holm, "p_bh": task.p_bh, "wins": d.wins, "losses": d.losses,
        "ties": d.ties, "detectable": d.detectable, "method": d.method, "flagged": task.flagged,
        "clean": {"n": c.n, "delta": c.delta, "ci95": list(c.ci95) if c.ci95 else None} if (c := task.clean) else None,
    }  # fmt: skip


def mismatch(tasks: Sequence[TaskComparison]) -> str:
    """Return one line with the tasks that are not comparable and the parts that differ."""
    by_parts: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        by_parts.setdefault(task.differs, []).append(task.task)
    return "; ".join(f"{', '.join(names)}: {' and '.join(parts)} differ" for parts, names in by_parts.items())
