"""Plans and projected scores, by simulation with fixed seeds through the functions that the commands call.

    python benchmarks/deciding.py [--simulations 2000]

Prints the coverage of the 95 % intervals of projected scores, and their standard error as a share of the plain one's.
Then runs that ask until they are decided, on the sizes of the dev suite with 300 tokens per answer: verdicts of these
runs and of full ones with standard errors, the shares of tokens that half of them and that all of them take at most,
and how often the verdicts agree, all in percent. 2,000 simulations of each setting take about ten minutes.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from olmes_suite import stats
from olmes_suite.comparison import paired_tests, plan_facts, planning
from olmes_suite.comparison.alignment import Aligned
from olmes_suite.comparison.clusters import Pairs
from olmes_suite.comparison.compare import TaskComparison, compare_average
from olmes_suite.comparison.deciding import Looks, Target, chunks
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.projection import Projection, Sample, project
from olmes_suite.tasks import suites

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


MIXED = -1.0
"""In place of a share of flips: 2 % in every other task, and 20 % in the others."""
GATES: tuple[tuple[float, float, str], ...] = (
    (0.02, 0.0, ""), (0.10, 0.0, ""), (0.20, 0.0, ""), (0.02, 0.01, ""), (0.10, 0.01, ""), (0.20, 0.01, ""),
    (MIXED, 0.0, ""), (MIXED, 0.01, ""), (0.10, 0.03, ""), (0.10, 0.05, ""),
    *((0.10, 0.10, f"tulu3_{name}") for name in ("humaneval", "ifeval", "truthfulqa", "gsm8k", "safety", "mmlu")),
)  # fmt: skip
"""Share of documents that flip, true drop, and the one task that drops; all drop without one."""


@lru_cache(maxsize=1)
def suite() -> tuple[list[planning.Candidate], list[planning.Allocation], Rules]:
    """Return the tasks of the dev suite as means over documents, its chunks, and the default rules."""
    facts = plan_facts.gather(suites.load("dev"), None)
    tasks = [replace(task, whole=None, variance=planning.WORST) for task in facts.tasks]
    tasks = plan_facts.of_difference(tasks, 0.10)
    return tasks, planning.chunks(tasks), Rules()


def compared(
    tasks: Sequence[planning.Candidate],
    counts: Mapping[str, int],
    drawn: dict[str, stats.Floats],
    *,
    full: bool = False,
) -> list[TaskComparison]:
    """Return the comparisons after a chunk; `drawn` are the differences of all documents."""
    found = []
    none = np.zeros(0)
    for task in tasks:
        asked = tuple(counts[leaf] for leaf in task.leaves)
        rows, stratum, weight = layout(task.name, tuple(task.leaves.values()), asked, task.macro)
        pairs = Pairs(drawn[task.name][rows], weight, stratum, np.arange(len(rows)), bool(np.ptp(weight) < 1e-15))
        aligned = Aligned((), stratum, rows, none, none, pairs, 0, 0, none.astype(bool))
        difference = paired_tests.compare(pairs) if full else None
        found.append(TaskComparison(task.name, "other", difference=difference, aligned=aligned))
    return found


@lru_cache(maxsize=500)
def layout(name: str, sizes: tuple[int, ...], asked: tuple[int, ...], macro: bool) -> tuple[Any, Any, Any]:
    """Return the rows that are asked, their strata and their weights."""
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    stratum = np.repeat(np.arange(len(sizes)), asked)
    rows = np.concatenate([np.arange(at, at + n) for at, n in zip(starts, asked, strict=True)])
    shares = np.full(len(sizes), 1 / len(sizes)) if macro else np.array(sizes) / sum(sizes)
    return rows, stratum, (shares / np.array(asked))[stratum]


def decide(rng: np.random.Generator, flips: float, drop: float, only: str) -> tuple[str, float, str]:
    """Return the verdict of a run until it is decided, its share of the tokens, and the verdict of the full run."""
    tasks, plans, rules = suite()
    drawn = {}
    for number, task in enumerate(tasks):
        lost = drop if only in ("", task.name) else 0.0
        share, chance = max((0.02, 0.2)[number % 2] if flips == MIXED else flips, lost), rng.random(task.size)
        drawn[task.name] = (chance < share).astype(float) - 2.0 * (chance < (share + lost) / 2)
    targets = [
        Target(task.name, rules.margin, False, float((task.shares**2 / list(task.leaves.values())).sum()))
        for task in tasks
    ]
    looks = Looks(rules, targets)
    for counts in chunks(plans, looks):
        looks.look(compared(tasks, counts, drawn))
    cost = {leaf: task.cost for task in tasks for leaf in task.leaves}
    tokens = sum(cost[leaf] * n for leaf, n in counts.items())
    whole = compared(tasks, {leaf: n for task in tasks for leaf, n in task.leaves.items()}, drawn, full=True)
    differences = [task.difference for task in whole] + [compare_average(whole)]
    p = paired_tests.holm([d.p_drop or 0.0 for d in differences if d is not None])
    passes = [d is not None and d.lower is not None and d.lower > -rules.margin for d in differences]
    red = any(value <= rules.alpha and not ok for value, ok in zip(p, passes, strict=True))
    return looks.last.verdict, tokens / plans[-1].tokens, "fail" if red else "pass" if passes[-1] else "inconclusive"


def gates(simulations: int, settings: Sequence[tuple[float, float, str]] = GATES) -> Iterator[dict[str, Any]]:
    """Yield the results of each setting: shares of verdicts, median share of tokens, share of agreement."""
    for flips, drop, only in settings:
        rng = np.random.default_rng(2024)
        runs = [decide(rng, flips, drop, only) for _ in range(simulations)]
        yield {
            "flips": flips, "drop": drop, "task": only,
            **{f"{verdict}": sum(run[0] == verdict for run in runs) / simulations for verdict in ("pass", "fail")},
            **{f"full {verdict}": sum(run[2] == verdict for run in runs) / simulations for verdict in ("pass", "fail")},
            "tokens": float(np.median([run[1] for run in runs])), "most": max(run[1] for run in runs),
            "agree": sum(run[0] == run[2] for run in runs) / simulations, "simulations": simulations,
        }  # fmt: skip


def main() -> None:
    """Print a line per setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=2000)
    parser.add_argument("--gates", type=int, default=2000, help="simulated runs until decided, of each setting")
    arguments = parser.parse_args()
    simulations = arguments.simulations
    print("task      documents  asked  score  flips  coverage  error / plain")
    for setting in SETTINGS if simulations else ():
        covered, ratio = coverage(setting, simulations)
        kind, size, share, score, flips = setting
        print(
            f"{kind:<9} {size:>9,} {100 * share:>4.0f} % {100 * score:>6.0f} {100 * flips:>4.0f} % "
            f"{100 * covered:>7.1f} % {ratio:>14.2f}"
        )
    print("\nflips  drop  task            pass       fail       full: pass  fail       tokens  most   agree")
    for row in gates(arguments.gates):
        flips = "mixed" if row["flips"] == MIXED else f"{100 * row['flips']:.0f} %"
        shares = (shown(row[name], row["simulations"]) for name in ("pass", "fail", "full pass", "full fail"))
        print(
            f"{flips:>5} {100 * row['drop']:>5.0f}  {row['task'].removeprefix('tulu3_') or 'all':<14}",
            *(f"{share:>10}" for share in shares),
            f"{100 * row['tokens']:>7.1f} {100 * row['most']:>6.1f} {100 * row['agree']:>6.1f}",
            flush=True,
        )


def shown(share: float, simulations: int) -> str:
    """Format a share with its standard error, in percent."""
    return f"{100 * share:.1f} ±{100 * math.sqrt(share * (1 - share) / simulations):.1f}"


if __name__ == "__main__":
    main()
