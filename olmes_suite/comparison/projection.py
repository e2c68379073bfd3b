"""Projected scores: the score on all documents, from a candidate's scores on some and a baseline's on all of them.

The difference estimator adds the mean paired difference over the documents that both have to the baseline's full mean
(Cochran 1977, Sampling Techniques, § 7.2 with a slope of 1; Särndal, Swensson & Wretman 1992, § 6.3). Its variance in a
stratum of N documents, n of them asked, is (1 - n / N) s² / n, where s² is the variance of the differences: small where
the two models agree on most documents, and 0 when all are asked. Where another slope than 1 has clearly less variance,
the combined regression estimator takes its place (Cochran, § 7.10).

Documents are drawn at random within strata: the sub-tasks, and the strata of a sub-task. The documents of a cluster are
drawn one by one, so clusters do not change this variance. The target is the score that asking the rest would give, and
not that of other documents of the same kind: these error bars are no substitute for those of the plain scores. Pure
functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.alignment import differing_parts, shared_rows, weighting
from olmes_suite.comparison.clusters import ClusterSums, Pairs
from olmes_suite.comparison.paired_tests import FEW, MANY
from olmes_suite.runs.scores import RunScores, TaskScores
from olmes_suite.stats import Floats, normal_quantile, t_quantile
from olmes_suite.tasks.index import nested_shares

GAIN = 0.9
"""The regression estimator is used where its variance is below this share of the difference estimator's."""
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sample:
    """The documents of a task that were asked, with what is known of all of them."""

    baseline: Floats
    """The baseline's scores of the documents that were asked."""
    candidate: Floats
    stratum: Numbers
    """Stratum number of each document that was asked, from 0."""
    size: Numbers
    """Documents of each stratum."""
    weight: Floats
    """Weight of each stratum in the score; they sum to 1."""
    mean: Floats
    """The baseline's mean over all documents of each stratum."""

    @property
    def asked(self) -> Numbers:
        """The documents of each stratum that were asked."""
        return np.bincount(self.stratum, minlength=len(self.size))

    @property
    def n(self) -> int:
        """The number of documents that were asked."""
        return len(self.baseline)

    @property
    def of(self) -> int:
        """The number of documents."""
        return int(self.size.sum())


@dataclass(frozen=True, slots=True)
class Projection:
    """An estimated score on all documents."""

    value: float
    stderr: float
    ci95: tuple[float, float]
    n: int
    of: int
    method: str = "difference"


@dataclass(frozen=True, slots=True)
class ProjectedRun:
    """The projections of a run's tasks, and the exact scores of the others."""

    tasks: Mapping[str, Projection]
    """Tasks and sub-tasks of which some documents were asked."""
    exact: Mapping[str, tuple[float, int]]
    """Tasks of which all documents were asked: score and number."""


def sample_of(baseline: TaskScores, candidate: TaskScores) -> Sample | None:
    """Bring a task's documents together; None where a stratum has no document, or a document is not the baseline's."""
    parts = []
    start = 0
    for name, whole in baseline.leaves.items():
        leaf = candidate.leaves.get(name)
        if leaf is None:
            return None
        rows, asked = shared_rows(whole, leaf)
        if len(asked) < len(leaf.doc_ids):
            return None
        size = np.bincount(whole.strata)
        mean = np.bincount(whole.strata, weights=whole.scores) / size
        parts.append((whole.scores[rows], leaf.scores[asked], whole.strata[rows] + start, size, mean))
        start += len(size)
    sizes = np.array([part[3].sum() for part in parts], dtype=float)
    shares = sizes / sizes.sum()
    if weighting(baseline) != "micro":
        alike = weighting(baseline) == "macro"
        shares = np.full(len(parts), 1 / len(parts)) if alike else np.array(nested_shares(list(baseline.leaves)))
    weight = np.concatenate(
        [np.full(len(part[3]), share / len(part[3])) for part, share in zip(parts, shares, strict=True)]
    )
    joined = [np.concatenate([part[number] for part in parts]) for number in range(5)]
    sample = Sample(joined[0], joined[1], joined[2], joined[3], weight, joined[4])
    return sample if (sample.asked > 0).all() else None


