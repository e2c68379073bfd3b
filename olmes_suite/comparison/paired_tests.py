"""Paired tests and intervals: two checkpoints on the same documents. Differences are candidate − baseline.

Binary scores of independent documents use the 2 × 2 table of wins and losses (McNemar, Tango). Everything else (graded
scores, documents in clusters, macro averages, suites) is a weighted mean of per-document differences with a
cluster-robust, stratified error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import bdtr, stdtr

from olmes_suite.stats import Floats, normal_quantile, satterthwaite, t_quantile

FEW = 30
"""Below so many clusters that differ, normal theory is not trusted: randomisation tests, and a guarded interval."""
MANY = 100
"""From so many differing clusters on, the interval is the plain one."""
RESAMPLES = 9_999
ENUMERATE = 14
"""Up to so many differing clusters all sign patterns are counted; above, RESAMPLES of them are drawn."""
SEED = 20_241_121


def mcnemar(wins: Any, losses: Any) -> tuple[Any, Any]:
    """Two-sided exact and mid-p values of McNemar's test; arrays of counts are taken element by element.

    McNemar 1947 (Psychometrika 12, 153); mid-p: Fagerland, Lydersen & Laake 2013 (BMC Med. Res. Methodol. 13, 91).
    """
    n, low = wins + losses, np.minimum(wins, losses)
    point = _binomial_point(low, n)
    below = bdtr(low, n, 0.5) - point
    return np.minimum(1.0, 2 * (below + point)), np.minimum(1.0, 2 * below + point)


def drop_p(wins: Any, losses: Any) -> Any:
    """One-sided mid-p value of McNemar's test for a drop: as many losses, or more, by chance."""
    n = wins + losses
    point = _binomial_point(wins, n)
    return bdtr(wins, n, 0.5) - point / 2


def _binomial_point(k: Any, n: Any) -> Any:
    """P(X = k) for n fair coins, as a difference of distribution functions."""
    k = np.asarray(k, dtype=float)
    return np.where(k > 0, bdtr(k, n, 0.5) - bdtr(np.maximum(k - 1, 0), n, 0.5), bdtr(np.zeros_like(k), n, 0.5))


def tango_lower(wins: Any, losses: Any, n: Any, z: float) -> Any:
    """Lower end of Tango's score interval for (wins − losses) / n; `z` 1.645 gives the one-sided 95 % bound.

    Tango 1998 (Statistics in Medicine 17, 891), equations 7 and 8: the δ at which the score statistic
    (wins − losses − n δ) / sqrt(n (2 q + δ (1 − δ))) equals z, where q is the probability of a loss that is likeliest
    given δ. Found by bisection, element by element.
    """
    b, c, n = np.broadcast_arrays(*(np.asarray(x, dtype=float) for x in (wins, losses, n)))
    low, high = np.full(b.shape, -1.0), (b - c) / n
    for _ in range(60):
        middle = (low + high) / 2
        linear = (2 * n - b + c) * middle - b - c
        q = (np.sqrt(np.maximum(linear**2 + 8 * n * c * middle * (1 - middle), 0)) - linear) / (4 * n)
        variance = n * np.maximum(2 * q + middle * (1 - middle), 0)
        outside = b - c - n * middle > z * np.sqrt(variance)
        low, high = np.where(outside, middle, low), np.where(outside, high, middle)
    return (low + high) / 2


@lru_cache(maxsize=4096)
def tango_bound(wins: float, losses: float, n: float, z: float) -> float:
    """`tango_lower` of three numbers: the same steps without arrays, twenty times as fast."""
    low, high = -1.0, (wins - losses) / n
    for _ in range(60):
        middle = (low + high) / 2
        linear = (2 * n - wins + losses) * middle - wins - losses
        q = (math.sqrt(max(linear**2 + 8 * n * losses * middle * (1 - middle), 0.0)) - linear) / (4 * n)
        variance = n * max(2 * q + middle * (1 - middle), 0.0)
        if wins - losses - n * middle > z * math.sqrt(variance):
            low = middle
        else:
            high = middle
    return (low + high) / 2


