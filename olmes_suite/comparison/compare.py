"""Comparison of two runs, with documents aligned by id and task fingerprint and never by position. Pure functions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.alignment import Aligned, align, differing_parts, differing_settings
from olmes_suite.comparison.clusters import ClusterSums, Pairs
from olmes_suite.comparison.paired_tests import Difference
from olmes_suite.comparison.projection import Projection, project_task
from olmes_suite.comparison.room import NOTHING_KNOWN, Room, room
from olmes_suite.runs import differences
from olmes_suite.runs.scores import RunScores, TaskScores
from olmes_suite.stats import normal_quantile, t_quantile

UNPAIRED = "unpaired"
"""The method for scores that are not means over documents: their standard errors are combined as if independent."""


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
    settings: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)
    """The settings that differ, with the values of baseline and candidate, where both runs record them."""
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
    tokens: tuple[float, float] | None = None
    """Mean generated tokens per answer of both runs, over the documents that both have; None if either is unknown."""
    room: Room = NOTHING_KNOWN
    """What the task has beside the compared documents."""
    projected: Projection | None = None
    """The candidate's score on all documents, estimated where only the baseline has all."""

    @property
    def comparable(self) -> bool:
        """Whether both scores were computed in the same way."""
        return not self.differs

    @property
    def token_ratio(self) -> float | None:
        """The candidate's tokens per answer as a multiple of the baseline's."""
        return self.tokens[1] / self.tokens[0] if self.tokens and self.tokens[0] else None


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
    settings: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """The settings in which the runs differ, with the values of baseline and candidate."""
    one_checkpoint: bool = False
    """Whether both runs evaluated the same checkpoint."""
    partial: tuple[str, ...] = ()
    """What to know about the documents of a run that was planned or stopped early, a sentence for each."""

    @property
    def incomparable(self) -> tuple[TaskComparison, ...]:
        """The tasks whose fingerprints differ."""
        return tuple(task for task in self.tasks if not task.comparable)


def compare_task(
    a: TaskScores, b: TaskScores, *, alpha: float = 0.05, resamples: int = 0, force: bool = False
) -> TaskComparison:
    """Compare one task of two runs. With `force`, tasks with differing fingerprints are compared and marked."""
    differs = differing_parts(a, b)
    settings = differing_settings(a, b) if "settings" in differs else {}
    start = TaskComparison(b.name, b.skill, a.value, b.value, differs=differs, settings=settings)
    if differs and not force:
        return start
    if not (a.by_document and b.by_document):
        return _without_documents(start, a, b, alpha)
    aligned = align(a, b)
    if aligned is None:
        return replace(start, reason="the runs share no document", only_baseline=a.n, only_candidate=b.n)
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
        tokens=aligned.tokens,
        room=room(a, b, len(aligned.doc_ids)),
        projected=project_task(a, b) if not differs else None,
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
    tokens = aligned.tokens if aligned is not None else None
    left = room(a, b, min(a.n, b.n))
    return replace(start, difference=_unpaired(a, b, alpha), flagged=flagged, clean=rest, tokens=tokens, room=left)


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
        differences.differing(a.facts, b.facts),
        bool(a.checkpoint) and a.checkpoint == b.checkpoint and bool(a.facts and b.facts),
        tuple(text for run in (a, b) if (text := some_documents(run)) is not None),
    )


