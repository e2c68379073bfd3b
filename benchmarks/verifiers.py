"""How long 1,000 MATH verdicts take in worker processes, beside one process with the same scorer, and math-verify.

    python benchmarks/verifiers.py --data-dir D [--workers 2] [--verdicts 1000] [--responses scores.jsonl]

The responses are solutions of MATH's test split: half of them a problem's own, half those of its neighbour in the same
subject, whose answer is as long and almost always wrong. `--responses` adds recorded outputs, JSON lines {"task",
"doc_id", "response"}, and so many fewer solutions. Prints seconds, and processor seconds of all processes, start apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from train_plugins.verifiers import Call, Verifiers


def calls_of(data_dir: Path, number: int, recorded: Path | None) -> list[Call]:
    """`number` calls, the same on every machine."""
    subjects = {
        leaf: list(load_task(index.task_file(catalog.find(leaf)), DataSource((data_dir,))).task_docs)
        for leaf in catalog.find("math").leaves
    }
    calls = []
    for line in recorded.read_text(encoding="utf-8").splitlines() if recorded else []:
        row = json.loads(line)
        if row["task"] in subjects and "response" in row:
            calls.append(Call("math_benchmark", row["response"], subjects[row["task"]][row["doc_id"]]["solution"], {}))
    position = 0
    while len(calls) < number:
        for docs in subjects.values():
            doc, neighbour = docs[position % len(docs)], docs[(position + 1) % len(docs)]
            calls += [Call("math_benchmark", one["solution"], doc["solution"], {}) for one in (doc, neighbour)]
        position += 1
    return calls[:number]


def processor_seconds() -> float:
    """Return the processor seconds of this process and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


_ALONE = """
import json, sys, time
from olmes_suite.tasks.index import tasks_folder
from olmes_suite.evaluation.scoring_worker import scorer_at
score = scorer_at(str(tasks_folder() / "math" / "task.py"), "score")
score.one({"solution": r"\\boxed{1}"}, "Final Answer: The final answer is $2$. I hope it is correct.")
calls = json.load(sys.stdin)
wall, cpu = time.monotonic(), time.process_time()
verdicts = [score.one({"solution": truth}, response).scores["exact_match_flex"] for response, truth in calls]
print(json.dumps([verdicts, time.monotonic() - wall, time.process_time() - cpu]))
"""
_MATH_VERIFY = """
import json, sys, time
from math_verify import parse, verify
verify(parse("$1$"), parse("$2$"))
calls = json.load(sys.stdin)
wall, cpu = time.monotonic(), time.process_time()
verdicts = [float(verify(parse(truth), parse(response))) for response, truth in calls]
print(json.dumps([verdicts, time.monotonic() - wall, time.process_time() - cpu]))
"""


def alone(program: str, calls: list[Call]) -> tuple[list[float], float, float] | None:
    """Verdicts, seconds and processor seconds of one process without workers; None where its package is missing."""
    asked = json.dumps([[call.response, call.truth] for call in calls])
    done = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, text=True)
    if done.returncode:
        return None
    verdicts, wall, cpu = json.loads(done.stdout)
    return verdicts, wall, cpu


def main() -> None:
    """Print the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--verdicts", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--responses", type=Path)
    given = parser.parse_args()
    calls = calls_of(given.data_dir, given.verdicts, given.responses)
    before = processor_seconds()
    started = time.monotonic()
    with Verifiers(["math_benchmark"], given.workers, 10.0) as verifiers:
        begun = time.monotonic()
        ours = verifiers.verify(calls)
        wall = time.monotonic() - begun
    cpu = processor_seconds() - before
    print(f"{len(calls)} verdicts, {sum(verdict == 1 for verdict in ours)} right, {verifiers.timeouts} out of time")
    print(
        f"{given.workers} workers: {wall:.1f} s, started in {begun - started:.1f} s, {cpu:.1f} processor seconds in all"
    )
    for name, program in (("the task's scorer, one process", _ALONE), ("math-verify, one process", _MATH_VERIFY)):
        found = alone(program, calls)
        if found is None:
            print(f"{name}: not installed")
            continue
        same = sum(theirs == mine for theirs, mine in zip(found[0], ours, strict=True))
        print(f"{name}: {found[1]:.1f} s, {found[2]:.1f} processor seconds; {same} verdicts as ours", end="; ")
        print(f"ours takes {cpu / found[2]:.2f} of its processor seconds")


if __name__ == "__main__":
    main()
