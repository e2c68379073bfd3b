"""Error rates of the gate's tests beside two rules that are in use, by simulation; and the time of a large comparison.

    python benchmarks/calibration.py [--simulations 40000]

Rules: ours (mid-p for a drop, Tango's bound for a pass), exact McNemar, a Wald bound, and "fail on a drop of 2 points".
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

from olmes_suite.comparison import paired_tests
from olmes_suite.stats import normal_quantile

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
    rates(parser.parse_args().simulations)
    large()


if __name__ == "__main__":
    main()