def tango(wins: float, losses: float, n: float, z: float) -> tuple[float, float]:
    """Both ends of Tango's score interval."""
    return tango_bound(wins, losses, n, z), -tango_bound(losses, wins, n, z)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979, Scand. J. Stat. 6, 65)."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(x) for x in out]


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values (1995, J. R. Stat. Soc. B 57, 289)."""
    order = np.argsort(p, kind="stable")[::-1]
    steps = np.asarray(p, dtype=float)[order] * len(p) / np.arange(len(p), 0, -1)
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, np.minimum.accumulate(steps))
    return [float(x) for x in out]


@dataclass(frozen=True, slots=True)
class Pairs:
    """Aligned documents of one task (or one suite)."""

    difference: Floats
    """Candidate − baseline, per document."""
    weight: Floats
    """Weight of each document in the score; they sum to 1."""
    stratum: npt.NDArray[np.int64]
    """Number of the sub-task, from 0."""
    cluster: npt.NDArray[np.int64]
    """Number of the cluster, from 0; no cluster spans two strata."""
    binary: bool
    """All scores are 0 or 1, all weights equal, and every document is a cluster of its own."""

    @property
    def n(self) -> int:
        """Documents."""
        return len(self.difference)


@dataclass(frozen=True, slots=True)
class Difference:
    """What a paired comparison says."""

    delta: float
    n: int
    wins: int
    losses: int
    stderr: float | None = None
    df: float | None = None
    ci95: tuple[float, float] | None = None
    lower: float | None = None
    """One-sided lower bound at 1 − alpha."""
    p: float | None = None
    """Two-sided."""
    p_drop: float | None = None
    """One-sided, for a drop."""
    p_exact: float | None = None
    """McNemar's exact two-sided p-value, for binary scores."""
    detectable: float | None = None
    """Smallest true difference that so many documents show with 80 % power, two-sided at 5 %: 2.8 standard errors, of
    which none is below that of a single document (or cluster) that differs."""
    method: str = "none"

    @property
    def ties(self) -> int:
        """Documents with the same score."""
        return self.n - self.wins - self.losses


def compare(pairs: Pairs, alpha: float = 0.05, resamples: int = 0) -> Difference:
    """Test and intervals of the weighted mean difference; nothing but the counts with fewer than two documents.

    Binary scores: McNemar's mid-p and Tango's interval. Others: Student's t on cluster totals, with the cluster-robust
    stratified error. Where fewer than 30 clusters differ: sign-flip randomisation (mid-p) and the guarded error of
    `_guarded`; where there are fewer than 30 clusters at all, or `resamples` are asked for, also a bootstrap-t over
    clusters, of which the wider interval is taken.
    """
    d = pairs.difference
    wins, losses = int((d > 0).sum()), int((d < 0).sum())
    delta = (wins - losses) / pairs.n if pairs.binary else float((pairs.weight * d).sum())
    start: dict[str, Any] = {"delta": delta, "n": pairs.n, "wins": wins, "losses": losses}
    if pairs.binary and pairs.n >= 2:
        return _binary(start, wins, losses, pairs.n, alpha)
    sums = ClusterSums.of(pairs)
    if sums.count < 2:
        return Difference(**start)
    return _graded(start, sums, alpha, resamples)


def _binary(start: dict[str, Any], wins: int, losses: int, n: int, alpha: float) -> Difference:
    exact, mid = mcnemar(wins, losses)
    delta = start["delta"]
    stderr = math.sqrt(max((wins + losses) / n - delta**2, 0.0) / (n - 1))
    return Difference(
        **start,
        stderr=stderr,
        df=n - 1,
        ci95=tango(wins, losses, n, normal_quantile(0.975)),
        lower=tango_bound(wins, losses, n, normal_quantile(1 - alpha)),
        p=float(mid),
        p_drop=float(drop_p(wins, losses)),
        p_exact=float(exact),
        detectable=detectable(max(stderr, 1 / n)),
        method="mcnemar",
    )


