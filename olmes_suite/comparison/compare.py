"""Comparing two runs: documents are aligned by id and task fingerprint, never by position. Pure functions."""

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
"""Method of a difference whose scores are no means over documents: from the two standard errors, as if independent."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """The documents of one task that both runs have."""

    leaves: tuple[str, ...]
    leaf: npt.NDArray[np.int64]
    """Per document, its leaf task as a position in `leaves`."""
    doc_ids: npt.NDArray[Any]
    baseline: Floats
    candidate: Floats
    pairs: Pairs
    only_baseline: int
    only_candidate: int
    flagged: npt.NDArray[np.bool_]
    """Per document, whether the training data of either checkpoint is known to contain it."""

    def clean(self) -> Pairs | None:
        """The documents that are not flagged, each stratum with the weight that it has; None where none is left."""
        pairs, kept = self.pairs, ~self.flagged
        if not kept.any():
            return None
        whole = np.bincount(pairs.stratum, weights=pairs.weight)
        left = np.bincount(pairs.stratum[kept], weights=pairs.weight[kept], minlength=len(whole))
        weight = pairs.weight[kept] * (whole / np.where(left > 0, left, 1))[pairs.stratum[kept]]
        weight = weight / weight.sum()
        return Pairs(pairs.difference[kept], weight, pairs.stratum[kept], pairs.cluster[kept], pairs.binary)

    @property
    def values(self) -> tuple[float, float]:
        """Scores of baseline and candidate over the shared documents."""
        part, weight = self.pairs.stratum, self.pairs.weight
        size, share = np.bincount(part), np.bincount(part, weights=weight)
        found = [share @ (np.bincount(part, weights=scores) / size) for scores in (self.baseline, self.candidate)]
        return float(found[0]), float(found[1])


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """One task of two runs."""

    task: str
    skill: str
    baseline: float | None = None
    candidate: float | None = None
    difference: Difference | None = None
    """None where the two cannot be compared."""
    differs: tuple[str, ...] = ()
    """Parts of the fingerprints that differ; empty where the scores compare."""
    only_baseline: int = 0
    only_candidate: int = 0
    p_holm: float | None = None
    p_bh: float | None = None
    aligned: Aligned | None = field(default=None, repr=False)
    flagged: int = 0
    """Documents that the training data of either checkpoint is known to contain."""
    clean: Difference | None = None
    """The difference without them; None where there are none."""
    reason: str | None = None
    """Why there is no difference, where it is not for the fingerprints."""

    @property
    def comparable(self) -> bool:
        """The two scores were made in the same way."""
        return not self.differs


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs."""

    baseline: str
    candidate: str
    tasks: tuple[TaskComparison, ...]
    only_baseline: tuple[str, ...] = ()
    """Tasks that the candidate has no score of."""
    only_candidate: tuple[str, ...] = ()
    imported: bool = False
    """Scores from elsewhere, which carry no fingerprints."""

    @property
    def incomparable(self) -> tuple[TaskComparison, ...]:
        """Tasks whose fingerprints differ."""
        return tuple(task for task in self.tasks if not task.comparable)


def differing_parts(a: TaskScores, b: TaskScores) -> tuple[str, ...]:
    """Parts of the fingerprints that differ on the leaf tasks of both; other metrics and aggregates differ as "scorer".

    Scores without fingerprints compare only with others that have none ("fingerprint" otherwise).
    """
    found = set()
    for name in a.leaves.keys() & b.leaves.keys():
        one, other = a.leaves[name].fingerprint, b.leaves[name].fingerprint
        if one is None and other is None:
            continue
        if one is None or other is None:
            found.add("fingerprint")
        else:
            found |= {part for part in PARTS if one.get(part) != other.get(part)}
    if (a.primary, _weighting(a)) != (b.primary, _weighting(b)):
        found.add("scorer")
    return tuple(part for part in (*PARTS, "fingerprint") if part in found)


