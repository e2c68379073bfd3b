"""Error bars as pure functions of arrays of scores. Scores, standard errors and intervals are fractions from 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri, stdtrit

Z95 = 1.959963984540054
"""The 97.5 % quantile of the standard normal distribution."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its error bar. `stderr` and `ci95` are None where there is too little data."""

    value: float
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    n: float | None = None
    """The effective number of independent documents behind the value."""
    df: float | None = None
    """The degrees of freedom of the standard error."""
    room: tuple[float, float] | None = None
    """How far parts without variance widen the interval below and above the value: with the distances that follow from
    the standard error, squares add up to those of `ci95`. None without such parts."""

    def as_json(self) -> dict[str, float | list[float] | None]:
        """Return the estimate in the form used in results.json."""
        return {"value": self.value, "stderr": self.stderr, "ci95": list(self.ci95) if self.ci95 else None}


def normal_quantile(p: float) -> float:
    """Return a quantile of the standard normal distribution."""
    return float(ndtri(p))


def t_quantile(p: float, df: float | None) -> float:
    """Return a quantile of Student's t distribution, or of the normal distribution without `df`."""
    return float(ndtri(p)) if df is None or math.isinf(df) else float(stdtrit(df, p))


def wilson(successes: float, n: float, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    `n` may be fractional.
    """
    p = successes / n
    denominator = 1 + z * z / n
    centre = (p + z * z / (2 * n)) / denominator
    half = z / denominator * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # Exact at the ends, where rounding would leave 3e-18.
    return 0.0 if successes == 0 else max(0.0, centre - half), 1.0 if successes == n else min(1.0, centre + half)


def wilson_size(ends: tuple[float, float]) -> float | None:
    """Return the number of documents behind a Wilson interval of scores that are all 0 or all 1; None for no width."""
    width = ends[1] - ends[0]
    return Z95 * Z95 * (1 - width) / width if 0 < width < 1 else None


def mean(
    values: Sequence[float],
    clusters: Sequence[Hashable] | None = None,
    weights: Sequence[float] | None = None,
    *,
    sampled: bool = False,
) -> Estimate:
    """Return the mean of per-document scores with its standard error and 95 % interval.

    Independent documents have the central-limit error sqrt(var / n) with n - 1 in the variance. Documents that share a
    cluster have the cluster-robust error of Miller 2024 (arXiv 2411.00640, eq. 4) times sqrt(G / (G - 1)) for G
    clusters (CR1, as statsmodels' `cov_type="cluster"`); without the factor it is too small for few clusters. With
    `weights` (documents of different size) the value is the ratio sum(w x) / sum(w), and its error comes from the delta
    method.

    The interval of 0/1 scores of independent documents is Wilson's; see `interval` for other scores. `sampled`: scores
    are means over several samples of a document; the interval then allows for the error of its standard error.
    Raises ValueError without any score.
    """
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n == 0:
        raise ValueError("a mean needs at least one score")
    w = np.ones(n) if weights is None else np.asarray(weights, dtype=float)
    value = float((w * x).sum() / w.sum())
    groups = cluster_numbers(clusters, n)
    count = n if groups is None else int(groups.max()) + 1
    if count < 2:
        return Estimate(value, n=count)
    residual = w * (x - value)
    sums = residual if groups is None else np.bincount(groups, weights=residual)
    stderr = math.sqrt(float((sums**2).sum()) * count / (count - 1)) / float(w.sum())
    binary = bool(np.isin(x, (0.0, 1.0)).all())
    if binary and groups is None and weights is None:
        return Estimate(value, stderr, wilson(float(x.sum()), n), n, n - 1)
    bounded = bool(((x >= 0) & (x <= 1)).all())
    df = degrees_of_freedom(np.asarray(sums, dtype=float)) if sampled else count - 1
    return Estimate(value, stderr, interval(value, stderr, df, count, bounded), count, df)


def degrees_of_freedom(residuals: Floats) -> float:
    """Return the degrees of freedom of a variance that is estimated from these residuals, from 2 to their number - 1.

    For normal residuals this is n - 1. A few easy documents among many hard ones have heavier tails, so that their
    variance is known less well: its own variance is (kurtosis - 1) / n times its square (Cramér 1946, Mathematical
    Methods of Statistics, § 27.4), which is that of a chi-square with 2 n / (kurtosis - 1) degrees of freedom.
    """
    most = len(residuals) - 1
    second = float(np.mean(residuals**2))
    if second == 0.0:
        return most
    kurtosis = float(np.mean(residuals**4)) / second**2
    return most if kurtosis <= 3.0 else max(2.0, 2 * most / (kurtosis - 1))


def cluster_numbers(clusters: Sequence[Hashable] | None, n: int) -> npt.NDArray[np.int64] | None:
    """Number the clusters from 0. Returns None where every document is its own cluster."""
    if clusters is None:
        return None
    numbers: dict[Hashable, int] = {}
    groups = np.array([numbers.setdefault(c, len(numbers)) for c in clusters], dtype=np.int64)
    return None if len(numbers) == n else groups


def interval(
    value: float, stderr: float, df: float | None = None, n: float | None = None, bounded: bool = True
) -> tuple[float, float]:
    """Return the 95 % interval of a mean with a standard error of `df` degrees of freedom.

    Scores from 0 to 1 get Wilson's interval for the effective sample size value (1 - value) / stderr² and Student's
    quantile (Kott & Carr 1997 and Korn & Graubard 1998 do the same for survey proportions). This interval stays inside
    [0, 1] and has the nominal coverage near the ends, where value ± t stderr does not. Scores that are all 0 or all 1
    get Wilson's interval for `n` documents. Scores of any other range get value ± t stderr.
    """
    t = t_quantile(0.975, df)
    if not bounded or not 0 <= value <= 1:
        return value - t * stderr, value + t * stderr
    if stderr == 0.0:
        return wilson(value * n, n) if n and value in (0.0, 1.0) else (value, value)
    size = value * (1 - value) / stderr**2
    return wilson(value * size, size, t) if size > 0 else (value, value)


def combine(estimates: Sequence[Estimate], weights: Sequence[float] | None = None) -> Estimate:
    """Return the weighted mean of independent estimates: macro (equal weights), micro (weights n) or a suite's average.

    The variance is that of a stratified mean, the sum of (weight share)² stderr² (Cochran 1977, Sampling Techniques,
    ch. 5), with degrees of freedom by Satterthwaite 1946. Parts of a single document have no variance: two or more of
    them form one collapsed stratum (Cochran 1977, § 5A.12), which errs on the wide side; with just one there is no
    error bar. The effective number of documents is the number for which a plain mean would have this variance if all
    documents were alike. Parts whose documents all scored 0, or all 1, have no variance either, but may have too few
    documents to show it: together they widen the interval by Wilson's for their documents (see `_room`), and so do
    parts that have such parts themselves. Raises ValueError without any estimate.
    """
    if not estimates:
        raise ValueError("a combination needs at least one estimate")
    w = np.ones(len(estimates)) if weights is None else np.asarray(weights, dtype=float)
    total = math.fsum(float(x) for x in w)
    value = math.fsum(float(x) * e.value for x, e in zip(w, estimates, strict=True)) / total
    w = w / total
    variances, dfs = [], []
    for share, estimate in zip(w, estimates, strict=True):
        if estimate.stderr is not None:
            variances.append((float(share) * estimate.stderr) ** 2)
            dfs.append(estimate.df or math.inf)
    singles = [float(share) * e.value for share, e in zip(w, estimates, strict=True) if e.stderr is None]
    if len(singles) == 1 or any(e.stderr is None and e.n != 1 for e in estimates):
        return Estimate(value)
    if singles:
        centre = math.fsum(singles) / len(singles)
        variances.append(sum((x - centre) ** 2 for x in singles) * len(singles) / (len(singles) - 1))
        dfs.append(len(singles) - 1)
    sizes = [e.n for e in estimates]
    n = 1 / sum(float(s) ** 2 / k for s, k in zip(w, sizes, strict=True) if k) if all(sizes) else None
    stderr, df = math.sqrt(sum(variances)), satterthwaite(variances, dfs)
    bounded = all(0 <= e.value <= 1 for e in estimates)
    ends = interval(value, stderr, df, None, bounded)
    if not bounded:
        return Estimate(value, stderr, ends, n, df)
    # The documents of a collapsed stratum may have one score, too.
    alike = [Estimate(e.value, 0.0, n=1) if e.stderr is None and len(set(singles)) == 1 else e for e in estimates]
    room = _room([(float(s), e) for s, e in zip(w, alike, strict=True)])
    if room is not None:
        low, high = math.hypot(value - ends[0], room[0]), math.hypot(ends[1] - value, room[1])
        ends = max(0.0, value - low), min(1.0, value + high)
    return Estimate(value, stderr, ends, n, df, room)


def _room(parts: Sequence[tuple[float, Estimate]]) -> tuple[float, float] | None:
    """Return how far parts without variance widen the interval of a weighted mean; None without such parts.

    `parts` are the estimates with their shares. Together, those whose documents all scored 0, or all 1, are one part:
    its interval is Wilson's for the effective number of documents. A combination that has such parts brings the room
    that they need in it. All distances are added as their squares (MOVER: Zou & Donner 2008, Statist. Med. 27,
    1693-1702).
    """
    below, above = [], []
    alike = [(share, e) for share, e in parts if _is_alike(e)]
    if total := math.fsum(share for share, _ in alike):
        mean_of = math.fsum(share * e.value for share, e in alike) / total
        n = total**2 / math.fsum(share**2 / e.n for share, e in alike if e.n)
        low, high = wilson(mean_of * n, n)
        below.append(total * (mean_of - low))
        above.append(total * (high - mean_of))
    for share, e in parts:
        room = e.room
        if room is None and e.stderr == 0.0 and e.ci95 and e.value not in (0.0, 1.0):  # of an older file
            room = e.value - e.ci95[0], e.ci95[1] - e.value
        if room is not None and any(room) and not _is_alike(e):
            below.append(share * room[0])
            above.append(share * room[1])
    return (math.hypot(*below), math.hypot(*above)) if below else None


def _is_alike(estimate: Estimate) -> bool:
    """Whether all documents scored 0, or all 1."""
    return estimate.stderr == 0.0 and estimate.value in (0.0, 1.0) and bool(estimate.n)


def satterthwaite(variances: Sequence[float], dfs: Sequence[float]) -> float:
    """Return the degrees of freedom of a sum of variance estimates (Satterthwaite 1946, Biometrics Bull. 2, 110)."""
    total = sum(variances)
    if total == 0:
        return sum(dfs)
    parts = sum(v * v / df for v, df in zip(variances, dfs, strict=True))
    return total * total / parts if parts else math.inf


def detectable_difference(n: int, p: float = 0.5, power: float = 0.8) -> float:
    """Return the smallest difference between two models' proportions that n items detect (5 %, two-sided, unpaired).

    Normal approximation (Fleiss 1981): (z_.975 + z_power) * sqrt(2 p (1 - p) / n).
    """
    return (Z95 + normal_quantile(power)) * math.sqrt(2 * p * (1 - p) / n)