def detectable(stderr: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest true difference found with that power: (z_(1 - alpha/2) + z_power) stderr (Miller 2024, § 5)."""
    return (normal_quantile(1 - alpha / 2) + normal_quantile(power)) * stderr


@dataclass(frozen=True, slots=True)
class ClusterSums:
    """Weighted differences summed over each cluster, and what their variance is made of."""

    total: Floats
    """Sum of weight × difference of each cluster."""
    mass: Floats
    """Sum of the weights of each cluster."""
    stratum: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pairs: Pairs) -> ClusterSums:
        """Add up the clusters. Strata of one cluster each are joined into one (collapsed strata, Cochran § 5A.12)."""
        groups, first = np.unique(pairs.cluster, return_index=True)[:2]
        number = np.searchsorted(groups, pairs.cluster)
        total: Floats = np.bincount(number, weights=pairs.weight * pairs.difference).astype(float)
        mass: Floats = np.bincount(number, weights=pairs.weight).astype(float)
        stratum = pairs.stratum[first]
        size = np.bincount(stratum)
        if (alone := np.flatnonzero(size == 1)).size:
            home = alone[0] if alone.size > 1 else (np.flatnonzero(size > 1)[:1].tolist() or [alone[0]])[0]
            stratum = np.where(size[stratum] == 1, home, stratum)
        return cls(total, mass, np.unique(stratum, return_inverse=True)[1])

    @property
    def count(self) -> int:
        """Clusters."""
        return len(self.total)

    @property
    def differing(self) -> int:
        """Clusters whose total is not 0."""
        return int((np.abs(self.total) > 1e-12 * self.mass).sum())

    def error(self) -> tuple[float, float]:
        """(standard error, degrees of freedom) of the sum of the totals.

        Per stratum G / (G − 1) times the sum of squared residuals of the cluster totals about their share of the
        stratum's mean; the strata add up (Miller 2024, eq. 4; Cochran 1977, ch. 5), their degrees of freedom by
        Satterthwaite's rule.
        """
        size = np.bincount(self.stratum)
        rate = np.bincount(self.stratum, weights=self.total) / np.bincount(self.stratum, weights=self.mass)
        residual = self.total - self.mass * rate[self.stratum]
        variance = np.bincount(self.stratum, weights=residual**2) * size / np.maximum(size - 1, 1)
        return math.sqrt(float(variance.sum())), satterthwaite(variance.tolist(), np.maximum(size - 1, 1).tolist())


def _graded(start: dict[str, Any], sums: ClusterSums, alpha: float, resamples: int) -> Difference:
    delta, (stderr, df) = start["delta"], sums.error()
    few = sums.differing < FEW
    if few:
        p_drop, p = sign_flip(sums.total)
        method = "randomisation"
    else:
        p_drop = float(stdtr(df, delta / stderr)) if stderr else (0.5 if delta == 0 else float(delta > 0))
        p, method = min(1.0, 2 * min(p_drop, 1 - p_drop)), "t"
    ends = [_t_bounds(delta, stderr, df, sums, q) for q in (0.975, 1 - alpha)]
    if sums.count < FEW or resamples:
        draws = bootstrap_t(sums, resamples or RESAMPLES)
        ends = [
            _wider(end, _bootstrap_bounds(delta, stderr, draws, q))
            for end, q in zip(ends, (0.975, 1 - alpha), strict=True)
        ]
        method += "+bootstrap"
    return Difference(
        **start,
        stderr=stderr,
        df=df,
        ci95=ends[0],
        lower=ends[1][0],
        p=p,
        p_drop=p_drop,
        detectable=detectable(max(stderr, float((sums.mass**2).sum()))),
        method=method,
    )


def _t_bounds(delta: float, stderr: float, df: float, sums: ClusterSums, q: float) -> tuple[float, float]:
    wide = t_quantile(q, df) * _guarded(stderr, sums, q)
    return max(-1.0, delta - wide), min(1.0, delta + wide)


def _guarded(stderr: float, sums: ClusterSums, q: float) -> float:
    """The standard error with room for losses that have not been seen yet.

    Without one differing document an estimated error is 0 and every margin would pass. Tango's interval for pairs and
    Wilson's for proportions add z² pseudo-observations, half on either side (Agresti & Coull 1998); the same is done
    here with whole clusters of mean size, fading to nothing where MANY differ. From FEW on, what was seen also bounds
    how far a cluster moves.
    """
    size = float((sums.mass**2).sum()) / float(sums.mass.sum())
    if sums.differing >= FEW:
        size = min(size, float(np.abs(sums.total).max()))
    missing = max(0.0, 1 - sums.differing / MANY)
    return math.sqrt(stderr**2 + missing * normal_quantile(q) ** 2 * size**2)


def sign_flip(totals: Floats, resamples: int = RESAMPLES) -> tuple[float, float]:
    """(one-sided for a drop, two-sided) mid-p of the randomisation test that flips the sign of each cluster's total.

    Under the hypothesis of no difference the labels of the two runs may be exchanged in each cluster (Fisher 1935, ch.
    3; for binary scores of single documents this is McNemar's test). All patterns are counted up to 2^14, else
    `resamples` are drawn with a fixed seed; then the observed one counts as one of them.
    """
    moved = totals[totals != 0]
    if not moved.size:
        return 0.5, 1.0
    observed, size = float(moved.sum()), np.abs(moved)
    if moved.size <= ENUMERATE:
        patterns = (np.arange(2**moved.size)[:, None] >> np.arange(moved.size)) & 1
        sums = (2 * patterns - 1) @ size
    else:
        signs = np.random.default_rng(SEED).integers(0, 2, (resamples, moved.size))
        sums = np.append((2 * signs - 1) @ size, observed)
    slack = 1e-9 * float(size.sum())
    below, equal = float((sums < observed - slack).mean()), float((np.abs(sums - observed) <= slack).mean())
    p_drop = below + equal / 2
    return p_drop, min(1.0, 2 * min(p_drop, 1 - p_drop))


def bootstrap_t(sums: ClusterSums, resamples: int) -> Floats:
    """Studentised deviations of bootstrap samples of clusters, drawn within strata (Efron & Tibshirani 1993, § 12.5).

    Samples without variance are left out: shape at most (resamples,).
    """
    rng = np.random.default_rng(SEED)
    shift, variance = np.zeros(resamples), np.zeros(resamples)
    for stratum in range(int(sums.stratum.max()) + 1):
        total, mass = (x[sums.stratum == stratum] for x in (sums.total, sums.mass))
        size = len(total)
        if size < 2:
            continue
        rate = total.sum() / mass.sum()
        step = max(1, 4_000_000 // size)
        for start in range(0, resamples, step):
            rows = slice(start, min(start + step, resamples))
            drawn = rng.integers(0, size, (rows.stop - rows.start, size))
            t, m = total[drawn], mass[drawn]
            own = t.sum(axis=1) / m.sum(axis=1)
            shift[rows] += (own - rate) * mass.sum()
            variance[rows] += ((t - m * own[:, None]) ** 2).sum(axis=1) * size / (size - 1)
    kept = variance > 0
    return np.asarray(shift[kept] / np.sqrt(variance[kept]))


def _bootstrap_bounds(delta: float, stderr: float, draws: Floats, q: float) -> tuple[float, float]:
    if draws.size < 100:
        return delta, delta
    low, high = np.quantile(draws, [1 - q, q])
    return max(-1.0, delta - float(high) * stderr), min(1.0, delta - float(low) * stderr)


def _wider(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(a[0], b[0]), max(a[1], b[1])
