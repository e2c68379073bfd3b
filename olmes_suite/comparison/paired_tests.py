"""Paired tests and intervals for two checkpoints on the same documents. Differences are candidate − baseline.

Binary scores of independent documents use the 2 × 2 table of wins and losses (McNemar, Tango). Graded scores, documents
in clusters, macro averages and suites use a weighted mean of per-document differences with a cluster-robust, stratified
error.
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

from olmes_suite.comparison.clusters import ClusterSums, Pairs
from olmes_suite.stats import Floats, normal_quantile, t_quantile

FEW = 30
"""With fewer differing clusters, normal theory is unreliable: randomisation tests and a guarded interval are used."""
MANY = 100
"""From this number of differing clusters on, the interval is not guarded."""
RESAMPLES = 9_999
ENUMERATE = 14
"""Up to this number of differing clusters all sign patterns are counted; above it, RESAMPLES of them are drawn."""
SEED = 20_241_121


Counts = float | npt.NDArray[Any]
"""A count, or an array of counts for element-wise results."""


def mcnemar(wins: Counts, losses: Counts) -> tuple[Any, Any]:
    """Return the two-sided exact and mid-p values of McNemar's test.

    McNemar 1947 (Psychometrika 12, 153); mid-p: Fagerland, Lydersen & Laake 2013 (BMC Med. Res. Methodol. 13, 91).
    """
    n, low = wins + losses, np.minimum(wins, losses)
    point = _binomial_point(low, n)
    below = bdtr(low, n, 0.5) - point
    return np.minimum(1.0, 2 * (below + point)), np.minimum(1.0, 2 * below + point)


def drop_p(wins: Counts, losses: Counts) -> Any:
    """Return the one-sided mid-p value of McNemar's test for a drop: the chance of at least as many losses."""
    n = wins + losses
    point = _binomial_point(wins, n)
    return bdtr(wins, n, 0.5) - point / 2


def _binomial_point(k: Counts, n: Counts) -> Any:
    """Return P(X = k) for n fair coins, as a difference of distribution functions."""
    k = np.asarray(k, dtype=float)
    return np.where(k > 0, bdtr(k, n, 0.5) - bdtr(np.maximum(k - 1, 0), n, 0.5), bdtr(np.zeros_like(k), n, 0.5))


def tango_lower(wins: Counts, losses: Counts, n: Counts, z: float) -> Any:
    """Return the lower end of Tango's score interval for (wins − losses) / n; `z` 1.645 gives the one-sided 95 % bound.

    Tango 1998 (Statistics in Medicine 17, 891), equations 7 and 8: the δ at which the score statistic
    (wins − losses − n δ) / sqrt(n (2 q + δ (1 − δ))) equals z, where q is the likeliest probability of a loss given δ.
    Computed by bisection, element by element.
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
    """Return `tango_lower` of three numbers, by the same steps without arrays, twenty times as fast."""
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
    """Return both ends of Tango's score interval."""
    return tango_bound(wins, losses, n, z), -tango_bound(losses, wins, n, z)


def holm(p: Sequence[float]) -> list[float]:
    """Return Holm's step-down adjusted p-values (Holm 1979, Scand. J. Stat. 6, 65)."""
    order = np.argsort(p, kind="stable")
    steps = np.asarray(p, dtype=float)[order] * np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return [float(x) for x in adjusted]


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Return Benjamini and Hochberg's adjusted p-values (1995, J. R. Stat. Soc. B 57, 289)."""
    order = np.argsort(p, kind="stable")[::-1]
    steps = np.asarray(p, dtype=float)[order] * len(p) / np.arange(len(p), 0, -1)
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(steps))
    return [float(x) for x in adjusted]


@dataclass(frozen=True, slots=True)
class Difference:
    """The result of a paired comparison."""

    delta: float
    n: int
    wins: int
    losses: int
    stderr: float | None = None
    df: float | None = None
    ci95: tuple[float, float] | None = None
    lower: float | None = None
    """The one-sided lower bound at 1 − alpha."""
    p: float | None = None
    """The two-sided p-value."""
    p_drop: float | None = None
    """The one-sided p-value for a drop."""
    p_exact: float | None = None
    """McNemar's exact two-sided p-value, for binary scores."""
    detectable: float | None = None
    """The smallest true difference that is detected with 80 % power, two-sided at 5 %: 2.8 standard errors, where the
    standard error is at least that of a single differing document or cluster."""
    method: str = "none"

    @property
    def ties(self) -> int:
        """The number of documents with equal scores."""
        return self.n - self.wins - self.losses


