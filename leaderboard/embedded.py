"""The board as the JSON that the page's script reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leaderboard import marks
from leaderboard.page_data import PARTS, Board, Cell, Column, Row
from leaderboard.table import day
from olmes_suite.comparison.reports import short
from olmes_suite.runs.schema import ENDINGS, Projected

SCHEMA = "1.0"


def data(board: Board, instances: str, title: str) -> dict[str, Any]:
    """Build the JSON that the page's script reads; scores are fractions.

    A cell leaves out its usual values: `metric` and `n` of the column, and `fp` (the number of its fingerprint in the
    column) where that is 0. `fp` is null where the score has no fingerprint.
    """
    prints: dict[str, dict[tuple[str, ...], int]] = {}
    columns = [_Column(c, *_usual(board, c.task), prints.setdefault(c.task, {})) for c in board.columns]
    runs = [_row_data(row, columns) for row in board.rows]
    return {
        "schema": SCHEMA,
        "title": title,
        "instances": instances,
        "parts": list(PARTS),
        "signs": marks.SIGNS,
        "troubles": marks.TROUBLES,
        "tasks": [
            {"task": c.column.task, "short": short(c.column.task), "skill": c.column.skill, "suite": c.column.suite}
            | {"metric": c.metric, "n": c.n}
            for c in columns
        ],
        "suites": list(board.suites),
        "runs": runs,
        "fingerprints": {task: [list(one) for one in hashes] for task, hashes in prints.items()},
        "problems": [{"run": p.run, "reason": p.reason} for p in board.problems],
    }


@dataclass(frozen=True, slots=True)
class _Column:
    column: Column
    metric: str
    n: int
    """Number of documents of a cell that has no `n`."""
    prints: dict[tuple[str, ...], int]
    """Fingerprints, numbered in order of appearance."""


def _usual(board: Board, task: str) -> tuple[str, int]:
    """Return the metric and the number of documents of most of a column's cells."""
    cells = [row.cells[task] for row in board.rows if task in row.cells and row.cells[task].metric]
    if not cells:
        return "", 0
    return Counter(c.metric for c in cells).most_common(1)[0][0], Counter(c.n for c in cells).most_common(1)[0][0]


def _row_data(row: Row, columns: Sequence[_Column]) -> dict[str, Any]:
    out: dict[str, Any] = {
        "run": row.id, "runs": [run.name for run in row.runs], "model": row.name, "kind": row.kind, "stage": row.stage,
        "step": row.step, "date": day(row.started), "parent": row.parent, "lineage": row.lineage, "looks": row.looks,
        "tasks": {}, "suites": {},
    }  # fmt: skip
    if row.tokens is not None:
        out["cost"] = {"tokens": _six(row.tokens[0]), "limit": _six(row.at_limit)}
    if out["runs"] == [row.id]:
        del out["runs"]  # the script adds it
    if row.source:
        out["source"] = row.source
    if row.watch:
        out["watch"] = list(row.watch)
    out |= {key: value for key, value in (("recipe", row.recipe), ("apart", row.apart)) if value}
    out |= {key: value for key, value in (("backend", row.backend), ("limit", row.limit)) if value}
    if row.training:
        out["training"] = row.training[:6]
    if row.sample:
        out["sample"] = True
    for column in columns:
        cell = row.cells.get(column.column.task)
        if cell is not None:
            out["tasks"][column.column.task] = _cell_data(cell, column)
    for name, average in row.suites.items():
        entry: dict[str, Any] = {
            "value": _six(average.value),
            "lo": _six(average.lo),
            "hi": _six(average.hi),
            "se": _four(average.stderr),
        }
        entry |= {"part": average.part} if average.part else {}
        entry |= {"projected": _projected(average.projected)} if average.projected else {}
        out["suites"][name] = entry | ({"missing": list(average.missing)} if average.missing else {})
    return out


def _cell_data(cell: Cell, column: _Column) -> dict[str, Any]:
    """Build a cell's entry without unknown values."""
    entry: dict[str, Any] = {"value": _six(cell.value), "lo": _six(cell.lo), "hi": _six(cell.hi)}
    entry |= {
        "se": _four(cell.stderr),
        "n": None if cell.n == column.n else cell.n,
        "of": cell.of,
        "part": cell.part or None,
        "stopped": cell.stopped or None,
        "projected": None if cell.projected is None else _projected(cell.projected),
        "floor": cell.floor,
        "error": cell.error,
    }
    entry |= {"judge": cell.judged or None, "flags": dict(cell.flags) or None, "note": cell.note or None}
    if cell.metric != column.metric:
        entry["metric"] = cell.metric
    if cell.clean is not None:
        c = cell.clean
        entry["clean"] = {"value": _six(c.value), "lo": _six(c.lo), "hi": _six(c.hi), "n": c.n, "flagged": c.flagged}
    entry |= _cost_data(cell)
    known = {name: value for name, value in entry.items() if value is not None}
    if cell.fingerprint is None:
        known["fp"] = None
    elif number := column.prints.setdefault(cell.fingerprint, len(column.prints)):
        known["fp"] = number
    return known


def _projected(found: Projected) -> dict[str, Any]:
    low, high = found.ci95 or (None, None)
    return {"value": _six(found.value), "lo": _six(low), "hi": _six(high), "of": found.of, "from": found.baseline}


def _cost_data(cell: Cell) -> dict[str, Any]:
    """Build the parts of a cell's entry about its answers: tokens of thought and rest, endings, completed, rate."""
    cost, ended = cell.cost, cell.cost.answers
    return {
        "tokens": None if cost.tokens is None else [_four(cost.tokens.thinking), _four(cost.tokens.answer)],
        "answers": None if ended is None else {"n": ended.n} | {name: getattr(ended, name) for name in ENDINGS},
        "done": None if cost.completed is None else {"value": _six(cost.completed.value), "n": cost.completed.n},
        "rate": _four(cost.correct_per_million_tokens),
        "samples": cell.samples,
        "sd": _four(cell.samples_sd),
    }


def _six(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _four(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
