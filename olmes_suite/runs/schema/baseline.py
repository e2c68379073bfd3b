"""Baseline files: a run's scores by document, small enough for a repository."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from olmes_suite.errors import DataError
from olmes_suite.files import storage
from olmes_suite.runs.schema.record import COLUMN, OPTIONAL, SCHEMA, Record, check_schema
from olmes_suite.runs.schema.results import Cost


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineGroup(Record):
    """A top-level task of a baseline file."""

    primary: str = "score"
    aggregate: str = "mean"
    skill: str = "other"
    value: float | None = None
    """The recorded score."""
    stderr: float | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    clean: tuple[float, float | None] | None = field(default=None, metadata=OPTIONAL)
    """Score and standard error without the contaminated documents."""
    cost: Cost | None = field(default=None, metadata=OPTIONAL)
    """Absent if the run does not tell what its answers took."""
    planned: bool = field(default=False, metadata=OPTIONAL)
    """Whether a plan chose the documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineTask(Record):
    """A leaf task of a baseline file; all lists are in the order of `doc_ids`."""

    group: str | None = None
    """Top-level task of the leaf; null if the leaf is a top-level task."""
    fingerprint: Mapping[str, str] | None = None
    n: int
    """Number of documents."""
    doc_ids: Sequence[int | str] = field(metadata=COLUMN)
    scores: Sequence[float | None] = field(metadata=COLUMN)
    clusters: Sequence[int] | None = field(default=None, metadata=COLUMN)
    """Cluster number of each document; null if every document is a cluster of its own."""
    strata: Sequence[int] | None = field(default=None, metadata={**COLUMN, **OPTIONAL})
    """Stratum number of each document, if the strata have equal weights in the score."""
    flagged: tuple[int | str, ...] | None = field(default=None, metadata=OPTIONAL)
    """doc_ids that the training data contains."""
    short: tuple[int | str, ...] | None = field(default=None, metadata=OPTIONAL)
    """doc_ids among `flagged` that match only as items too short for an n-gram."""
    of: int | None = field(default=None, metadata=OPTIONAL)
    """Number of documents of the whole task, if a plan chose some of them."""
    tokens: Sequence[float] | None = field(default=None, metadata={**COLUMN, **OPTIONAL})
    """Generated tokens per answer of each document."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline(Record):
    """The content of a baseline file."""

    schema: str = SCHEMA
    run: str
    model: str
    imported: bool = False
    limit: int | float | None = None
    suites: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Suite to its tasks."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Tasks without a score, with the reason."""
    groups: Mapping[str, BaselineGroup] = field(default_factory=dict)
    tasks: Mapping[str, BaselineTask]


def read_baseline_file(path: Path) -> Baseline:
    """Read a baseline file, gzipped or not. Raises DataError, and UsageError for a newer major version."""
    try:
        content = check_schema(json.loads(_text(path)), path)
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from error
    if not isinstance(content.get("tasks"), dict) or not content["tasks"]:
        raise DataError(f"{path}: not a baseline file (it has no tasks); `olmes baseline save RUN FILE` writes one")
    try:
        return Baseline.from_json(content)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: a damaged baseline file ({type(error).__name__}: {error})") from error


def _text(path: Path) -> str:
    """Read a text file, unpacked if its name ends in .gz. Raises DataError."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as handle:
                return handle.read()
        return path.read_text(encoding="utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def write_baseline_file(path: Path, baseline: Baseline) -> None:
    """Write a baseline file atomically, gzipped if the name ends in .gz."""
    data = (json.dumps(baseline.as_json(), separators=(",", ":"), ensure_ascii=False) + "\n").encode("utf-8")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