def compare(pairs: Pairs, alpha: float = 0.05, resamples: int = 0) -> Difference:
    """Test the weighted mean difference and return its intervals, or only the counts for fewer than two documents.

    Binary scores use McNemar's mid-p and Tango's interval. Other scores use Student's t on cluster totals with the
    cluster-robust stratified error. Where fewer than 30 clusters differ, they use sign-flip randomisation (mid-p) and
    the guarded error of `_guarded`. Where there are fewer than 30 clusters, or `resamples` is set, the interval is the
    wider one of this and of a bootstrap-t over clusters.
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
    """Return the smallest detectable difference: (z_(1 - alpha/2) + z_power) stderr (Miller 2024, § 5)."""
    return (normal_quantile(1 - alpha / 2) + normal_quantile(power)) * stderr


def _graded(start: dict[str, Any], sums: ClusterSums, alpha: float, resamples: int) -> Difference:
    delta, (stderr, df) = start["delta"], sums.error()
    few = sums.differing < FEW
    if few:
        p_drop, p = sign_flip(sums.total)
        method = "randomisation"
    else:
        p_drop = t_drop(delta, sums)
        p, method = min(1.0, 2 * min(p_drop, 1 - p_drop)), "t"
    ends = [t_bounds(delta, stderr, df, sums, q) for q in (0.975, 1 - alpha)]
    if sums.count < FEW or resamples:
        draws = bootstrap_t(sums, resamples or RESAMPLES)
        ends = [
            _wider(end, bootstrap_bounds(delta, stderr, draws, q))
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


def t_drop(delta: float, sums: ClusterSums) -> float:
    """Return the one-sided p-value of Student's test for a drop; at least one document must differ."""
    stderr, df = sums.error_of_no_difference()
    return float(stdtr(df, delta / stderr))


def error_for_test(sums: ClusterSums, alpha: float) -> float:
    """Return the standard error for a test of no difference by normal theory, with room where few clusters differ.

    Unlike bounds it has no room for strata without variance, which show no difference.
    """
    stderr, df = sums.error_of_no_difference()
    error = _guarded(stderr, sums, 1 - alpha)
    if sums.count >= FEW:
        return error
    low = bootstrap_bounds(0.0, sums.error()[0], bootstrap_t(sums, RESAMPLES), 1 - alpha)[0]
    return max(error, -low / t_quantile(1 - alpha, df))


def t_bounds(delta: float, stderr: float, df: float, sums: ClusterSums, q: float) -> tuple[float, float]:
    """Return the ends of Student's interval with the guarded error, each at the one-sided level 1 − q.

    Strata without variance widen it where the guard does not: their distances and Student's are added as their squares
    (MOVER: Zou & Donner 2008, Statist. Med. 27, 1693-1702).
    """
    plain, wide = (t_quantile(q, df) * error for error in (stderr, _guarded(stderr, sums, q)))
    below, above = (max(wide, math.hypot(plain, unseen)) if unseen else wide for unseen in sums.unseen(q))
    return max(-1.0, delta - below), min(1.0, delta + above)


def _guarded(stderr: float, sums: ClusterSums, q: float) -> float:
    """Return the standard error with room for losses that have not been observed.

    Without a differing document the estimated error is 0 and every margin would pass. Tango's interval for pairs and
    Wilson's for proportions add z² pseudo-observations, half on either side (Agresti & Coull 1998). Here whole clusters
    of mean size are added, fewer with every differing cluster and none from MANY on. From FEW on, their size is also
    bounded by the largest observed total.
    """
    size = float((sums.mass**2).sum()) / float(sums.mass.sum())
    if sums.differing >= FEW:
        size = min(size, float(np.abs(sums.total).max()))
    missing = max(0.0, 1 - sums.differing / MANY)
    return math.sqrt(stderr**2 + missing * normal_quantile(q) ** 2 * size**2)


def sign_flip(totals: Floats, resamples: int = RESAMPLES) -> tuple[float, float]:
    """Return the mid-p values (one-sided for a drop, two-sided) of the sign-flip randomisation test on cluster totals.

    Under the hypothesis of no difference the labels of the two runs may be exchanged in each cluster (Fisher 1935, ch.
    3; for binary scores of single documents this is McNemar's test). Up to 2^14 patterns are all counted. Otherwise
    `resamples` patterns are drawn with a fixed seed, and the observed pattern is added to them.
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
    """Return studentised deviations of bootstrap samples of clusters within strata (Efron & Tibshirani 1993, § 12.5).

    Samples without variance are left out, so that the shape is at most (resamples,).
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
            sample_rate = t.sum(axis=1) / m.sum(axis=1)
            shift[rows] += (sample_rate - rate) * mass.sum()
            variance[rows] += ((t - m * sample_rate[:, None]) ** 2).sum(axis=1) * size / (size - 1)
    varied = variance > 0
    return np.asarray(shift[varied] / np.sqrt(variance[varied]))


def bootstrap_bounds(delta: float, stderr: float, draws: Floats, q: float) -> tuple[float, float]:
    """Return the ends of the bootstrap-t interval, each at the one-sided level 1 − q."""
    if draws.size < 100:
        return delta, delta
    low, high = np.quantile(draws, [1 - q, q])
    return max(-1.0, delta - float(high) * stderr), min(1.0, delta - float(low) * stderr)


def _wider(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    return min(a[0], b[0]), max(a[1], b[1])
