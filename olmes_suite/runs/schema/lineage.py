"""olmes_lineage.json: the origin of a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.files import write_json
from olmes_suite.runs.schema.record import OPTIONAL, SCHEMA, Record, check_schema

LINEAGE = "olmes_lineage.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFile(Record):
    """A training set of a stage."""

    path: str | None = None
    sha256: str | None = None
    """SHA-256 of the set's files."""
    rows: int | None = field(default=None, metadata=OPTIONAL)
    """Number of rows after the hooks."""
    rows_sha256: str | None = field(default=None, metadata=OPTIONAL)
    bad_rows: int = field(default=0, metadata=OPTIONAL)
    """Number of rows that were left out because they cannot be trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor(Record):
    """A checkpoint that a stage was started from."""

    checkpoint: str
    stage: str | None = None
    """Stage of the checkpoint; like `step`, null for the first ancestor."""
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage(Record):
    """The content of olmes_lineage.json. A file that a user writes may have only `parent` and `flags`."""

    schema: str = field(default=SCHEMA)
    parent: str | None = None
    """The checkpoint that the stage was started from."""
    root: str | None = None
    """Checkpoint that the first stage was started from; looks at the unseen suite are counted under it."""
    stage: str | None = None
    recipe: Any = None
    data: tuple[TrainingFile, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    """Numbers of rows read, trained, cut and dropped; added: by splitting conversations."""
    decontam: Any = None
    """Result of the comparison with the suites; null if there was none."""
    flags: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Task to the doc_ids that the training data of the stage or of an ancestor contains."""
    short: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """doc_ids among `flags` that match only as items too short for an n-gram."""
    scanned: tuple[str, ...] | None = None
    """Tasks that were compared with the data of every stage."""
    ancestors: tuple[Ancestor, ...] = ()
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = field(default=None, metadata=OPTIONAL)
    """Step of the optimiser; like `tokens` and `seconds`, absent until the checkpoint is written."""
    tokens: int | None = field(default=None, metadata=OPTIONAL)
    seconds: float | None = field(default=None, metadata=OPTIONAL)
    watch: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """What the watch over an RLVR training named before this checkpoint; absent where it named nothing."""
    lineage: str | None = field(default=None, metadata=OPTIONAL)
    """Name that replaces `root` in the ledger."""

    @property
    def is_known(self) -> bool:
        """Whether a lineage file was read; a checkpoint without a file has an empty lineage."""
        return self.file_keys != ()

    def summary(self) -> dict[str, Any]:
        """Convert to JSON, with numbers of documents and tasks in place of their lists."""
        content = self.as_json()
        if "flags" in content:
            content["flags"] = {task: len(ids) for task, ids in self.flags.items()}
        for name in ("short", "scanned"):
            if name in content:
                content[name] = len(content[name])
        return content

    @property
    def training_processes(self) -> int | None:
        """Number of training processes; None in files of earlier versions."""
        count = self.hardware.get("training_processes")
        return int(count) if count is not None else None


NO_LINEAGE = Lineage.from_json({})
"""The lineage of a checkpoint without a lineage file."""


def read_lineage(path: Path) -> Lineage:
    """Read a lineage file. Raises UsageError for an unreadable, malformed or newer file."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"lineage file {path} cannot be read: {error}") from error
    flags = data.get("flags", {}) if isinstance(data, dict) else None
    if not isinstance(flags, dict) or not all(isinstance(ids, list) for ids in flags.values()):
        raise UsageError(f'lineage file {path}: it needs the form {{"parent": …, "flags": {{task: [doc_id, …]}}}}')
    short, scanned = data.get("short", {}), data.get("scanned", [])
    if not isinstance(short, dict) or not all(isinstance(ids, list) for ids in short.values()):
        raise UsageError(f"lineage file {path}: `short` needs the form {{task: [doc_id, …]}}, like `flags`")
    if not isinstance(scanned, list) or not all(isinstance(task, str) for task in scanned):
        raise UsageError(f"lineage file {path}: `scanned` must be a list of tasks")
    if "schema" in data:
        check_schema(data, path)
    try:
        return Lineage.from_json(data)
    except (KeyError, TypeError) as error:
        raise UsageError(f"lineage file {path}: {' '.join(str(error.args[0]).split())}") from error


def write_lineage(path: Path, lineage: Lineage) -> None:
    """Write a lineage file atomically."""
    write_json(path, lineage.as_json())
