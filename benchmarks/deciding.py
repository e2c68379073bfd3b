"""Plans and projected scores, by simulation with fixed seeds through the functions that the commands call.

    python benchmarks/deciding.py [--simulations 2000]

Prints the coverage of the 95 % intervals of projected scores, and their standard error as a share of the plain one's.
"""

from __future__ import annotations

import argparse
import itertools
import math

import numpy as np

from olmes_suite import stats
from olmes_suite.comparison.projection import Projection, Sample, project

SETTINGS: tuple[tuple[str, int, float, float, float], ...] = (
    ("binary", 2500, 0.02, 0.5, 0.10),
    ("binary", 1319, 0.04, 0.8, 0.10),
    ("binary", 5000, 0.02, 0.5, 0.10),
    ("binary", 1000, 0.10, 0.5, 0.02),
    ("binary", 5000, 0.10, 0.5, 0.02),
    ("binary", 5000, 0.10, 0.5, 0.10),
    ("binary", 5000, 0.10, 0.5, 0.20),
    ("binary", 541, 0.50, 0.8, 0.20),
    ("graded", 2500, 0.02, 0.5, 0.10),
    ("graded", 817, 0.20, 0.5, 0.10),
    ("clusters", 9536, 0.02, 0.6, 0.10),
    ("clusters", 9536, 0.10, 0.6, 0.10),
    ("macro", 14042, 0.02, 0.6, 0.10),
    ("macro", 14042, 0.04, 0.6, 0.02),
    ("macro", 14042, 0.10, 0.6, 0.10),
    ("micro", 6511, 0.05, 0.6, 0.10),
)
"""Kind of task, documents, share asked, the baseline's score, share of documents that flip at a score of 50."""


def population(
    rng: np.random.Generator, kind: str, size: int, score: float, flips: float
) -> tuple[stats.Floats, stats.Floats]:
    """Draw both models' scores of all documents; a share 4 f p (1 - p) flips, so that the score is kept."""
    if kind == "graded":
        ability = rng.normal(0, 1, size)
        noise = math.sqrt(1 / (1 - 2 * flips) ** 2 - 1)
        one, other = (ability + rng.normal(0, noise**0.5 if noise else 0, size) for _ in range(2))
        return 1 / (1 + np.exp(-one)), 1 / (1 + np.exp(-other))
    if kind == "clusters":
        passage = np.repeat(rng.beta(score * 2, (1 - score) * 2, size // 16 + 1), 16)[:size]
        before = (rng.random(size) < passage).astype(float)
        flipping = np.repeat(rng.gamma(0.5, 2.0, size // 16 + 1), 16)[:size]  # whole passages change more than others
    else:
        before, flipping = (rng.random(size) < score).astype(float), np.ones(size)
    chance = np.where(before == 1, 2 * flips * (1 - score), 2 * flips * score) * flipping
    return before, np.where(rng.random(size) < chance, 1 - before, before)


def strata(kind: str, size: int, share: float) -> tuple[stats.Floats, np.ndarray, np.ndarray]:
    """Return the weight, the documents and the number to ask of each stratum."""
    if kind not in ("macro", "micro"):
        return np.ones(1), np.array([size]), np.array([max(2, round(share * size))])
    rng = np.random.default_rng(7)
    sizes = np.maximum(20, (rng.dirichlet(np.full(57 if kind == "macro" else 27, 2.0)) * size).astype(int))
    if kind == "macro":
        weight = np.full(len(sizes), 1 / len(sizes))
        asked = np.clip(np.full(len(sizes), round(share * size / len(sizes))), 2, sizes)
    else:
        weight = sizes / sizes.sum()
        asked = np.clip(np.round(share * sizes * rng.uniform(0.5, 2, len(sizes))).astype(int), 2, sizes)
    return weight, sizes, asked


def draw(rng: np.random.Generator, setting: tuple[str, int, float, float, float]) -> tuple[Projection, float, float]:
    """Return a projection, the true score on all documents, and the standard error of the plain score."""
    kind, size, share, score, flips = setting
    weight, sizes, asked = strata(kind, size, share)
    before, after = population(rng, kind, int(sizes.sum()), score, flips)
    start = np.concatenate([[0], np.cumsum(sizes)])
    rows = [rng.choice(n, k, replace=False) + at for n, k, at in zip(sizes, asked, start, strict=False)]
    parts = [slice(*ends) for ends in itertools.pairwise(start)]
    chosen, number = np.concatenate(rows), np.repeat(np.arange(len(sizes)), asked)
    sample = Sample(
        before[chosen], after[chosen], number, sizes, weight, np.array([before[part].mean() for part in parts])
    )
    truth = float(sum(w * after[part].mean() for w, part in zip(weight, parts, strict=True)))
    plain = math.sqrt(sum(w**2 * after[part].var(ddof=1) / k for w, part, k in zip(weight, parts, asked, strict=True)))
    return project(sample), truth, plain


def coverage(setting: tuple[str, int, float, float, float], simulations: int, seed: int = 2024) -> tuple[float, float]:
    """Return the share of intervals that hold the score on all documents, and the ratio of the standard errors."""
    rng = np.random.default_rng(seed)
    hits, projected, plain = 0, 0.0, 0.0
    for _ in range(simulations):
        found, truth, error = draw(rng, setting)
        hits += found.ci95[0] - 1e-12 <= truth <= found.ci95[1] + 1e-12
        projected, plain = projected + found.stderr**2, plain + error**2
    return hits / simulations, math.sqrt(projected / plain)


def main() -> None:
    """Print a line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    simulations = parser.parse_args().simulations
    print("task      documents  asked  score  flips  coverage  error / plain")
    for setting in SETTINGS:
        covered, ratio = coverage(setting, simulations)
        kind, size, share, score, flips = setting
        print(
            f"{kind:<9} {size:>9,} {100 * share:>4.0f} % {100 * score:>6.0f} {100 * flips:>4.0f} % "
            f"{100 * covered:>7.1f} % {ratio:>14.2f}"
        )


if __name__ == "__main__":
    main()
