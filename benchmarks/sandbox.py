"""How long it takes to grade HumanEval's canonical solutions 20 times over, beside one cold Python per sample.

    python benchmarks/sandbox.py --data-dir D [--samples 20] [--peer 200] [--unsafe-code]

The peer is what most graders do: a new interpreter for the program together with its tests, no isolation at all; it is
timed on `--peer` programs and scaled up. Without a mirror the sample documents are graded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from olmes_suite.scoring.tools import ToolOptions, Tools
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task


def cold(doc: dict[str, str]) -> bool:
    """The peer's verdict on the canonical solution."""
    program = f"{doc['prompt']}{doc['canonical_solution']}\n{doc['test']}\ncheck({doc['entry_point']})\n"
    return subprocess.run([sys.executable, "-I", "-c", program], capture_output=True).returncode == 0


def main() -> None:
    """Print both times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--peer", type=int, default=200)
    parser.add_argument("--unsafe-code", action="store_true")
    given = parser.parse_args()
    source = DataSource((given.data_dir,)) if given.data_dir else DataSource(sample=True)
    task = load_task(index.task_file(catalog.find("humaneval")), source)
    docs = [dict(doc) for doc in task.task_docs]
    tools = Tools(ToolOptions(unsafe_code=given.unsafe_code))
    started = time.monotonic()
    sandbox = tools.get("sandbox")
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        scores = list(
            threads.map(
                lambda doc: task.scorer.document(doc, [doc["canonical_solution"]] * given.samples, sandbox)[0].scores,
                docs,
            )
        )
    seconds = time.monotonic() - started
    programs = len(docs) * given.samples
    right = sum(score["pass_at_1"] == 1 for score in scores)
    print(f"{sandbox.rung}: {programs} programs in {seconds:.1f} s, {1000 * seconds / programs:.1f} ms each;", end=" ")
    print(f"{right} of {len(docs)} documents pass every time")
    tools.close()
    some = [docs[i % len(docs)] for i in range(given.peer)]
    started = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        passed = sum(threads.map(cold, some))
    each = (time.monotonic() - started) / len(some)
    print(
        f"cold python per sample: {1000 * each:.1f} ms each, {each * programs:.1f} s for all; "
        f"{passed} of {len(some)} pass"
    )


if __name__ == "__main__":
    main()
