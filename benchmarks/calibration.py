"""Error rates of the gate's tests beside two rules that are in use, by simulation; and the time of a large comparison.

    python benchmarks/calibration.py [--simulations 40000]

Rules: ours (mid-p for a drop, Tango's bound for a pass), exact McNemar, a Wald bound, and "fail on a drop of 2 points".
Then averages with a part of a few documents, which often do not vary: coverage and error rates of our intervals beside
those of the standard error alone.
The last lines time `olmes compare` and `olmes gate` on 25 tasks of 10,000 documents, CLI start included, beside pandas
and scipy doing the paired tests alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from olmes_suite import stats
from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.clusters import Pairs
from olmes_suite.stats import normal_quantile, t_quantile

PEER = """
import sys, pathlib, pandas as pd
from scipy import stats
a, b = (pd.concat(map(pd.read_parquet, pathlib.Path(p, "instances").iterdir())) for p in sys.argv[1:])
both = a.merge(b, on=["task", "doc_id"])
for task, rows in both.groupby("task"):
    d = rows.score_y - rows.score_x
    stats.binomtest(int((d > 0).sum()), max(1, int((d != 0).sum()))), stats.ttest_1samp(d, 0)
"""


def rates(simulations: int) -> None:
    """One line per setting."""
    rng, z, margin = np.random.default_rng(1), normal_quantile(0.95), 0.01
    print("false alarms of an unchanged model, % | passes of a true drop of one point, %")
    print(f"{'n':>5}{'flips':>7}{'mid-p':>8}{'exact':>8}{'2 points':>10} |{'Tango':>8}{'Wald':>8}")
    for n in (50, 164, 541, 1319):
        for flips in (0.02, 0.1, 0.3):
            changed = rng.binomial(n, flips, simulations)
            wins = rng.binomial(changed, 0.5)
            losses = changed - wins
            alarm = paired_tests.drop_p(wins, losses) <= 0.05
            exact = (paired_tests.mcnemar(wins, losses)[0] <= 0.10) & (losses > wins)
            fixed = (losses - wins) / n >= 0.02
            losses = rng.binomial(n, (flips + margin) / 2, simulations)
            wins = rng.binomial(n - losses, (flips - margin) / 2 / (1 - (flips + margin) / 2))
            delta = (wins - losses) / n
            wald = delta - z * np.sqrt(((wins + losses) / n - delta**2) / n) > -margin
            tango = paired_tests.tango_lower(wins, losses, n, z) > -margin
            cells = [100 * float(x.mean()) for x in (alarm, exact, fixed, tango, wald)]
            left = f"{n:>5}{flips:>7.2f}{cells[0]:>8.1f}{cells[1]:>8.1f}{cells[2]:>10.1f}"
            print(f"{left} |{cells[3]:>8.1f}{cells[4]:>8.1f}")


def small_parts(simulations: int) -> None:
    """Print a line per setting: averages of scores, then averages of paired differences."""
    print("\n95 % intervals that cover a suite's score, %: ours | from the standard errors")
    print("tasks: 100 documents (70 right), and a group of 24 (40 right) and 4 documents")
    for rate in (0.02, 0.1, 0.3, 0.5, 0.7, 0.9):
        rng, covers = np.random.default_rng(2), np.zeros(2)
        for _ in range(simulations):
            drawn = ((rng.random(n) < p).astype(float).tolist() for n, p in ((24, 0.4), (4, rate), (100, 0.7)))
            one, few, other = (stats.mean(scores) for scores in drawn)
            found = stats.combine([stats.combine([one, few]), other])
            plain = stats.interval(found.value, found.stderr or 0.0, found.df)
            covers += [low <= (0.2 + rate / 2 + 0.7) / 2 <= high for low, high in (found.ci95 or plain, plain)]
        print(f"{100 * rate:>5.0f} right of 4 {shown(covers / simulations)}")
    print("\naverage of 11 tasks of 500 documents (10 % change) and one of n: ours | from the standard error, %")
    print("    n  lost  gained   intervals cover   a drop so large passes   passes by 2 points   significant drop")
    for n, lost, gained in (
        (5, 0.05, 0.05), (5, 0.1, 0.0), (5, 0.3, 0.0), (5, 0.5, 0.0), (30, 0.01, 0.01), (30, 0.05, 0.05),
        (30, 0.05, 0.0), (30, 0.1, 0.0), (2, 0.4, 0.4), (164, 0.01, 0.01),
    ):  # fmt: skip
        cells = small_part(n, lost, gained, simulations)
        print(f"{n:>5}{100 * lost:>6.0f}{100 * gained:>8.0f}", *(shown(cell) for cell in cells))


def small_part(n: int, lost: float, gained: float, simulations: int) -> list[np.ndarray]:
    """Return shares of simulations, ours and from the standard error: see the headings of `small_parts`."""
    sizes, rng, true = np.array([500] * 11 + [n]), np.random.default_rng(1), (gained - lost) / 12
    stratum, weight = np.repeat(np.arange(12), sizes), np.repeat(1 / 12 / sizes, sizes)
    losing, changing = (np.where(stratum < 11, a, b) for a, b in ((0.05, lost), (0.1, lost + gained)))
    counts = np.zeros((4, 2))
    for _ in range(simulations):
        chance = rng.random(len(stratum))
        difference = np.select([chance < losing, chance < changing], [-1.0, 1.0], 0.0)
        found = paired_tests.compare(Pairs(difference, weight, stratum, np.arange(len(stratum)), False))
        error = found.stderr or 0.0
        half, one_sided = (t_quantile(q, found.df) * error for q in (0.975, 0.95))
        ends = found.ci95 or (-1.0, 1.0), (found.delta - half, found.delta + half)
        lowers = np.array([found.lower or 0.0, found.delta - one_sided])
        covers = np.array([low - 1e-12 <= true <= high + 1e-12 for low, high in ends])
        drops = np.array([(found.p_drop or 0.0) <= 0.05, found.delta + one_sided <= 0])
        counts += np.array([covers, lowers > true, lowers > -0.02, drops])
    return list(counts / simulations)


def shown(pair: np.ndarray) -> str:
    """Format two shares."""
    return f"{100 * pair[0]:>9.1f} |{100 * pair[1]:>6.1f}   "


def timed(command: list[str]) -> tuple[float, float]:
    """(seconds, peak MB so far of the children) of a command."""
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def large() -> None:
    """25 tasks × 10,000 documents × 2 runs."""
    with tempfile.TemporaryDirectory() as folder:
        olmes, runs = [sys.executable, "-m", "olmes_suite.cli.main"], str(Path(folder, "runs"))
        base = np.random.default_rng(0).random((25, 10_000)) < 0.6
        for name, seed in (("a", 1), ("b", 2)):
            scores = base ^ (np.random.default_rng(seed).random(base.shape) < 0.05)
            file = Path(folder, f"{name}.jsonl")
            with file.open("w") as handle:
                for task in range(25):
                    for doc_id in range(10_000):
                        line = {"task": f"t{task}", "doc_id": doc_id, "score": int(scores[task, doc_id])}
                        if task % 2:
                            line["cluster"] = doc_id // 5
                        handle.write(json.dumps(line) + "\n")
            subprocess.run(
                [*olmes, "import", "scores", str(file), "--name", name, "--runs", runs],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        print("25 tasks x 10,000 documents x 2 runs, CLI start included")
        for what, command in (
            ("olmes compare", [*olmes, "compare", "a", "b", "--runs", runs]),
            ("olmes gate", [*olmes, "gate", "--baseline", "a", "--candidate", "b", "--runs", runs]),
            ("pandas + scipy", [sys.executable, "-c", PEER, f"{runs}/a", f"{runs}/b"]),
        ):
            timed(command)
            seconds, _ = min(timed(command) for _ in range(3))
            print(f"  {what:<16}{seconds:>6.2f} s")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=40_000)
    simulations = parser.parse_args().simulations
    rates(simulations)
    small_parts(max(1, simulations // 10))
    large()


if __name__ == "__main__":
    main()