def project(sample: Sample) -> Projection:
    """Estimate the score on all documents from a sample of at least two, or return the score if all were asked."""
    difference = _with_slope(sample, 1.0)
    changed = int((sample.candidate != sample.baseline).sum())
    if changed < FEW or (sample.asked == sample.size).all():
        return difference
    slope = _slope(sample)
    if slope is None:
        return difference
    regression = replace(_with_slope(sample, slope), method="regression")
    return regression if regression.stderr**2 < GAIN * difference.stderr**2 else difference


def _slope(sample: Sample) -> float | None:
    """Return the slope with the least variance, from deviations within strata; None without any."""
    factor = _variance_factor(sample)[sample.stratum]
    x, y = (_centred(values, sample) for values in (sample.baseline, sample.candidate))
    spread = float((factor * x * x).sum())
    return float((factor * x * y).sum()) / spread if spread > 0 else None


def _centred(values: Floats, sample: Sample) -> Floats:
    means = np.bincount(sample.stratum, weights=values, minlength=len(sample.size)) / sample.asked
    return np.asarray(values - means[sample.stratum])


def _variance_factor(sample: Sample) -> Floats:
    """Return by what a stratum's sum of squares enters the variance: W² (1 - n / N) / (n (n - 1))."""
    n = sample.asked
    return np.asarray(sample.weight**2 * (1 - n / sample.size) / (n * np.maximum(n - 1, 1)), dtype=float)


def _with_slope(sample: Sample, slope: float) -> Projection:
    residual = sample.candidate - slope * sample.baseline
    n = sample.asked
    means = np.bincount(sample.stratum, weights=residual, minlength=len(n)) / n
    value = float((sample.weight * (means + slope * sample.mean)).sum())
    weight = (sample.weight / n)[sample.stratum]
    whole = bool(np.isin(sample.candidate, (0.0, 1.0)).all() and np.isin(sample.baseline, (0.0, 1.0)).all())
    binary = whole and slope == 1.0 and len(n) == 1
    left = np.sqrt(1 - n / sample.size)[sample.stratum]
    # The finite population's correction enters each deviation from the stratum's mean, and so the pairs' variance.
    corrected = means[sample.stratum] + (residual - means[sample.stratum]) * left
    pairs = Pairs(corrected, weight, sample.stratum, np.arange(len(residual)), binary)
    stderr, below, above = _error(pairs, sample, residual)
    if slope != 1.0:  # one degree of freedom is spent on the slope
        stderr *= math.sqrt((sample.n - 1) / max(sample.n - 2, 1))
    low, high = _possible(sample)
    value, start, end = (min(max(x, low), high) for x in (value, value - below, value + above))
    return Projection(value, stderr, (start, end), sample.n, sample.of)


def _possible(sample: Sample) -> tuple[float, float]:
    """Return the scores that all documents give if those not asked all have 0 or 1; no limits for other scores."""
    if not all(((x >= 0) & (x <= 1)).all() for x in (sample.candidate, sample.baseline)):
        return -math.inf, math.inf
    known = np.bincount(sample.stratum, weights=sample.candidate, minlength=len(sample.size))
    most = known + sample.size - sample.asked
    return float((sample.weight * known / sample.size).sum()), float((sample.weight * most / sample.size).sum())


def _error(pairs: Pairs, sample: Sample, residual: Floats) -> tuple[float, float, float]:
    """Return the standard error and how far the interval reaches below and above the value.

    Binary scores of one stratum have Tango's interval for the difference, whose quantile is multiplied by
    sqrt(1 - n / N): the score interval with the finite population's variance. Other scores have Student's quantile with
    room for changes that the sample does not show, as comparisons have (`paired_tests`).
    """
    n, of = sample.n, sample.of
    if (sample.asked == sample.size).all():
        return 0.0, 0.0, 0.0
    if pairs.binary and n >= 2:
        delta = float(residual.mean())
        wins, losses = int((residual > 0).sum()), int((residual < 0).sum())
        left = 1 - n / of
        low, high = paired_tests.tango(wins, losses, n, normal_quantile(0.975) * math.sqrt(left))
        return math.sqrt(left * max((wins + losses) / n - delta**2, 0.0) / (n - 1)), delta - low, high - delta
    stderr, df = ClusterSums.of(pairs).error()
    half = t_quantile(0.975, df or None) * math.hypot(stderr, _room(pairs, sample, residual))
    return stderr, half, half


