"""Confidence bounds of a difference at several levels, from one pass over the documents. Pure functions.

`paired_tests.compare` answers at one level. A gate that looks again and again asks for several levels of the same
documents, and whether more documents could change the answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import ndtr, ndtri, stdtr

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.clusters import ClusterSums, Pairs
from olmes_suite.comparison.paired_tests import FEW, RESAMPLES, Difference
from olmes_suite.stats import Floats, normal_quantile, t_quantile


@dataclass(frozen=True)
class Evidence:
    """A difference, candidate − baseline, with its one-sided p-value and bounds as `paired_tests.compare` has them."""

    delta: float
    changed: int
    """Documents, or clusters of them, that differ."""
    stderr: float
    df: float = math.inf
    sums: ClusterSums | None = None
    """None for a score that is no mean over documents."""
    counts: tuple[int, int, int] | None = None
    """Wins, losses and documents, for binary scores of one sample."""
    apart: float = 0.0
    """For an average: the standard error of the tasks in it that are no means over documents."""

    @cached_property
    def p_drop(self) -> float:
        """The one-sided p-value for a drop."""
        if self.counts is not None:
            return float(paired_tests.drop_p(self.counts[0], self.counts[1]))
        if self.sums is None or self.apart:
            known = self.stderr if self.sums is None else paired_tests.error_for_test(self.sums, 0.05)
            stderr = math.hypot(known, self.apart)
            return float(ndtr(self.delta / stderr)) if stderr else 0.5
        if self.changed < FEW:
            return paired_tests.sign_flip(self.sums.total)[0]
        return paired_tests.t_drop(self.delta, self.sums)

    def lower(self, level: float) -> float:
        """Return the lower bound of the difference at a one-sided level."""
        if self.counts is not None:
            wins, losses, n = self.counts
            return paired_tests.tango_bound(wins, losses, n, normal_quantile(1 - level))
        if self.sums is None or self.apart:
            return self.delta - normal_quantile(1 - level) * self._with_apart(level)
        return self._lower(level)

    def error(self, level: float) -> float:
        """Return the distance to the bound at a level as a standard error: it has room for changes not yet seen."""
        return max((self.delta - self.lower(level)) / normal_quantile(1 - level), 1e-12)

    def _lower(self, level: float) -> float:
        assert self.sums is not None
        end = paired_tests.t_bounds(self.delta, self.stderr, self.df, self.sums, 1 - level)[0]
        if self.sums.count >= FEW:
            return end
        return min(end, paired_tests.bootstrap_bounds(self.delta, self.stderr, self._draws, 1 - level)[0])

    def _with_apart(self, level: float) -> float:
        if self.sums is None:
            return self.stderr
        wide = (self.delta - self._lower(level)) / t_quantile(1 - level, self.df)
        return math.hypot(max(self.stderr, wide), self.apart)

    @cached_property
    def _draws(self) -> Floats:
        assert self.sums is not None
        return paired_tests.bootstrap_t(self.sums, RESAMPLES)


def of_pairs(pairs: Pairs) -> Evidence | None:
    """Return the evidence of a task's documents; None for fewer than two."""
    sums = ClusterSums.of(pairs)
    if sums.count < 2:
        return None
    if pairs.binary:
        wins, losses = int((pairs.difference > 0).sum()), int((pairs.difference < 0).sum())
        delta = (wins - losses) / pairs.n
        stderr = math.sqrt(max((wins + losses) / pairs.n - delta**2, 0.0) / (pairs.n - 1))
        return Evidence(delta, wins + losses, stderr, pairs.n - 1, sums, (wins, losses, pairs.n))
    return _of_sums(sums)


def of_scores(difference: Difference | None) -> Evidence | None:
    """Return the evidence of scores that are no means over documents; None without a standard error."""
    if difference is None or difference.stderr is None:
        return None
    return Evidence(difference.delta, difference.n, difference.stderr)


def of_average(tasks: Sequence[Evidence | None]) -> Evidence | None:
    """Return the evidence of the unweighted mean of tasks; None unless each has some."""
    known = [task for task in tasks if task is not None]
    if len(known) < len(tasks) or not known:
        return None
    if len(known) == 1:
        return known[0]
    share = 1 / len(known)
    sums = [task.sums for task in known if task.sums is not None]
    others = [task for task in known if task.sums is None]
    apart = share * math.hypot(*(task.stderr for task in others)) if others else 0.0
    shift = share * sum(task.delta for task in others)
    if not sums:
        return Evidence(shift, min(task.changed for task in others), apart)
    found = _of_sums(_joined(sums, share))
    return Evidence(found.delta + shift, found.changed, found.stderr, found.df, found.sums, None, apart)


def _of_sums(sums: ClusterSums) -> Evidence:
    stderr, df = sums.error()
    return Evidence(float(sums.total.sum()), sums.differing, stderr, df, sums)


def _joined(parts: Sequence[ClusterSums], share: float) -> ClusterSums:
    """Join the clusters of several tasks into one sample, where each task has the weight `share`."""
    starts = np.cumsum([0, *(int(part.stratum.max()) + 1 for part in parts)])[:-1]
    return ClusterSums(
        np.concatenate([part.total for part in parts]) * share,
        np.concatenate([part.mass for part in parts]) * share,
        np.concatenate([part.stratum + start for part, start in zip(parts, starts, strict=True)]),
    )


def drop_at_the_end(found: Evidence, time: float, level: float) -> float:
    """Return the predictive probability that all documents show a drop at `level`, from the share `time` of them."""
    z = -float(ndtri(min(max(found.p_drop, 1e-300), 1 - 1e-16)))
    return _at_the_end(z, time, level, found.changed)


def pass_at_the_end(found: Evidence, margin: float, time: float, level: float) -> float:
    """Return the predictive probability that the lower bound of all documents lies above -margin."""
    return _at_the_end((found.delta + margin) / found.error(level), time, level, found.changed)


def _at_the_end(z: float, time: float, level: float, changed: int) -> float:
    """Return the predictive probability that z exceeds the quantile of `level` when all documents are asked.

    With z at a share t of the information and a flat prior of the true difference, the last z has the mean z / √t and
    the variance (1 - t) / t (Spiegelhalter, Freedman & Blackburn 1986, Controlled Clinical Trials 7, 8). The variance
    of a document's difference is estimated from the documents that changed: Student's t with their number in place of
    the normal distribution.
    """
    needed = normal_quantile(1 - level)
    if time >= 1 - 1e-9:
        return float(z >= needed)
    distance = (z / math.sqrt(time) - needed) / math.sqrt((1 - time) / time)
    return float(stdtr(max(changed - 1, 2), distance))
