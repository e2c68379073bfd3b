"""The ledger of looks at the unseen suite: one line for every run that scored one of its tasks."""

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
"""Backends that say nothing about a model."""


def record_look(
    runs: Path, lineage: str, run: str, tasks: Iterable[tuple[str, int]], command: Sequence[str]
) -> list[str]:
    """Append a line if any of `tasks` (name, documents) belongs to the unseen suite; returns those tasks."""
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
        return line["tasks"]  # type: ignore[return-value]  # a run that was killed between this line and its rename
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
    """The lines of a ledger; a torn one is passed over."""
    found = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def lineage_of(model: str, file: Path | None) -> Lineage:
    """The lineage beside a checkpoint, or in the file that the user names; an empty one where there is none."""
    path = file if file is not None else Path(model) / LINEAGE
    if file is None and (not model or not path.is_file()):
        return NO_LINEAGE
    return read_lineage(path)


def lineage_name(lineage: Lineage, model: str) -> str:
    """What looks are counted under: the root of the lineage, or the model itself."""
    return lineage.lineage or lineage.root or lineage.parent or model
