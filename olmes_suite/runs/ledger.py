"""The ledger of looks at the unseen suite, with a line for each run that scored one of its tasks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.files import storage
from olmes_suite.runs.schema import LINEAGE, NO_LINEAGE, Lineage, read_lineage
from olmes_suite.tasks.suites import unseen_tasks

LEDGER = "unseen-ledger.jsonl"
NO_LOOK = frozenset({"mock", "oracle", "floor"})
"""Backends without a model, whose runs are not looks."""


def record_look(
    runs: Path, lineage: str, run: str, tasks: Iterable[tuple[str, int]], command: Sequence[str]
) -> list[str]:
    """Append a line if any of `tasks` (name, documents) is in the unseen suite; returns those tasks."""
    seen = [(name, n) for name, n in tasks if name in unseen_tasks() and n > 0]
    if not seen:
        return []
    line = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "lineage": lineage,
        "run": run,
        "tasks": [name for name, _ in seen],
        "n": sum(n for _, n in seen),
        "command": " ".join(command),
    }
    path = runs / LEDGER
    if path.exists() and any(
        entry.get("run") == run and entry.get("lineage") == lineage for entry in read_ledger(path)
    ):
        return line["tasks"]  # type: ignore[return-value]  # the run was killed between this line and its rename
    with storage(path):
        runs.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(handle, (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass"))
            os.fsync(handle)
        finally:
            os.close(handle)
    return line["tasks"]  # type: ignore[return-value]


def read_ledger(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a ledger; a truncated line is skipped."""
    entries = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entries.append(json.loads(line))
        except ValueError:
            continue
    return entries


def lineage_of(model: str, file: Path | None) -> Lineage:
    """Read the lineage beside a checkpoint, or in the file that the user names; empty if there is none."""
    path = file if file is not None else Path(model) / LINEAGE
    if file is None and (not model or not path.is_file()):
        return NO_LINEAGE
    return read_lineage(path)


def lineage_name(lineage: Lineage, model: str) -> str:
    """Return the name under which looks are counted: the root of the lineage, otherwise the model."""
    return lineage.lineage or lineage.root or lineage.parent or model
