"""Paired comparisons for the page, computed when it is built, with the numbers of `olmes compare`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leaderboard.page_data import Board, Problem, Row
from leaderboard.reading import reason
from olmes_suite.comparison.compare import Comparison, TaskComparison, compare_average, compare_runs
from olmes_suite.comparison.paired_tests import Difference
from olmes_suite.errors import OlmesError
from olmes_suite.runs.scores import RunScores, TaskScores, read_run

PAIRS = 200
"""The largest number of pairs; 20 rows have 190."""
LIGHT = 400
"""The limit for a page without documents, which is built quickly: the largest number of files of scored documents to
read for its pairs, and of tasks to compare."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two rows, as positions in the board."""

    baseline: int
    candidate: int
    comparison: Comparison


def ordered_pairs(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Iterate over (baseline, candidate) by importance: parent and child, then neighbours, then all other pairs."""
    at = {run.name: number for number, row in enumerate(rows) for run in row.runs}
    measured = [number for number, row in enumerate(rows) if row.runs]
    edges = [(at[row.parent], n) for n, row in enumerate(rows) if row.parent is not None and row.parent in at]
    neighbours = [(below, above) for above, below in itertools.pairwise(measured)]
    others = [
        (b, a) for distance in range(2, len(measured)) for a, b in zip(measured, measured[distance:], strict=False)
    ]
    seen: set[frozenset[int]] = set()
    for pair in (*edges, *neighbours, *others):
        if pair[0] != pair[1] and frozenset(pair) not in seen:
            seen.add(frozenset(pair))
            yield pair


def compare(board: Board, most: int = LIGHT) -> tuple[list[Pair], list[Problem]]:
    """Compare the pairs that the limits allow; also return the runs whose documents cannot be read.

    `most`: the largest number of files to read, and of tasks to compare.
    """
    files = comparisons = most
    scores: dict[int, RunScores | None] = {}
    having = [{task for task, cell in row.cells.items() if cell.value is not None} for row in board.rows]
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for baseline, candidate in ordered_pairs(board.rows):
        if len(pairs) >= PAIRS:
            break
        shared = len(having[baseline] & having[candidate])
        cost = sum(len(board.rows[n].cells) for n in (baseline, candidate) if n not in scores)
        if not shared or shared > comparisons or cost > files:
            continue
        files, comparisons = files - cost, comparisons - shared
        for number in (baseline, candidate):
            if number not in scores:
                scores[number] = _scores(board.rows[number], problems)
        one, other = scores[baseline], scores[candidate]
        if one is not None and other is not None:
            try:
                pairs.append(Pair(baseline, candidate, compare_runs(one, other)))
            except (OlmesError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
                problems.append(Problem(other.name, f"no comparison with {one.name}: {reason(error)}"))
    return pairs, problems


def _scores(row: Row, problems: list[Problem]) -> RunScores | None:
    """Join the documents' scores of all runs of a row."""
    tasks: dict[str, TaskScores] = {}
    for run in row.runs:
        try:
            tasks.update(read_run(run.path).tasks)
        except (OlmesError, AttributeError, LookupError, TypeError, ValueError, OSError) as error:
            problems.append(Problem(run.name, f"no comparisons: {reason(error)}"))
    return RunScores(row.id, row.name, tasks, imported=row.kind == "imported") if tasks else None


def as_json(pairs: Sequence[Pair], board: Board) -> list[dict[str, Any]]:
    """Return [{"a","b","tasks":{T: entry},"skills":{S: entry},"suites":{dev|unseen: entry}}]; a, b are row positions.

    An entry is {"d","lo","hi","p","holm","det","w","l","n","how","tok"}: fractions, and the tokens per answer of both;
    {"differs": parts} where two scores do not compare, {"reason"} where they share no document.
    """
    skill = {column.task: column.skill for column in board.columns}
    suite = {column.task: column.suite for column in board.columns}
    out = []
    for pair in pairs:
        tasks = pair.comparison.tasks
        out.append(
            {
                "a": pair.baseline,
                "b": pair.candidate,
                "tasks": {task.task: _task(task) for task in tasks},
                "skills": _averages(tasks, skill),
                "suites": {name: entry for name, entry in _averages(tasks, suite).items() if name != "other"},
            }
        )
    return out


def _task(task: TaskComparison) -> dict[str, Any]:
    if task.difference is None:
        return {"differs": list(task.differs)} if task.differs else {"reason": task.reason or "no difference to show"}
    told = {} if task.tokens is None else {"tok": [_short(mean) for mean in task.tokens]}
    return _difference(task.difference) | told | ({} if task.p_holm is None else {"holm": _short(task.p_holm)})


def _difference(d: Difference) -> dict[str, Any]:
    out: dict[str, Any] = {"d": _short(d.delta), "n": d.n, "w": d.wins, "l": d.losses, "how": d.method}
    if d.ci95 is not None:
        out |= {"lo": _short(d.ci95[0]), "hi": _short(d.ci95[1])}
    for name, value in (("p", d.p), ("det", d.detectable), ("se", d.stderr)):
        if value is not None:
            out[name] = _short(value)
    return out


def _averages(tasks: Sequence[TaskComparison], part_of: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Compute the mean difference over the comparable tasks of each part."""
    parts: dict[str, list[TaskComparison]] = {}
    for task in tasks:
        if task.difference is not None and task.task in part_of:
            parts.setdefault(part_of[task.task], []).append(task)
    differences = {name: compare_average(members) for name, members in parts.items()}
    return {name: _difference(d) | {"tasks": len(parts[name])} for name, d in differences.items() if d is not None}


def _short(value: float) -> float:
    return float(f"{value:.4g}")
