"""The cost of the evaluator besides the model: GSM8K, 1,319 documents, 8-shot, from command to recorded run.

    OLMES_DATA_DIR=MIRROR python benchmarks/overhead.py [--repeat 3] [--scaling]

Peer: `lm_eval` with its dummy model on its own `gsm8k_cot`, read from the same mirror, in the same run. Prints wall
time, processor time and peak memory of whole processes (the lowest of the repeats), and the ratios. `--scaling` runs
the mock model over 1,000 to 100,000 documents and prints the cost of each.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cost:
    """The cost of one whole process: seconds, processor seconds, peak resident memory in MB."""

    wall: float
    processor: float
    memory: float


def measure(command: list[str], env: dict[str, str]) -> Cost:
    """Run a command to its end and read what it cost from the kernel."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
        if os.waitstatus_to_exitcode(status) != 0:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)} failed:\n{log.read().decode()[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def peer_task(folder: Path, mirror: Path) -> Path:
    """lm-eval's own gsm8k_cot, its data read from the mirror."""
    import importlib.util

    found = importlib.util.find_spec("lm_eval")
    assert found is not None and found.origin is not None
    own = Path(found.origin).parent / "tasks/gsm8k/gsm8k-cot.yaml"
    data = mirror / "openai/gsm8k/main"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peer.yaml").write_text(
        f"include: {own}\ntask: peer_gsm8k_cot\ndataset_path: parquet\ndataset_name: null\n"
        f"dataset_kwargs: {{data_files: {{test: {data}/test.parquet, train: {data}/train.parquet}}}}\n"
    )
    return folder


def lowest(costs: list[Cost]) -> Cost:
    """The lowest of each figure."""
    return Cost(min(c.wall for c in costs), min(c.processor for c in costs), min(c.memory for c in costs))


def compare(mirror: Path, repeat: int, work: Path, env: dict[str, str]) -> None:
    """Ours beside lm-eval's, alternating."""
    ours = [
        sys.executable,
        "-m",
        "olmes_suite.cli.main",
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        str(mirror),
    ]
    peer = [
        sys.executable,
        "-m",
        "lm_eval",
        "run",
        "--model",
        "dummy",
        "--include_path",
        str(peer_task(work / "peer", mirror)),
        "--tasks",
        "peer_gsm8k_cot",
        "--log_samples",
        "--output_path",
    ]
    a, b = [], []
    for number in range(repeat):
        a.append(measure([*ours, "--runs", str(work / f"ours{number}")], env))
        b.append(measure([*peer, str(work / f"out{number}")], env))
    best, other = lowest(a), lowest(b)
    print(f"{'':<22}{'wall s':>9}{'cpu s':>9}{'peak MB':>9}")
    print(f"{'olmes eval, mock':<22}{best.wall:>9.2f}{best.processor:>9.2f}{best.memory:>9.0f}")
    print(f"{'lm_eval, dummy':<22}{other.wall:>9.2f}{other.processor:>9.2f}{other.memory:>9.0f}")
    ratios = (other.wall / best.wall, other.processor / best.processor, other.memory / best.memory)
    print(f"{'ratio':<22}" + "".join(f"{ratio:>8.1f}x" for ratio in ratios))


def scaling(work: Path, env: dict[str, str]) -> None:
    """Cost per document over growing sets of self-made documents."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    base = None
    print(f"\n{'documents':>10}{'wall s':>9}{'cpu s':>9}{'peak MB':>9}{'ms/document above 1':>22}")
    for n in (1, 1_000, 10_000, 100_000):
        path = work / f"scale{n}" / "openai/gsm8k/main/test.parquet"
        path.parent.mkdir(parents=True)
        rows = [
            {"question": f"A shelf holds {i} books and 3 more arrive. How many?", "answer": f"#### {i + 3}"}
            for i in range(n)
        ]
        pq.write_table(pa.Table.from_pylist(rows), path)
        command = [
            sys.executable,
            "-m",
            "olmes_suite.cli.main",
            "eval",
            "--backend",
            "mock",
            "--task",
            "gsm8k",
            "--data-dir",
            str(work / f"scale{n}"),
            "--runs",
            str(work / "scale-runs"),
        ]
        cost = measure(command, env)
        base = base or cost
        each = f"{1000 * (cost.processor - base.processor) / n:.3f}" if n > 1 else ""
        print(f"{n:>10}{cost.wall:>9.2f}{cost.processor:>9.2f}{cost.memory:>9.0f}{each:>22}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--scaling", action="store_true")
    chosen = parser.parse_args()
    mirror = Path(os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep)[0])
    work = Path(tempfile.mkdtemp(prefix="olmes-overhead-"))
    env = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "OLMES_CACHE": str(work / "cache"),
        "HF_HOME": str(work / "hf"),
    }
    try:
        if (mirror / "openai/gsm8k/main/test.parquet").is_file():
            compare(mirror, chosen.repeat, work, env)
        else:
            print("no openai/gsm8k in $OLMES_DATA_DIR: the comparison is skipped")
        if chosen.scaling:
            scaling(work, env)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
