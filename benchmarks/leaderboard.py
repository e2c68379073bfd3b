"""The leaderboard's limits: a board of 200 runs × 25 tasks, and 20 runs × 12 tasks × 1,000 documents.

    python benchmarks/leaderboard.py [--keep FOLDER]

Prints seconds to build (a process of its own, start included), megabytes, and, where chromium, node and playwright-core
($OLMES_NODE_MODULES) are there, milliseconds in the browser. Prompts are rendered where $OLMES_DATA_DIR has the data.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/support"))
sys.path.insert(0, str(ROOT))

from board_store import DEV, UNSEEN, Made, make  # noqa: E402

LARGE = ("tulu3_popqa", "tulu3_gsm8k", "tulu3_drop")
"""Tasks with 1,000 documents or more in one leaf: their prompts can be rendered from real data."""


def wide(runs: Path, documents: bool = True) -> None:
    """200 runs of 25 tasks in ten lineages, with 100 scored documents each."""
    tasks = [*DEV, *UNSEEN, *((f"own_task_{i}", "other") for i in range(11))]
    suites = {"dev": [t for t, _ in DEV], "unseen": [t for t, _ in UNSEEN]}
    for number in range(200):
        family, step = number // 20, number % 20
        parent = {
            "parent": f"ckpt/model-{family}-{step - 1}",
            "stage": "sft" if step < 10 else "rlvr",
            "step": step * 100,
        }
        made = Made(
            f"model-{family}-{step}-{number:08x}", f"ckpt/model-{family}-{step}", tasks, 0.3 + 0.02 * step,
            1.76e9 + number * 3600, parent if step else {}, suites, n=100, flags={"length": 0.05}, files=documents,
        )  # fmt: skip
        make(runs, made, number)


def deep(runs: Path) -> None:
    """20 runs of 12 tasks of 1,000 documents with responses of 500 characters."""
    mirrors = tuple(part for part in os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep) if part)
    tasks = [(task, "math") for task in LARGE] + [(f"own_task_{i}", "other") for i in range(9)]
    for number in range(20):
        made = Made(
            f"run-{number:02}",
            f"ckpt/model-{number}",
            tasks,
            0.3 + 0.02 * number,
            1.76e9 + number,
            n=1000,
            responses=500,
            mirrors=mirrors,
        )
        make(runs, made, number)


def measure(runs: Path, out: Path, choice: str) -> dict:
    """Build the page and open it."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "olmes_suite.cli.main", "leaderboard", "--runs", str(runs), "--out", str(out)]
    subprocess.run([*command, "--instances", choice], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    found = {"build_s": round(time.perf_counter() - started, 2), "megabytes": round(out.stat().st_size / 1e6, 2)}
    return found | browser(out)


def browser(out: Path) -> dict:
    """Milliseconds until the first paint, until the page answers, for a cell's documents, for a sort; slow frames."""
    chromium, modules = shutil.which("chromium"), os.environ.get("OLMES_NODE_MODULES", "")
    if chromium is None or shutil.which("node") is None or not (Path(modules) / "playwright-core").is_dir():
        return {"browser": "not measured: no chromium, node or $OLMES_NODE_MODULES"}
    driver = str(ROOT / "tests/leaderboard/leaderboard_browser.cjs")
    done = subprocess.run(
        ["node", driver, chromium, "speed", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "NODE_PATH": modules},
    )
    if done.returncode:
        return {"browser": done.stderr[-500:]}
    return {name: value and round(value) for name, value in json.loads(done.stdout)["seen"].items()}


def main() -> None:
    """Make both stores, build, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--keep", type=Path, help="folder for stores and pages; stores that are there are used again")
    keep = parser.parse_args().keep
    with tempfile.TemporaryDirectory() as temporary:
        folder = keep or Path(temporary)
        for name, fill, choice in (("wide", wide, "none"), ("deep", deep, "all")):
            if not (folder / name).is_dir():
                fill(folder / name)
            print(json.dumps({name: measure(folder / name, folder / f"{name}.html", choice)}), flush=True)


if __name__ == "__main__":
    main()
