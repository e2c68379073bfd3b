"""How long `olmes data mix` takes, and how much memory, for a number of rows.

    python benchmarks/mix.py --rows 100000 --workers 2 [--data-dir MIRROR]

Rows are conversations of words drawn at random, a tenth of them copies with a few words changed. With a mirror they are
compared with the suite `dev`, otherwise with 2,000 questions made here; a hundredth of the rows holds one of these.
The cache is empty at the start, so that the index of evaluation items is built too. Memory is the largest resident set
of any process, and the sum over the processes at its largest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_rows(path: Path, rows: int, questions: list[str], seed: int) -> None:
    """Write conversations of about 150 words."""
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(20_000)]
    weights = [1 / (rank + 10) for rank in range(len(words))]
    stock = rng.choices(words, weights, k=2_000_000)
    recent: list[tuple[str, str]] = []

    def text(count: int) -> str:
        start = rng.randrange(len(stock) - count)
        piece = stock[start : start + count]
        for _ in range(count // 3):  # so that texts share no long runs of words
            piece[rng.randrange(count)] = rng.choice(words)
        return " ".join(piece)

    with path.open("w") as file:
        for number in range(rows):
            if recent and number % 10 == 0:
                question, answer = rng.choice(recent)
                said = answer.split()
                for _ in range(rng.randint(0, 3)):
                    said[rng.randrange(len(said))] = rng.choice(words)
                answer = " ".join(said)
            else:
                question, answer = text(rng.randint(10, 60)), text(rng.randint(40, 200))
                if number % 100 == 1:
                    question = f"{rng.choice(questions)} {question}"
                recent = [*recent[-999:], (question, answer)]
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
            file.write(json.dumps({"messages": turns}) + "\n")


def memory(pid: int, peaks: dict[str, float], done: threading.Event) -> None:
    """Watch the resident sets of a process and its children, in MB."""
    while not done.wait(0.2):
        sizes = []
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                try:
                    status = (folder / "status").read_text()
                    parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                if folder.name == str(pid) or parent == str(pid):
                    sizes += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")]
        peaks["largest"] = max(peaks["largest"], *sizes, 0)
        peaks["sum"] = max(peaks["sum"], sum(sizes))


def main() -> None:
    """Write the rows, mix them and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data-dir")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        rng = random.Random(1)
        questions = [" ".join(f"q{rng.randrange(5000)}" for _ in range(20)) for _ in range(2000)]
        items = [json.dumps({"task": "made", "doc_id": n, "text": text}) for n, text in enumerate(questions)]
        (folder / "items.jsonl").write_text("\n".join(items) + "\n")
        for number in range(args.sources):
            write_rows(folder / f"source{number}.jsonl", args.rows // args.sources, questions, number)
        compared = {"suites": ["dev"], "data_dir": [args.data_dir]} if args.data_dir else {"file": "items.jsonl"}
        sources = [{"path": f"source{n}.jsonl", "licence": "none", "skill": "chat"} for n in range(args.sources)]
        recipe = {"sources": sources, "decontam": compared, "filters": {"max_tokens": 4096}, "held_out": 0.01}
        (folder / "mix.yaml").write_text(json.dumps(recipe))
        command = [sys.executable, "-m", "olmes_suite.cli.main", "data", "mix", "mix.yaml", "--out", "out"]
        environment = {**os.environ, "OLMES_CACHE": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
        peaks = {"largest": 0.0, "sum": 0.0}
        done = threading.Event()
        before, start = os.times(), time.perf_counter()
        process = subprocess.Popen([*command, "--workers", str(args.workers)], cwd=folder, env=environment)
        watcher = threading.Thread(target=memory, args=(process.pid, peaks, done))
        watcher.start()
        code = process.wait()
        seconds, after = time.perf_counter() - start, os.times()
        done.set()
        watcher.join()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        size = sum(path.stat().st_size for path in folder.glob("source*.jsonl")) / 1e6
        print(f"exit {code}: {args.rows:,} rows, {size:.0f} MB, {args.workers} processes: {seconds:.1f} s,")
        print(f"{cpu:.1f} s of processor; {peaks['largest']:.0f} MB in one process, {peaks['sum']:.0f} MB in all")


if __name__ == "__main__":
    main()
