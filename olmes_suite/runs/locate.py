"""Lookup of recorded runs and baseline files by folder, name or named baseline."""

from __future__ import annotations

from pathlib import Path

from olmes_suite.errors import UsageError
from olmes_suite.files import read_json
from olmes_suite.runs.baseline import read_baseline
from olmes_suite.runs.schema import is_finished
from olmes_suite.runs.scores import BASELINES, RunScores, read_run
from olmes_suite.runs.store import UNFINISHED
from olmes_suite.tasks.index import nearest


def load(reference: str, runs: Path) -> RunScores:
    """Read the scores of a run, by its folder, its name, a named baseline or a baseline file.

    Raises UsageError if there is no such run, DataError for damaged or newer files.
    """
    path = locate(reference, runs)
    if path.is_dir():
        return read_run(path)
    return read_baseline(path)


def locate(reference: str, runs: Path) -> Path:
    """Find the folder or baseline file of a reference. Raises UsageError naming the nearest run."""
    named = read_json(runs / BASELINES) if (runs / BASELINES).is_file() else {}
    for path in (Path(reference), runs / reference, runs / str(named.get(reference, reference))):
        if is_finished(path) or path.is_file():
            return path
    if (runs / UNFINISHED / reference).is_dir() or UNFINISHED in Path(reference).parts:
        raise UsageError(f"run {reference} is not finished: repeat the `olmes eval` command that started it")
    if Path(reference).is_dir():
        raise UsageError(f"{reference} is not a run: it has no results.json")
    known = [path.name for path in sorted(runs.iterdir()) if is_finished(path)] if runs.is_dir() else []
    raise UsageError(
        f"no run {reference!r}: it is neither a folder, a file, nor a run or baseline in {runs}"
        f"{nearest(reference, [*known, *named])}"
    )
