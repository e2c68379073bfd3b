"""Coverage of the 95 % interval of scores that are means over several samples of few documents, by simulation.

    python benchmarks/samples.py [--simulations 10000]

Documents differ in difficulty: the probability of a right answer is drawn from a Beta distribution whose mean is the
true score. A concentration near 0 means that a model solves a document always or never, a large one that all documents
are alike. Columns: our interval, Student's t over the documents' means (value ± t stderr), and the binomial interval
over all answers (Wilson), which takes the samples of a document for independent documents.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from olmes_suite import stats

SETTINGS = ((30, 32), (30, 8), (30, 4), (60, 16))
"""Documents, samples of each."""
SCORES = (0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9)
CONCENTRATIONS = (0.1, 0.3, 1.0, 3.0, 10.0, math.inf)


NAMES = ("ours", "t", "pooled")


def draw(rng: np.random.Generator, score: float, concentration: float, size: tuple[int, int]) -> stats.Floats:
    """Draw the means of one run's documents; `size` is (documents, samples)."""
    documents, samples = size
    if math.isinf(concentration):
        chances = np.full(documents, score)
    else:
        chances = rng.beta(score * concentration, (1 - score) * concentration, documents)
    return np.asarray(rng.binomial(samples, chances) / samples, dtype=float)


def coverage(score: float, concentration: float, size: tuple[int, int], simulations: int) -> tuple[float, ...]:
    """Return the share of intervals that hold the true score: ours, Student's t, pooled answers."""
    rng = np.random.default_rng(2024)
    hits = np.zeros(3)
    for _ in range(simulations):
        values = draw(rng, score, concentration, size)
        ours = stats.mean(values.tolist(), sampled=True)
        half = stats.t_quantile(0.975, size[0] - 1) * (ours.stderr or 0.0)
        answers = size[0] * size[1]
        ends = (
            ours.ci95 or (0, 1),
            (ours.value - half, ours.value + half),
            stats.wilson(ours.value * answers, answers),
        )
        hits += [low <= score <= high for low, high in ends]
    return tuple(hits / simulations)


def main() -> None:
    """Print a line per setting, score and concentration, and the range of each column."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=10_000)
    simulations = parser.parse_args().simulations
    print(f"{'documents':>10}{'samples':>9}{'score':>7}{'concentration':>15}{'ours':>8}{'t':>8}{'pooled':>8}")
    for size in SETTINGS:
        rows = []
        for score in SCORES:
            for concentration in CONCENTRATIONS:
                row = [100 * share for share in coverage(score, concentration, size, simulations)]
                rows.append(row)
                cells = "".join(f"{cell:>8.1f}" for cell in row)
                print(f"{size[0]:>10}{size[1]:>9}{score:>7.1f}{concentration:>15.1f}{cells}", flush=True)
        low, high = np.min(rows, axis=0), np.max(rows, axis=0)
        ranges = ", ".join(f"{name} {a:.1f} to {b:.1f}" for name, a, b in zip(NAMES, low, high, strict=True))
        print(f"{size[0]} documents, {size[1]} samples: {ranges}")


if __name__ == "__main__":
    main()
