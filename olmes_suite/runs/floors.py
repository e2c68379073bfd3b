"""Reading of the floors in a run store, which `olmes eval --backend floor` measures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olmes_suite.files import read_json
from olmes_suite.records import canonical_json, sha256
from olmes_suite.runs.schema import Results

FLOORS = "floors.json"
_COMPARED = ("prompt", "data", "scorer")
"""Parts of a task's fingerprint that a floor depends on; the decoding settings are not among them."""


def identity(task: str, outcome: Results) -> str:
    """Hash what a task's floor depends on: SHA-256 of the fingerprints of the task or its sub-tasks."""
    leaves = outcome.leaves(task)
    return sha256(canonical_json([[(leaf.fingerprint or {}).get(part) for part in _COMPARED] for leaf in leaves]))


def floors(runs: Path) -> dict[str, list[dict[str, Any]]]:
    """Read all floors of a run store. Raises DataError for an unreadable file."""
    path = runs / FLOORS
    entries: dict[str, list[dict[str, Any]]] = read_json(path)["floors"] if path.is_file() else {}
    return entries
