"""olmes_lineage.json: where a checkpoint comes from."""

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
    """Of its files."""
    rows: int | None = field(default=None, metadata=OPTIONAL)
    """Rows that the hooks have left."""
    rows_sha256: str | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ancestor(Record):
    """A checkpoint that a stage was started from."""

    checkpoint: str
    stage: str | None = None
    """Null for the first ancestor, as is `step`."""
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage(Record):
    """The content of olmes_lineage.json. A user's own may hold no more than `parent` and `flags`."""

    schema: str = field(default=SCHEMA)
    parent: str | None = None
    """The checkpoint that the stage was started from."""
    root: str | None = None
    """What the first stage was started from; looks at the unseen suite are counted under it."""
    stage: str | None = None
    recipe: Any = None
    data: tuple[TrainingFile, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    """Rows that were read, trained, cut and dropped."""
    decontam: Any = None
    """What the comparison with the suites found; null where nobody looked."""
    flags: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Task to the doc_ids that the training data, or that of an ancestor, is known to contain."""
    short: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Those of them that match only as items too short for an n-gram."""
    scanned: tuple[str, ...] | None = None
    """Tasks that the data of every stage was compared with."""
    ancestors: tuple[Ancestor, ...] = ()
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    hardware: Mapping[str, Any] = field(default_factory=dict)
    step: int | None = field(default=None, metadata=OPTIONAL)
    """The optimiser's step; absent until the checkpoint is written, as are `tokens` and `seconds`."""
    tokens: int | None = field(default=None, metadata=OPTIONAL)
    seconds: float | None = field(default=None, metadata=OPTIONAL)
    lineage: str | None = field(default=None, metadata=OPTIONAL)
    """A name that goes before `root` in the ledger."""

    @property
    def is_known(self) -> bool:
        """There is a lineage: a checkpoint without a file has an empty one."""
        return self.file_keys != ()

    def summary(self) -> dict[str, Any]:
        """The lineage with numbers of documents and tasks in place of their lists."""
        found = self.as_json()
        if "flags" in found:
            found["flags"] = {task: len(ids) for task, ids in self.flags.items()}
        for name in ("short", "scanned"):
            if name in found:
                found[name] = len(found[name])
        return found

    @property
    def training_processes(self) -> int | None:
        """Processes that trained together; None in files of earlier versions."""
        found = self.hardware.get("training_processes")
        return int(found) if found is not None else None


NO_LINEAGE = Lineage.from_json({})
"""Of a checkpoint without a lineage file."""


def read_lineage(path: Path) -> Lineage:
    """The lineage in a file. Raises UsageError for what cannot be read, is of another form, or is newer."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"lineage file {path} cannot be read: {error}") from error
    flags = data.get("flags", {}) if isinstance(data, dict) else None
    if not isinstance(flags, dict) or not all(isinstance(ids, list) for ids in flags.values()):
        raise UsageError(f'lineage file {path}: it needs the form {{"parent": …, "flags": {{task: [doc_id, …]}}}}')
    short, scanned = data.get("short", {}), data.get("scanned", [])
    if not isinstance(short, dict) or not all(isinstance(ids, list) for ids in short.values()):
        raise UsageError(f"lineage file {path}: `short` needs the form {{task: [doc_id, …]}}, as `flags` has it")
    if not isinstance(scanned, list) or not all(isinstance(task, str) for task in scanned):
        raise UsageError(f"lineage file {path}: `scanned` needs to be a list of tasks")
    if "schema" in data:
        check_schema(data, path)
    try:
        return Lineage.from_json(data)
    except (KeyError, TypeError) as error:
        raise UsageError(f"lineage file {path}: {' '.join(str(error.args[0]).split())}") from error


def write_lineage(path: Path, lineage: Lineage) -> None:
    """Write a lineage file, whole or not at all."""
    write_json(path, lineage.as_json())
