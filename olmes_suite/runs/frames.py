"""Recorded runs as data frames, with scores as fractions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from olmes_suite.errors import DataError, UsageError, nearest
from olmes_suite.runs.schema import Metric, Results, instances_file, read_manifest, read_results
from olmes_suite.runs.store import read_lines
from olmes_suite.tasks.index import full_name, index

SCORES = (
    "task", "metric", "value", "stderr", "lo", "hi", "n", "flags", "tokens", "thinking_tokens", "completed", "error",
)  # fmt: skip
SUITES = ("suite", "value", "stderr", "lo", "hi", "missing")


def scores(results: Results) -> pd.DataFrame:
    """Build a table of the primary metrics: a row for each task, group and sub-task of a results.json.

    `tokens` and `thinking_tokens` are means per answer, `completed` the score over answers that ended by themselves.
    """
    return pd.DataFrame(score_rows(results), columns=list(SCORES))


def score_rows(results: Results) -> Iterator[dict[str, Any]]:
    """Yield the rows of `scores` as mappings."""
    return (
        {
            "task": name,
            "metric": task.primary,
            **bounds(task.score),
            "n": task.n,
            "flags": {flag: count for flag, count in task.flags.items() if count},
            "tokens": task.tokens.total if task.tokens is not None else None,
            "thinking_tokens": task.tokens.thinking if task.tokens is not None else None,
            "completed": task.completed.value if task.completed is not None else None,
            "error": task.error,
        }
        for name, task in results.tasks.items()
    )


def suites(results: Results) -> pd.DataFrame:
    """Build a table of the averages: a row for each suite of a results.json, with its tasks without a score."""
    rows = ({"suite": name, **bounds(suite), "missing": list(suite.missing)} for name, suite in results.suites.items())
    return pd.DataFrame(rows, columns=list(SUITES))


def bounds(metric: Metric | None) -> dict[str, float | None]:
    """Return the columns of a metric: value, standard error and the ends of the 95 % interval."""
    metric = metric or Metric()
    lo, hi = metric.ci95 or (None, None)
    return {"value": metric.value, "stderr": metric.stderr, "lo": lo, "hi": hi}


def documents(run: Path, tasks: Iterable[str], task: str) -> pd.DataFrame:
    """Build a table of the documents of a task or sub-task. `tasks` are the run's top-level tasks."""
    top_task, leaf = find(run, tasks, task)
    file = documents_file(run, top_task)
    try:
        frame = pd.read_parquet(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())[:200]}") from error
    return _only(frame, leaf)


def documents_file(run: Path, top_task: str) -> Path:
    """Return the file of a task's scored documents. Raises UsageError with the reason for a task without a score."""
    file = instances_file(run, top_task)
    task = None if file.is_file() else read_results(run).tasks.get(top_task)
    if task is not None and task.error is not None:
        raise UsageError(f"run {run.name} has no scored documents of {top_task}: {task.error}")
    return file


def responses(run: Path, tasks: Iterable[str], task: str) -> pd.DataFrame:
    """Build a table of the responses to a task or sub-task, empty for imported scores.

    `tasks` are the run's top-level tasks.
    """
    top_task, leaf = find(run, tasks, task)
    file = run / "responses" / f"{instances_file(run, top_task).stem}.jsonl"
    rows = (
        {"task": line.task, "doc_id": line.doc_id, "index": line.index, "sample": line.sample, **asdict(line.response)}
        for line in read_lines(file)
    )
    return _only(pd.DataFrame(rows), leaf)


def _only(frame: pd.DataFrame, leaf: str | None) -> pd.DataFrame:
    """Select the rows of a sub-task; all rows for None."""
    return frame if leaf is None or frame.empty else frame[frame["task"] == leaf].reset_index(drop=True)


def find(run: Path, tasks: Iterable[str], name: str) -> tuple[str, str | None]:
    """Resolve a task's name, prefix optional, to (top-level task, sub-task or None). Raises UsageError."""
    top_tasks = list(tasks)
    for candidate in (name, full_name(name)):
        if candidate in top_tasks:
            return candidate, None
        for top_task in top_tasks:
            if top_task in index() and candidate in index()[top_task].members:
                return top_task, candidate
    for plan in read_manifest(run).plan:  # a group of the user's, which the index does not have
        if plan.task in top_tasks and name in (leaf.task for leaf in plan.leaves or ()):
            return plan.task, name
    raise UsageError(f"run {run.name} has no task {name!r}{nearest(name, top_tasks)}")
