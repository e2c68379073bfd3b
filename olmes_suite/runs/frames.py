"""Recorded runs as data frames; scores are fractions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from olmes_suite.errors import DataError, UsageError, nearest
from olmes_suite.runs.schema import Metric, Results, instances_file, is_finished
from olmes_suite.runs.store import read_lines
from olmes_suite.tasks.index import full_name, index

SCORES = ("task", "metric", "value", "stderr", "lo", "hi", "n", "flags", "error")
SUITES = ("suite", "value", "stderr", "lo", "hi", "missing")


def scores(results: Results) -> pd.DataFrame:
    """A row for each task of a results.json, groups and their sub-tasks among them: its primary metric."""
    rows = (
        {
            "task": name,
            "metric": task.primary,
            **bounds(task.score),
            "n": task.n,
            "flags": {flag: count for flag, count in task.flags.items() if count},
            "error": task.error,
        }
        for name, task in results.tasks.items()
    )
    return pd.DataFrame(rows, columns=list(SCORES))


def suites(results: Results) -> pd.DataFrame:
    """A row for each suite of a results.json: its average, and the tasks without a score, for which it has none."""
    rows = ({"suite": name, **bounds(suite), "missing": list(suite.missing)} for name, suite in results.suites.items())
    return pd.DataFrame(rows, columns=list(SUITES))


def bounds(metric: Metric | None) -> dict[str, float | None]:
    """Columns of a metric: value, standard error, ends of the 95 % interval."""
    metric = metric or Metric()
    lo, hi = metric.ci95 or (None, None)
    return {"value": metric.value, "stderr": metric.stderr, "lo": lo, "hi": hi}


def documents(run: Path, tasks: Iterable[str], task: str) -> pd.DataFrame:
    """A row for each document of a task or sub-task. `tasks`: the run's top-level tasks."""
    whole, leaf = find(run, tasks, task)
    try:
        found = pd.read_parquet(instances_file(run, whole))
    except (OSError, ValueError) as error:
        raise DataError(f"{instances_file(run, whole)} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return _only(found, leaf)


def responses(run: Path, tasks: Iterable[str], task: str) -> pd.DataFrame:
    """A row for each response to a task or sub-task; none for imported scores. `tasks`: the run's top-level tasks."""
    whole, leaf = find(run, tasks, task)
    file = run / "responses" / f"{instances_file(run, whole).stem}.jsonl"
    rows = (
        {"task": line.task, "doc_id": line.doc_id, "index": line.index, "sample": line.sample, **asdict(line.response)}
        for line in read_lines(file)
    )
    return _only(pd.DataFrame(rows), leaf)


def _only(frame: pd.DataFrame, leaf: str | None) -> pd.DataFrame:
    """The rows of a sub-task; all of them for None."""
    return frame if leaf is None or frame.empty else frame[frame["task"] == leaf].reset_index(drop=True)


def find(run: Path, tasks: Iterable[str], name: str) -> tuple[str, str | None]:
    """(top-level task, sub-task or None) that a name stands for, prefix optional. Raises UsageError."""
    known = list(tasks)
    for candidate in (name, full_name(name)):
        if candidate in known:
            return candidate, None
        for whole in known:
            if whole in index() and candidate in index()[whole].members:
                return whole, candidate
    raise UsageError(f"run {run.name} has no task {name!r}{nearest(name, known)}")


def folders(runs: Path) -> Iterator[Path]:
    """The finished runs of a folder, by name. Raises UsageError where there is no such folder."""
    if not runs.is_dir():
        raise UsageError(f"{runs}: no such folder of runs")
    yield from (path for path in sorted(runs.iterdir()) if is_finished(path))