def _room(pairs: Pairs, sample: Sample, residual: Floats) -> float:
    """Return the error of changes that the sample does not show: z² / 2 documents more, fewer where many changed.

    It is half the room that `paired_tests.compare` gives, with the finite population's correction: a gate must not pass
    for want of observations, a projected interval must cover. Simulated in `benchmarks/deciding.py`.
    """
    changed, square = int((np.abs(residual) > 1e-12).sum()), pairs.weight**2
    size = float(square.sum() / pairs.weight.sum())
    if changed >= FEW:
        size = min(size, float(np.abs(pairs.weight * residual).max()))
    left = float((square * (1 - sample.asked / sample.size)[sample.stratum]).sum() / square.sum())
    missing = max(0.0, 1 - changed / MANY) * (1 - changed / len(residual)) / 2
    return math.sqrt(missing * left) * normal_quantile(0.975) * size


def project_run(baseline: RunScores, candidate: RunScores) -> ProjectedRun:
    """Project the tasks of a run, and their sub-tasks, that do not have all documents and are comparable."""
    found: dict[str, Projection] = {}
    exact: dict[str, tuple[float, int]] = {}
    for name, task in candidate.tasks.items():
        if name in baseline.tasks and not differing_parts(baseline.tasks[name], task):
            _project(baseline.tasks[name], task, found, exact)
    return ProjectedRun(found, exact)


def project_task(whole: TaskScores, task: TaskScores) -> Projection | None:
    """Project a task of which `whole` has all documents and `task` some; None where that is not so, or n is 1."""
    if not (whole.by_document and task.by_document and whole.complete) or task.n >= whole.n:
        return None
    sample = sample_of(whole, task)
    return project(sample) if sample is not None and sample.n >= 2 else None


def _project(
    whole: TaskScores, task: TaskScores, found: dict[str, Projection], exact: dict[str, tuple[float, int]]
) -> None:
    if task.n == whole.n and task.leaves.keys() == whole.leaves.keys():
        if task.value is not None:
            exact[task.name] = (task.value, task.n)
        return
    projection = project_task(whole, task)
    if projection is None:
        return
    found[task.name] = projection
    for leaf in task.leaves if len(task.leaves) > 1 else ():
        part = project_task(*(TaskScores(leaf, {leaf: side.leaves[leaf]}) for side in (whole, task)))
        if part is not None:
            found[leaf] = part


def average(run: ProjectedRun, tasks: Sequence[str]) -> Projection | None:
    """Average the tasks of a suite; None unless each has a projection or an exact score, and some a projection."""
    parts = [run.tasks[name] for name in tasks if name in run.tasks]
    exact = [run.exact[name] for name in tasks if name in run.exact]
    if not parts or len(parts) + len(exact) < len(tasks):
        return None
    share = 1 / len(tasks)
    value = share * (sum(part.value for part in parts) + sum(score for score, _ in exact))
    stderr = share * math.hypot(*(part.stderr for part in parts))
    # The half-widths of the tasks hold room for changes that their samples do not show; so must that of the average.
    below = share * math.hypot(*(part.value - part.ci95[0] for part in parts))
    above = share * math.hypot(*(part.ci95[1] - part.value for part in parts))
    documents = sum(n for _, n in exact)
    methods = {part.method for part in parts}
    return Projection(
        value, stderr, (value - below, value + above), sum(part.n for part in parts) + documents,
        sum(part.of for part in parts) + documents, methods.pop() if len(methods) == 1 else "mixed",
    )  # fmt: skip
