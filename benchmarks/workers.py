"""`--workers 2` beside one engine, and Ray beside processes: wall time of answering, start-up left out.

    OLMES_DATA_DIR=MIRROR python benchmarks/workers.py [--repeat 1] [--documents 1319] [--no-ray]

A Llama of 6 million parameters answers GSM8K's questions behind 8 fixed shots, 72 new tokens each, one thread per
worker, float32; the documents are as many as keep one worker busy for 60 seconds or so. All ways are measured in
turn, and their texts compared: about 3 minutes on two idle cores, 5 on busy ones.

On a machine with other work wall time says little. So each line also has the processor seconds of every worker while
it answered, and the cores that others used meanwhile ("foreign", from /proc/stat). With foreign load near 0 read
`wall ratio`; else `busy ratio`: the processor seconds of one worker over those of the busiest of two, which is what
the wall ratio becomes when nobody else is there.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from engine import make_model, questions, rows

NEW_TOKENS = 72
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Figures:
    """One measurement: seconds, processor seconds of each worker, cores that others used, answers."""

    wall: float
    busy: list[float]
    foreign: float
    texts: list[str]


def processor(pid: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def machine() -> float:
    """Processor seconds of the whole machine so far, idle ones left out."""
    user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:9])
    return (user + nice + system + sum(rest[:2])) / TICK


def measure(kind: str, workers: int, folder: str, requests: list) -> Figures:
    """One fleet over all requests."""
    from olmes_suite.workers.engine import Recipe
    from olmes_suite.workers.fleet import Fleet
    from olmes_suite.workers.process import ProcessWorker
    from olmes_suite.workers.ray_actors import RayWorker, connect

    recipe = Recipe("hf", folder, {"device": "cpu"})
    if kind == "ray":
        _, _, leave = connect("local", workers, None)
        fleet = Fleet([partial(RayWorker, recipe, 0, workers)] * workers, kind, print, leave=leave)
    else:
        fleet = Fleet([partial(ProcessWorker, recipe, {})] * workers, kind, print)
    pids = [seat.pid for seat in fleet.seats]
    # Every worker's first pass, with what it imports: pieces have a quarter of `at_once` or more.
    first = [replace(one, max_tokens=2) for one in requests[: workers * max(1, fleet.at_once // 4)]]
    list(fleet.run(first, [[0]] * len(first)))
    before, own = [processor(pid) for pid in pids], time.process_time()
    everyone, start = machine(), time.monotonic()
    answers = sorted(fleet.run(requests, [[0]] * len(requests)), key=lambda answer: answer[0])
    wall = time.monotonic() - start
    busy = [processor(pid) - was for pid, was in zip(pids, before, strict=True)]
    foreign = (machine() - everyone - sum(busy) - (time.process_time() - own)) / wall
    fleet.close()
    return Figures(wall, busy, foreign, [response.text or "" for _, _, response in answers])


def show(name: str, found: list[Figures]) -> None:
    """Medians over the repeats."""
    wall = statistics.median(one.wall for one in found)
    busy = statistics.median(max(one.busy) for one in found)
    total = statistics.median(sum(one.busy) for one in found)
    foreign = statistics.median(one.foreign for one in found)
    print(f"{name:<14}{wall:>9.1f}{busy:>15.1f}{total:>12.1f}{foreign:>10.2f}", flush=True)


def ratio(one: list[Figures], other: list[Figures]) -> str:
    """How much longer the first takes."""
    wall = statistics.median(a.wall / b.wall for a, b in zip(one, other, strict=True))
    busy = statistics.median(max(a.busy) / max(b.busy) for a, b in zip(one, other, strict=True))
    return f"{wall:.2f}x wall, {busy:.2f}x busy"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--documents", type=int, default=1319)
    parser.add_argument("--no-ray", action="store_true")
    chosen = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    mirror = Path(os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep)[0])
    if not (mirror / "openai/gsm8k/main/train.parquet").is_file():
        print("no openai/gsm8k in $OLMES_DATA_DIR: nothing is measured")
        return
    from olmes_suite.records import Request

    settings = {"max_tokens": NEW_TOKENS, "temperature": 0.0, "stop": ("\n\nQuestion:",)}
    asked = questions("gsm8k", mirror, chosen.documents)
    requests = [Request("bench", i, 0, "generate", text=one["text"], **settings) for i, one in enumerate(asked)]
    ways = {"one worker": ("processes", 1), "two workers": ("processes", 2), "two on Ray": ("ray", 2)}
    if chosen.no_ray:
        del ways["two on Ray"]
    work = Path(tempfile.mkdtemp(prefix="olmes-workers-"))
    try:
        make_model(
            work / "model", [r["question"] + r["answer"] for r in rows(mirror, "openai/gsm8k/main/train.parquet")]
        )
        found: dict[str, list[Figures]] = {name: [] for name in ways}
        for _ in range(chosen.repeat):
            for name, (kind, workers) in ways.items():
                found[name].append(measure(kind, workers, str(work / "model"), requests))
                print(f"# {name}: {found[name][-1].wall:.1f} s", flush=True)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{len(requests)} documents{'wall s':>9}{'busiest cpu-s':>15}{'all cpu-s':>12}{'foreign':>10}")
    for name, figures in found.items():
        show(name, figures)
    one, *others = found.values()
    print(f"two workers: {ratio(one, others[0])} (aim 1.8x)")
    if len(others) > 1:
        print(f"Ray takes {ratio(others[1], others[0])} of processes' time (aim 1.10x at most)")
    for name, figures in list(found.items())[1:]:
        differ = sum(a != b for a, b in zip(one[0].texts, figures[0].texts, strict=True))
        print(f"{name}: {differ} of {len(requests)} texts differ from one worker's")


if __name__ == "__main__":
    main()
