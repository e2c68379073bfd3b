"""Gate the demo's checkpoints twice, with all documents and until decided, and print verdicts and tokens side by side.

    python examples/demo/decide.py [--demo demo] [--pairs base:sft,sft:dpo,dpo:rlvr,sft:base]

Run examples/demo/run.py first. A pair is BASELINE:CANDIDATE, by the name of the stage.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import olmes_suite as olmes

ROOT = Path(__file__).resolve().parent
SUITE = "suite: sums\nabout: the demo's held-out sums\ntasks:\n  - {task: demo_sums, skill: math}\n"
MARGIN = 3.0
"""Points: with 500 documents the margin of 1 point is out of reach for most pairs."""


def tokens(run: olmes.Evaluated) -> float:
    """Return the tokens that a run generated."""
    return sum(
        task.tokens.total * task.answers.n for task in run.results.tasks.values() if task.tokens and task.answers
    )


def main() -> None:
    """Print a line per pair."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("demo"))
    parser.add_argument("--pairs", default="base:sft,sft:dpo,dpo:rlvr,sft:base")
    chosen = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    out = chosen.demo / "decided"
    out.mkdir(exist_ok=True)
    suite = out / "sums.yaml"
    suite.write_text(SUITE, encoding="utf-8")

    def ask(name: str, **more: object) -> olmes.Evaluated:
        model = chosen.demo / "base" if name == "base" else chosen.demo / "checkpoints" / name
        return olmes.evaluate(
            model, suite=str(suite), backend="hf", include_path=ROOT / "tasks", data_dir=chosen.demo / "data", **more
        )

    print("baseline  candidate  all documents           until decided           documents   tokens    of all")
    for baseline, candidate in (pair.split(":") for pair in chosen.pairs.split(",")):
        before, after = ask(baseline, runs=out / "full"), ask(candidate, runs=out / "full")
        stopped = ask(
            candidate, runs=out / "stopped", until_decided=True, baseline=before.path, config={"margin": MARGIN}
        )
        full = olmes.gate(before.path, after.path, margin=MARGIN)
        record = stopped.results.stopped
        assert record is not None
        asked, whole = tokens(stopped), tokens(after)
        print(
            f"{baseline:<9} {candidate:<10} {full.verdict:<23} {record.verdict:<23} "
            f"{record.documents:>4} of {record.of:<4} {asked:>8,.0f} {whole:>9,.0f}"
        )


if __name__ == "__main__":
    main()
