"""How fast `olmes decontam` reads, against tokenising alone with Python's `re`, and against datatrove's filter.

    python benchmarks/decontam.py --train FOLDER [--data-dir D] [--gigabytes 2] [--peer PYTHON]

FOLDER ($OLMES_TRAIN_DATA) holds parquet files with `messages`; they are repeated until they hold that much text. The
scan keeps nothing of a row for an equal one later, so repeated text is as much work as new text. PYTHON is an
interpreter that has datatrove, whose n-gram decontamination filter then reads a sample of the same text. Megabytes are
10^6 bytes of message text, all roles; the scan is measured from parquet to report, the start of Python and of the index
apart. The factors compare processor times; other work on the machine makes those longer too, all of them in one run.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import unicodedata
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

sys.path[0] = str(Path(__file__).parent.parent)  # this file has the package's name

from decontam import report, scan  # noqa: E402
from decontam.items import items as evals  # noqa: E402
from decontam.matching import prepared_index  # noqa: E402
from decontam.matching.index import load  # noqa: E402
from decontam.matching.rule import Rule  # noqa: E402
from decontam.training_data import sources  # noqa: E402
from olmes_suite.tasks.documents import DataSource  # noqa: E402

ROLES = ("user", "assistant", "system")
SAMPLE, PEER_SAMPLE = 20_000_000, 3_000_000

PEER = r"""
import json, sys, time
import numpy as np
from datatrove.data import Document
from datatrove.pipeline.decont import NGramsDecontConfig, NGramsDecontFilter
from datatrove.utils.hashing import HashConfig
from datatrove.utils.text import ngrams, simplify_text
texts = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
items = [json.loads(line) for line in open(sys.argv[2], encoding="utf-8")]
step = NGramsDecontFilter(sys.argv[3], config=NGramsDecontConfig(n_grams=8, hash_config=HashConfig(hash_fc="sha1")))
words = (step.tokenizer.word_tokenize(simplify_text(item, step.config.norm_config)) for item in items)
hashes = {step.hash_func(" ".join(gram)) for item in words for gram in ngrams(item, 8)}
np.array(sorted(hashes), dtype=np.uint64).tofile(sys.argv[3] + "/items.index.hashes")
step.load_index_hashes()
step.filter(Document(text=texts[0], id="0"))
start = time.process_time()
for i, text in enumerate(texts):
    step.filter(Document(text=text, id=str(i)))