def _weighting(task: TaskScores) -> str:
    if len(task.leaves) == 1 or task.aggregate in ("macro", "mean"):
        return "macro"
    return "micro"


def align(a: TaskScores, b: TaskScores) -> Aligned | None:
    """Documents that both have, with the weight that each has in the score; None where they share none.

    Macro: leaf tasks weigh the same. Micro: they weigh as many documents as they have. Within a leaf its strata weigh
    the same, and within a stratum the documents do.
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
    """Which rows of one side are flagged, by its own names of documents."""
    return np.isin(leaf.doc_ids[rows], list(leaf.flagged)) if leaf.flagged else np.zeros(len(rows), dtype=bool)


def _weights(strata: Sequence[npt.NDArray[np.int64]], share: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Strata numbered over all leaf tasks, and each document's weight: strata of a leaf share its weight evenly."""
    numbers, weights, start = [], [], 0
    for own, part in zip(strata, share, strict=True):
        present, inverse, size = np.unique(own, return_inverse=True, return_counts=True)
        numbers.append(inverse + start)
        weights.append((part / (len(present) * size))[inverse])
        start += len(present)
    return np.concatenate(numbers), np.concatenate(weights)


def _shared_rows(a: LeafScores, b: LeafScores) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Rows of either side whose doc_id both have, in the same order."""
    if len(a.doc_ids) == len(b.doc_ids) and np.array_equal(a.doc_ids, b.doc_ids):
        same = np.arange(len(a.doc_ids))
        return same, same
    one, other = (x.doc_ids if a.doc_ids.dtype.kind == b.doc_ids.dtype.kind else x.doc_ids.astype(str) for x in (a, b))
    _, rows_a, rows_b = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    return rows_a, rows_b


def _clusters(parts: Sequence[npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int64], bool]:
    """Cluster numbers that no two leaf tasks share, and whether every document stands alone."""
    out, start = [], 0
    for numbers in parts:
        out.append(numbers + start)
        start += int(numbers.max()) + 1
    joined = np.concatenate(out)
    return joined, len(np.unique(joined)) == len(joined)


def compare_task(
    a: TaskScores, b: TaskScores, *, alpha: float = 0.05, resamples: int = 0, force: bool = False
) -> TaskComparison:
    """Compare one task of two runs. With `force`, tasks whose fingerprints differ get numbers as well as the mark."""
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
    """A task whose score is no mean over documents; without the flagged ones it is what each run has reported."""
    found = align(a, b)
    flagged = int(found.flagged.sum()) if found is not None else 0
    rest = None
    if flagged:
        one, other = (
            replace(side, value=side.clean[0], stderr=side.clean[1]) if side.clean else side for side in (a, b)
        )
        rest = _unpaired(one, other, alpha)
        rest = replace(rest, n=rest.n - flagged) if rest else None
    return replace(start, difference=_unpaired(a, b, alpha), flagged=flagged, clean=rest)


def _unpaired(a: TaskScores, b: TaskScores, alpha: float) -> Difference | None:
    """From two reported scores and standard errors, as if the runs were independent: wider than a paired interval."""
    if a.value is None or b.value is None:
        return None
    start = Difference(b.value - a.value, min(a.n, b.n), 0, 0, method=UNPAIRED)
    if a.stderr is None or b.stderr is None:
        return start
    return with_normal_error(start, math.hypot(a.stderr, b.stderr), alpha)


def with_normal_error(start: Difference, stderr: float, alpha: float) -> Difference:
    """The difference with intervals and p-values from a standard error, by the normal approximation."""
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
    """Compare all tasks that both runs have a score of; p-values are adjusted over the tasks that compare."""
    shared = [name for name in a.tasks if name in b.tasks]
    found = [
        compare_task(a.tasks[name], b.tasks[name], alpha=alpha, resamples=resamples, force=force) for name in shared
    ]
    return Comparison(
        a.name,
        b.name,
        tuple(adjusted(found)),
        tuple(name for name in {**a.tasks, **a.failed} if name not in b.tasks),
        tuple(name for name in {**b.tasks, **b.failed} if name not in a.tasks),
        a.imported or b.imported,
    )


def adjusted(tasks: Sequence[TaskComparison]) -> list[TaskComparison]:
    """The tasks with Holm's and Benjamini and Hochberg's p-values over those that compare and have one."""
    having = [(i, task.difference.p) for i, task in enumerate(tasks) if task.comparable and task.difference]
    tested = [(i, p) for i, p in having if p is not None]
    out = list(tasks)
    if tested:
        p = [p for _, p in tested]
        for (i, _), holm, bh in zip(tested, paired_tests.holm(p), paired_tests.benjamini_hochberg(p), strict=True):
            out[i] = replace(out[i], p_holm=holm, p_bh=bh)
    return out


def compare_average(tasks: Sequence[TaskComparison], alpha: float = 0.05, resamples: int = 0) -> Difference | None:
    """Difference of the unweighted mean of tasks, from all their documents; None unless each task has a difference."""
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
    found = paired_tests.compare(_joined(parts, share), alpha, resamples)
    if not others:
        return found
    moved = replace(
        found, delta=found.delta + share * sum(d.delta for d in others), method=found.method + "+" + UNPAIRED
    )
    if found.stderr is None or found.lower is None or any(d.stderr is None for d in others):
        return replace(moved, stderr=None, ci95=None, lower=None, p=None, p_drop=None, detectable=None)
    # The bound is wider than the error alone where few documents differ; that room must not be lost here.
    own = max(found.stderr, (found.delta - found.lower) / t_quantile(1 - alpha, found.df))
    return with_normal_error(moved, math.hypot(own, *(share * (d.stderr or 0.0) for d in others)), alpha)


def _joined(parts: Sequence[Pairs], share: float) -> Pairs:
    """The documents of several tasks as one sample, each task weighing `share`."""
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
    """(leaf task, doc_id, baseline's score, candidate's) of documents whose score changed, largest change first."""
    if task.aligned is None:
        return []
    found = task.aligned
    moved = np.flatnonzero(found.pairs.difference)
    order = moved[np.argsort(-np.abs(found.pairs.difference[moved]), kind="stable")]
    return [
        (found.leaves[found.leaf[i]], found.doc_ids[i].item(), float(found.baseline[i]), float(found.candidate[i]))
        for i in order
    ]


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The comparison as `olmes compare --json` prints it; scores and differences are fractions."""
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
    out: dict[str, Any] = {
        "task": task.task, "comparable": task.comparable, "differs": list(task.differs), "reason": task.reason,
        "baseline": task.baseline, "candidate": task.candidate, "only_baseline": task.only_baseline,
        "only_candidate": task.only_candidate,
    }  # fmt: skip
    if d is None:
        return out
    return out | {
        "n": d.n, "delta": d.delta, "stderr": d.stderr, "ci95": list(d.ci95) if d.ci95 else None, "p": d.p,
        "p_exact": d.p_exact, "p_adjusted": task.p_holm, "p_bh": task.p_bh, "wins": d.wins, "losses": d.losses,
        "ties": d.ties, "detectable": d.detectable, "method": d.method, "flagged": task.flagged,
        "clean": {"n": c.n, "delta": c.delta, "ci95": list(c.ci95) if c.ci95 else None} if (c := task.clean) else None,
    }  # fmt: skip


def mismatch(tasks: Sequence[TaskComparison]) -> str:
    """One line that says which tasks do not compare, and in what."""
    said: dict[tuple[str, ...], list[str]] = {}
    for task in tasks:
        said.setdefault(task.differs, []).append(task.task)
    return "; ".join(f"{', '.join(names)}: {' and '.join(parts)} differ" for parts, names in said.items())