def some_documents(run: RunScores) -> str | None:
    """Say that a run asked the documents of a plan, or stopped when it was decided; None for another run."""
    if run.stopped is None and not any(task.planned for task in run.tasks.values()):
        return None
    asked = sum(task.n for task in run.tasks.values())
    of = sum(leaf.population for task in run.tasks.values() for leaf in task.leaves.values())
    what = f"{run.name} asked the documents of a plan"
    if run.stopped is not None:
        looks = f"{len(run.stopped.looks)} look{'s' if len(run.stopped.looks) != 1 else ''}"
        what = f"{run.name} stopped early after {looks} ({run.stopped.verdict} against {run.stopped.baseline})"
    return f"{what}: {asked:,} of {of:,}" + (" documents" if run.stopped is not None else "")


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
    pairs = _joined(parts, share)
    paired = paired_tests.compare(pairs, alpha, resamples)
    if not others:
        return paired
    total = replace(
        paired, delta=paired.delta + share * sum(d.delta for d in others), method=paired.method + "+" + UNPAIRED
    )
    if paired.lower is None or paired.ci95 is None or any(d.stderr is None for d in others):
        return replace(total, stderr=None, ci95=None, lower=None, p=None, p_drop=None, detectable=None)
    apart = share * math.hypot(*(d.stderr or 0.0 for d in others))

    def wide(distance: float, q: float) -> float:
        return normal_quantile(q) * math.hypot(distance / t_quantile(q, paired.df), apart)

    # Bounds have room for what the paired documents do not show; the test of no difference needs less of it.
    error = paired_tests.error_for_test(ClusterSums.of(pairs), alpha)
    low, high = (wide(abs(paired.delta - end), 0.975) for end in paired.ci95)
    return replace(
        with_normal_error(total, math.hypot(error, apart), alpha),
        ci95=(total.delta - low, total.delta + high),
        lower=total.delta - wide(paired.delta - paired.lower, 1 - alpha),
    )


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
        "one_checkpoint": comparison.one_checkpoint,
        "settings": {name: list(pair) for name, pair in comparison.settings.items()},
        **({"partial": list(comparison.partial)} if comparison.partial else {}),
    }


def _task_json(task: TaskComparison) -> dict[str, Any]:
    d = task.difference
    fields: dict[str, Any] = {
        "task": task.task, "comparable": task.comparable, "differs": list(task.differs), "reason": task.reason,
        "baseline": task.baseline, "candidate": task.candidate, "only_baseline": task.only_baseline,
        "only_candidate": task.only_candidate, "tokens": _tokens_json(task),
    }  # fmt: skip
    if task.settings:
        fields["settings"] = {name: list(values) for name, values in task.settings.items()}
    if (found := task.projected) is not None:
        fields["projected"] = {
            "value": found.value, "stderr": found.stderr, "ci95": list(found.ci95), "n": found.n, "of": found.of,
            "method": found.method,
        }  # fmt: skip
    if d is None:
        return fields
    return fields | {
        "n": d.n, "delta": d.delta, "stderr": d.stderr, "ci95": list(d.ci95) if d.ci95 else None, "p": d.p,
        "p_exact": d.p_exact, "p_adjusted": task.p_holm, "p_bh": task.p_bh, "wins": d.wins, "losses": d.losses,
        "ties": d.ties, "detectable": d.detectable, "method": d.method, "flagged": task.flagged,
        "clean": {"n": c.n, "delta": c.delta, "ci95": list(c.ci95) if c.ci95 else None} if (c := task.clean) else None,
    }  # fmt: skip


def _tokens_json(task: TaskComparison) -> dict[str, Any] | None:
    if task.tokens is None:
        return None
    return {"baseline": task.tokens[0], "candidate": task.tokens[1], "ratio": task.token_ratio}


def setup(comparison: Comparison) -> str | None:
    """Say in which settings the runs differ, and whether they evaluated one checkpoint; None where there is nothing."""
    pairs = "; ".join(f"{name} {one} → {other}" for name, (one, other) in comparison.settings.items())
    if comparison.one_checkpoint:
        return f"one checkpoint; {'settings that differ: ' + pairs if pairs else 'no recorded setting differs'}"
    return f"settings that differ: {pairs}" if pairs else None


def mismatch(tasks: Sequence[TaskComparison]) -> str:
    """Return one line with the tasks that are not comparable and the parts that differ."""
    by_parts: dict[str, list[str]] = {}
    for task in tasks:
        by_parts.setdefault(f"{' and '.join(task.differs)} differ{values_of(task)}", []).append(task.task)
    return "; ".join(f"{', '.join(names)}: {parts}" for parts, names in by_parts.items())


def values_of(task: TaskComparison) -> str:
    """Return the differing settings of both runs in brackets, "" where none is recorded."""
    shown = (f"{name} {_shown(one)} and {_shown(other)}" for name, (one, other) in task.settings.items())
    return f" ({', '.join(shown)})" if task.settings else ""


def _shown(value: Any) -> str:
    return "none" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