print(time.process_time() - start)
"""


def corpus(folder: Path, out: Path, size: int) -> tuple[list[Path], int]:
    """Files of about 500 MB of text each, made by repeating the folder's; and the bytes of text in them."""
    tables = [pq.read_table(path, columns=["messages"]) for path in sorted(folder.glob("*.parquet"))]
    whole = pa.concat_tables([t.replace_schema_metadata(None) for t in tables]).combine_chunks()
    text = pc.sum(pc.binary_length(whole["messages"].combine_chunks().values.field("content"))).as_py()
    files: list[Path] = []
    total = 0
    while total < size:
        path = out / f"part-{len(files):03}.parquet"
        with pq.ParquetWriter(path, whole.schema, compression="zstd") as writer:
            for _ in range(max(1, min(size, 500_000_000) // text)):
                writer.write_table(whole, row_group_size=50_000)
                total += text
        files.append(path)
    return files, total


def made(folder: Path, out: Path, size: int) -> tuple[list[Path], int]:
    """`corpus` in a process of its own: what it needs is not the scan's memory."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(corpus, (folder, out, size))


def timed(
    train: sources.TrainSet, prepared: prepared_index.Prepared, out: Path, workers: int
) -> tuple[float, float, float]:
    """(wall seconds, processor seconds, other work's share of the machine) of one scan with its report."""
    settings = scan.Settings(Rule(), ROLES)
    start, used, busy = time.perf_counter(), _used(), _busy()
    found = scan.scan([train], settings, prepared.folder, prepared.index.key, out, run=scan.in_processes(workers))
    report.write(found, prepared.index, settings, out)
    wall, own = time.perf_counter() - start, _used() - used
    return wall, own, max(0.0, _busy() - busy - own) / wall / len(os.sched_getaffinity(0))


def _used() -> float:
    """Processor seconds of this process and of those that it has waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy() -> float:
    """Processor seconds in which anything ran on this machine; 0 where that is not known."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return 0.0
    numbers = [int(word) for word in stat.read_text().split("\n", 1)[0].split()[1:9]]
    return (sum(numbers) - numbers[3] - numbers[4]) / os.sysconf("SC_CLK_TCK")


def sample(files: list[Path]) -> list[str]:
    """The first SAMPLE bytes of text, one string for each turn."""
    texts, size = [], 0
    for batch in pq.ParquetFile(files[0]).iter_batches(2000, columns=["messages"]):
        for row in batch.column(0).to_pylist():
            for turn in row:
                texts.append(turn["content"])
                size += len(turn["content"].encode())
        if size > SAMPLE:
            break
    return texts


def plain(texts: list[str]) -> float:
    """Seconds in which Python's `re` tokenises the texts."""
    word = re.compile(r"\w+")
    start = time.process_time()
    for text in texts:
        word.findall((text if text.isascii() else unicodedata.normalize("NFKC", text)).casefold())
    return time.process_time() - start


def peer(python: str, texts: list[str], items: list[str], folder: Path) -> float | str:
    """Seconds in which datatrove's filter reads the texts, or why it did not. Its other hash needs one more package."""
    for name, lines in (("texts", texts), ("items", items)):
        (folder / name).write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    index = folder / "peer"
    index.mkdir()
    done = subprocess.run(
        [python, "-c", PEER, str(folder / "texts"), str(folder / "items"), str(index)], capture_output=True, text=True
    )
    if done.returncode:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return float(done.stdout.strip().splitlines()[-1])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=Path, default=os.environ.get("OLMES_TRAIN_DATA"))
    parser.add_argument("--data-dir", type=Path, action="append", default=[])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--peer", help="a Python with datatrove")
    asked = parser.parse_args()
    if asked.train is None:
        print("no training data named (--train FOLDER or $OLMES_TRAIN_DATA): nothing to measure")
        return
    rule, where = Rule(), DataSource.from_environment(asked.data_dir)
    start = time.perf_counter()
    wanted = evals.of_suites((), (), {})
    prepared = prepared_index.of_suites(wanted, where, rule)
    print(f"index: {prepared.index.items} items, {prepared.index.nbytes / 1e6:.0f} MB, "
          f"{'read' if prepared.cached else 'built'} in {time.perf_counter() - start:.1f} s")  # fmt: skip
    start = time.perf_counter()
    load(prepared.folder)
    print(f"index loaded from cache in {time.perf_counter() - start:.2f} s")
    with tempfile.TemporaryDirectory() as temporary:
        measure(asked.train, int(asked.gigabytes * 1e9), prepared, asked.peer, Path(temporary))


def measure(train: Path, wanted: int, prepared: prepared_index.Prepared, python: str | None, folder: Path) -> None:
    """Make the text, scan it, and let the others read a sample."""
    warm, _ = made(train, folder, 1)
    timed(sources.TrainSet("warm", folder, tuple(warm)), prepared, folder / "warm", 1)  # compiles, maps the index
    small_peak = peak()
    files, size = made(train, folder, wanted)
    texts = sample(files)
    corpus_set = sources.TrainSet("corpus", folder, tuple(files))
    wall, used, others = timed(corpus_set, prepared, folder / "out1", 1)
    speed = size / 1e6 / used
    print(f"{size / 1e9:.2f} GB of text, {len(files)} files")
    print(f"scan, 1 process: {speed:.0f} MB per second of processor time; {size / 1e6 / wall:.0f} MB/s of wall time "
          f"({wall:.0f} s), other work held {others:.0%} of the machine", flush=True)  # fmt: skip
    print(f"peak memory: {peak():.2f} GB, {small_peak:.2f} GB after a set of one repetition", flush=True)
    wall2, used2, others = timed(corpus_set, prepared, folder / "out2", 2)
    print(f"scan, 2 processes, their start included: {wall / wall2:.2f} times as fast by wall time ({wall2:.0f} s, "
          f"{used2 / used:.2f} times the processor time), other work held {others:.0%}", flush=True)  # fmt: skip
    small = sum(len(text.encode()) for text in texts) / 1e6
    tokens = small / plain(texts)
    print(f"Python's re, tokens alone: {tokens:.1f} MB/s; the scan is {speed / tokens:.1f} times as fast", flush=True)
    if python is None:
        print("datatrove's filter: not measured (--peer PYTHON)")
        return
    items = [text for i in range(0, prepared.index.items, 40) for _, text in prepared.index.parts_of(i)]
    few, taken = [], 0
    for text in texts:
        few.append(text)
        taken += len(text.encode())
        if taken > PEER_SAMPLE:
            break
    seconds = peer(python, few, items, folder)
    if isinstance(seconds, str):
        print(f"datatrove's filter: not measured, it failed: {seconds}")
        return
    other = taken / 1e6 / seconds
    print(f"datatrove's filter: {other:.2f} MB/s; the scan is {speed / other:.0f} times as fast")


def peak() -> float:
    """Most memory that this process has held, in GB, the mapped index included."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    main()
