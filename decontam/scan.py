"""The scan: every block of every training set against one index, in any number of processes.

The result of each block is written to a separate file as soon as it is finished, so that an interrupted scan continues
where it stopped. The result does not depend on the number of processes or on their order.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from decontam.matching.rule import Rule
from decontam.text import tokens
from decontam.training_data.sources import TrainSet
from olmes_suite import processes
from olmes_suite.errors import DataError
from olmes_suite.records import canonical_json, sha256
from olmes_suite.training_rows.files import Block

WORST = 5
"""Pairs of each evaluation whose texts are kept, per block and in the report."""
_EXCERPT = 400
"""Characters kept on either side of the matching stretches."""
_VERSION = 3


@dataclass(frozen=True, slots=True)
class Settings:
    """How training rows are read and compared."""

    rule: Rule = field(default_factory=Rule)
    roles: tuple[str, ...] = ("user",)
    fields: tuple[str, ...] = ()
    """Columns to compare instead of a detected form."""


@dataclass(frozen=True, slots=True)
class Job:
    """One block to scan, with everything that a worker, on this or another machine, needs to know."""

    block: Block
    settings: Settings
    index: Path
    index_key: str
    out: Path
    """Folder of the parts."""

    @property
    def key(self) -> str:
        """The name of the block's result. It changes with the data, the rule and the index."""
        rule = asdict(self.settings.rule)
        rule.pop("share")
        parts = [self.block.key, rule, self.settings.roles, self.settings.fields, self.index_key]
        return sha256(canonical_json([_VERSION, tokens.VERSION, *parts]))[:32]


@dataclass(frozen=True, slots=True)
class Part:
    """The result of one block."""

    rows: int
    bytes: int
    """Bytes of compared text."""
    forms: tuple[str, ...]
    problems: tuple[tuple[int | None, str], ...]
    """(row of the block, or None for everything that follows; what is wrong)."""
    worst: tuple[dict[str, Any], ...]
    pairs: Path
    """Parquet of the block's pairs; train_row counts from the block's first row."""


@dataclass(frozen=True, slots=True)
class SetParts:
    """The parts of one training set, in order, and one line for each file that could not be read."""

    train: TrainSet
    parts: tuple[tuple[Block, Part], ...]
    unreadable: tuple[str, ...]


Runner = Callable[[list[Job]], Iterator[None]]
"""Scans jobs in any order and yields once for each finished job."""


def scan(
    sets: Iterable[TrainSet], settings: Settings, index: Path, index_key: str, out: Path, *, run: Runner,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[SetParts]:  # fmt: skip
    """Scan training sets, reusing the results of an earlier scan in `out`. `watch` gets (blocks done, all blocks)."""
    out.mkdir(parents=True, exist_ok=True)
    plans = [_plan(train, settings, index, index_key, out) for train in sets]
    jobs = [job for _, planned, _ in plans for job in planned]
    unfinished = list({job.key: job for job in jobs if _read_part(job) is None}.values())
    watch(len(jobs) - len(unfinished), len(jobs))
    for done, _ in enumerate(run(unfinished), len(jobs) - len(unfinished) + 1):
        watch(done, len(jobs))
    scans = []
    for train, planned, unreadable in plans:
        parts = []
        for job in planned:
            part = _read_part(job)
            assert part is not None
            parts.append((job.block, part))
        scans.append(SetParts(train, tuple(parts), tuple(unreadable)))
    return scans


def _plan(
    train: TrainSet, settings: Settings, index: Path, index_key: str, out: Path
) -> tuple[TrainSet, list[Job], list[str]]:
    jobs: list[Job] = []
    unreadable: list[str] = []
    for file in train.files:
        try:
            jobs += [Job(block, settings, index, index_key, out) for block in train.blocks(file)]
        except DataError as error:
            unreadable.append(str(error))
        except OSError as error:
            unreadable.append(f"{file}: {os.strerror(error.errno or 0)}")
    return train, jobs, unreadable


def _read_part(job: Job) -> Part | None:
    """Read the result of a job; None where there is no complete one, so that its block is scanned (again)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pairs = job.out / f"{job.key}.parquet"
    try:
        data = json.loads((job.out / f"{job.key}.json").read_text(encoding="utf-8"))
        pq.read_metadata(pairs)
        problems = tuple((row, why) for row, why in data["problems"])
        return Part(data["rows"], data["bytes"], tuple(data["forms"]), problems, tuple(data["worst"]), pairs)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return None


@lru_cache(maxsize=1)
def _tools(index: Path, rule: Rule) -> tuple[Any, Any]:
    """Load the filter and the decider of this process."""
    from decontam.matching.decide import Decider
    from decontam.matching.filter import Filter
    from decontam.matching.index import load

    loaded = load(index)
    if loaded is None:
        raise DataError(f"the index {index} cannot be read; remove it and scan again")
    return Filter(loaded, rule.threshold), Decider(loaded, rule)


def run_job(job: Job) -> None:
    """Scan one block and write its part. Runs in any process on any machine."""
    from decontam.matching.pairs import PairFile, Worst
    from decontam.training_data.readers import Reader

    sift, decide = _tools(job.index, job.settings.rule)
    reader = Reader(job.settings.roles, job.settings.fields)
    worst = Worst(decide.index, WORST, _EXCERPT)
    size = 0
    stem = job.out / job.key
    with PairFile(stem.with_suffix(".parquet")) as file:
        first = 0
        for batch in reader.read(job.block):
            verdicts = sift(batch)
            size += batch.nbytes
            for matches in decide(batch, verdicts):
                file.add(first, matches)
                worst.add(first, batch, matches)
            reader.problems += [(first + row, "not UTF-8") for row in verdicts.broken]
            first += batch.rows
    about = {
        "rows": reader.rows, "bytes": size, "forms": reader.forms, "worst": worst.listed(),
        "problems": sorted(reader.problems, key=lambda p: (p[0] is None, p[0] or 0)),
    }  # fmt: skip
    partial = stem.with_suffix(f".{os.getpid()}.tmp")
    partial.write_text(json.dumps(about), encoding="utf-8")
    partial.replace(stem.with_suffix(".json"))


def in_processes(workers: int) -> Runner:
    """Make a runner with that many processes; with one, the jobs run in the calling process."""
    return processes.in_processes(run_job, workers)
