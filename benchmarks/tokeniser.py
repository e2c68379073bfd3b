"""The speed of decontamination's compiled tokeniser, and beside it that of another checkout of this repository.

    python benchmarks/tokeniser.py --train FOLDER [--beside CHECKOUT] [--megabytes 300] [--repeat 7]

FOLDER ($OLMES_TRAIN_DATA) holds parquet files with `messages`, whose texts are repeated until they have that many
megabytes (10^6 bytes). Each checkout tokenises the same texts in one process; the processes take turns, repetition by
repetition, and their checksums must be equal. Numbers are processor seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

WORKER = r"""
import sys, time
import numba, numpy as np
from decontam.text import ascii_blocks, tokens
from decontam.text.characters import hash_tokens
data, ends = np.fromfile(sys.argv[1], np.uint8), np.fromfile(sys.argv[2], np.int64)
chars, buffers = tokens.character_table(normalized=False), ascii_blocks.buffers()
@numba.njit
def tokenise(data, ends, chars, prefix, buffers):
    checksum = np.uint64(0)
    for k in range(len(ends)):
        i, wrong = (ends[k - 1] if k else 0), 0
        while i < ends[k] and wrong == 0:
            i, count, wrong = hash_tokens(data, i, ends[k], chars, prefix, 0, buffers)
            checksum = checksum * np.uint64(3) + prefix[count]
    return checksum
prefix = np.zeros(4096, np.uint64)
tokenise(data, ends[:1], chars, prefix, buffers)
print("ready", flush=True)
for _ in sys.stdin:
    start = time.process_time()
    checksum = tokenise(data, ends, chars, prefix, buffers)
    print(time.process_time() - start, checksum, flush=True)
"""


def write_texts(folder: Path, out: Path, size: int) -> int:
    """Write the texts, and where each ends, to files for the workers; return the number of bytes."""
    tables = [pq.read_table(path, columns=["messages"])["messages"] for path in sorted(folder.glob("*.parquet"))]
    texts = [turn["content"].encode() for table in tables for row in table.to_pylist() for turn in row]
    texts *= -(-size // sum(map(len, texts)))
    ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
    (out / "texts").write_bytes(b"".join(texts))
    ends.tofile(out / "ends")
    return int(ends[-1])


def start(checkout: Path, folder: Path) -> subprocess.Popen[str]:
    """Start the worker of a checkout and wait until it has compiled."""
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(folder / "texts"), str(folder / "ends")], cwd=checkout, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(checkout)},
    )  # fmt: skip
    answer(worker)
    return worker


def answer(worker: subprocess.Popen[str]) -> list[str]:
    """Read one line of a worker. Ends the program where the worker has failed."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise SystemExit("a worker ended before its measurement; its error is above")
    return line.split()


def measure(worker: subprocess.Popen[str]) -> tuple[float, str]:
    """Let a worker tokenise all texts once: (processor seconds, checksum)."""
    assert worker.stdin is not None
    print(file=worker.stdin, flush=True)
    seconds, checksum = answer(worker)
    return float(seconds), checksum


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, default=os.environ.get("OLMES_TRAIN_DATA"))
    parser.add_argument("--beside", type=Path, help="another checkout of this repository")
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    if options.train is None:
        print("no training data named (--train FOLDER or $OLMES_TRAIN_DATA): nothing to measure")
        return
    checkouts = [Path(__file__).resolve().parent.parent, *([options.beside.resolve()] if options.beside else [])]
    with tempfile.TemporaryDirectory() as temporary:
        size = write_texts(options.train, Path(temporary), options.megabytes * 1_000_000)
        workers = [start(checkout, Path(temporary)) for checkout in checkouts]
        rounds = [[measure(worker) for worker in workers] for _ in range(options.repeat)]
        for worker in workers:
            worker.kill()
            worker.wait()
    if len({checksum for one_round in rounds for _, checksum in one_round}) > 1:
        raise SystemExit("the checkouts give different tokens")
    medians = [statistics.median(one_round[n][0] for one_round in rounds) for n in range(len(checkouts))]
    for checkout, seconds in zip(checkouts, medians, strict=True):
        print(f"{checkout}: {seconds:.3f} s for {size / 1e6:.0f} MB, {size / 1e6 / seconds:.0f} MB/s")
    if options.beside:
        print(f"this checkout takes {medians[0] / medians[1]:.2f} times as long")


if __name__ == "__main__":
    main()
