"""Aligned documents, and their differences summed over clusters: the standard error of a weighted mean difference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from olmes_suite.stats import Floats, satterthwaite


@dataclass(frozen=True, slots=True)
class Pairs:
    """The aligned documents of one task or one suite."""

    difference: Floats
    """Candidate − baseline for each document."""
    weight: Floats
    """The weight of each document in the score; the weights sum to 1."""
    stratum: npt.NDArray[np.int64]
    """The number of each document's stratum, from 0."""
    cluster: npt.NDArray[np.int64]
    """The number of each document's cluster, from 0; no cluster spans two strata."""
    binary: bool
    """Whether all scores are 0 or 1, all weights are equal, and every document is its own cluster."""

    @property
    def n(self) -> int:
        """The number of documents."""
        return len(self.difference)


@dataclass(frozen=True)
class ClusterSums:
    """The weighted differences summed over each cluster, for the variance of their total."""

    total: Floats
    """The sum of weight × difference of each cluster."""
    mass: Floats
    """The sum of the weights of each cluster."""
    stratum: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Pairs) -> ClusterSums:
        """Sum over clusters. Strata of a single cluster are joined into one (collapsed strata, Cochran § 5A.12)."""
        if (pairs.cluster[1:] > pairs.cluster[:-1]).all():  # each document is its own cluster, in order
            total, mass, stratum = pairs.weight * pairs.difference, pairs.weight, pairs.stratum
        else:
            groups, first = np.unique(pairs.cluster, return_index=True)[:2]
            number = np.searchsorted(groups, pairs.cluster)
            total = np.bincount(number, weights=pairs.weight * pairs.difference).astype(float)
            mass = np.bincount(number, weights=pairs.weight).astype(float)
            stratum = pairs.stratum[first]
        size = np.bincount(stratum)
        if (alone := np.flatnonzero(size == 1)).size:
            home = alone[0] if alone.size > 1 else (np.flatnonzero(size > 1)[:1].tolist() or [alone[0]])[0]
            stratum = np.where(size[stratum] == 1, home, stratum)
        return cls(total, mass, np.unique(stratum, return_inverse=True)[1])

    @property
    def count(self) -> int:
        """The number of clusters."""
        return len(self.total)

    @property
    def differing(self) -> int:
        """The number of clusters with a total other than 0."""
        return int((np.abs(self.total) > 1e-12 * self.mass).sum())

    def error(self) -> tuple[float, float]:
        """Return (standard error, degrees of freedom) of the sum of the totals.

        The variance of a stratum is G / (G − 1) times the sum of squared residuals of the cluster totals about their
        share of the stratum's mean. The variances of the strata are added (Miller 2024, eq. 4; Cochran 1977, ch. 5),
        with degrees of freedom by Satterthwaite's rule.
        """
        return self._error(self._residual)

    def error_of_no_difference(self) -> tuple[float, float]:
        """Return (standard error, degrees of freedom) as `error` does, for the test that the true difference is 0.

        Where all clusters of a stratum differ alike, their variance about their mean is 0, and two documents that both
        got worse would be proof. About 0, the mean that is tested, it is not.
        """
        return self._error(np.where(self._alike[self.stratum], self.total, self._residual))

    def unseen(self, q: float) -> tuple[float, float]:
        """Return how far strata without variance may lower and raise the sum of the totals, each at the level 1 − q.

        All n documents (or clusters) of such a stratum have the same difference d, but up to a share p of those that
        were not drawn may have another one: none of n shows it with the chance (1 − p)^n, which is 1 − q at the bound
        of Clopper & Pearson (1934, Biometrika 26, 404). Differences lie between −1 and 1, so that the mean is at least
        d − p (1 + d) and at most d + p (1 − d). Together, the strata without variance are one part, with their mean
        difference and effective number.
        """
        rows = self._alike[self.stratum]
        share = float(self.mass[rows].sum())
        if not share:
            return 0.0, 0.0
        mean = min(1.0, max(-1.0, float(self.total[rows].sum()) / share))
        n = share**2 / float((self.mass[rows] ** 2).sum())
        others = share * -math.expm1(math.log1p(-q) / n)
        return others * (1 + mean), others * (1 - mean)

    @cached_property
    def _residual(self) -> Floats:
        """Return the deviations of the totals from their share of their stratum's mean."""
        rate = np.bincount(self.stratum, weights=self.total) / np.bincount(self.stratum, weights=self.mass)
        return np.asarray(self.total - self.mass * rate[self.stratum])

    @cached_property
    def _alike(self) -> npt.NDArray[np.bool_]:
        """Return which strata have no variance."""
        varied = np.abs(self._residual) > 1e-12 * self.mass
        return np.bincount(self.stratum, weights=varied) == 0

    def _error(self, residual: Floats) -> tuple[float, float]:
        size = np.bincount(self.stratum)
        variance = np.bincount(self.stratum, weights=residual**2) * size / np.maximum(size - 1, 1)
        return math.sqrt(float(variance.sum())), satterthwaite(variance.tolist(), np.maximum(size - 1, 1).tolist())
