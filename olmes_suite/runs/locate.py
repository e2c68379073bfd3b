"""Finding a recorded run or a baseline file by what the user calls it."""

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
    """Scores by a run's folder, its name, a named baseline, or a baseline file.

    Raises UsageError where there is no such run, DataError for damaged or newer files.
    """
    path = locate(reference, runs)
    if path.is_dir():
        return read_run(path)
    return read_baseline(path)


def locate(reference: str, runs: Path) -> Path:
    """The folder or baseline file that the user means. Raises UsageError, naming the nearest run."""
    named = read_json(runs / BASELINES) if (runs / BASELINES).is_file() else {}
    for path in (Path(reference), runs / reference, runs / str(named.get(reference, reference))):
        if is_finished(path) or path.is_file():
            return path
    if (runs / UNFINISHED / reference).is_dir() or UNFINISHED in Path(reference).parts:
        raise UsageError(f"run {reference} is not finished: repeat the `olmes eval` command that began it")
    if Path(reference).is_dir():
        raise UsageError(f"{reference} is no run: it has no results.json")
    known = [path.name for path in sorted(runs.iterdir()) if is_finished(path)] if runs.is_dir() else []
    raise UsageError(
        f"no run {reference!r}: it is no folder, no run or baseline in {runs}, and no file"
        f"{nearest(reference, [*known, *named])}"
    )
