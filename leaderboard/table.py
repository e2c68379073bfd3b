"""The table of the page as texts: names, tags, scores with their intervals, signs of marks."""

from __future__ import annotations

import time
from typing import Any

from leaderboard import marks
from leaderboard.marks import Mark
from leaderboard.page_data import Average, Board, Cell, Row
from olmes_suite.comparison.reports import short
from olmes_suite.wording import tokens as shown_tokens

_LONGEST_NAME = 160
_WIDE = 0.04
"""Width of an interval whose ends are shown without a decimal."""
_OF_THE_ROW = frozenset({"imported", "published"})
"""Marks that are shown once, at the row's name."""


def visible(text: str, longest: int = _LONGEST_NAME) -> str:
    """Replace control characters and lone surrogates in a text, and cut it."""
    visible = "".join(c if c.isprintable() or c == " " else "\ufffd" for c in text[:longest])
    return visible.encode("utf-8", "replace").decode() + ("…" if len(text) > longest else "")


def day(seconds: float) -> str:
    """Format a time as YYYY-MM-DD in UTC; empty where there is none."""
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds > 0 else ""
    except (OverflowError, ValueError, OSError):
        return ""


def groups(board: Board) -> list[tuple[str, int]]:
    """List (skill, number of columns) from the left."""
    out: list[tuple[str, int]] = []
    for column in board.columns:
        if out and out[-1][0] == column.skill:
            out[-1] = (column.skill, out[-1][1] + 1)
        else:
            out.append((column.skill, 1))
    return out


def row_of(board: Board, at: int, row: Row) -> dict[str, Any]:
    return {
        "row": row,
        "id": visible(row.id, 400),
        "name": visible(row.name),
        "about": visible(" · ".join(part for part in (row.stage, _step(row), row.recipe, day(row.started)) if part)),
        "apart": visible(row.apart),
        "tags": _tags(row),
        "watch": [visible(line, 600) for line in row.watch],
        "watched": visible(", ".join(line.partition(":")[0].replace("_", " ") for line in row.watch)),
        "averages": [_average(name, row.suites.get(name)) for name in board.suites],
        "costs": _costs(row) if board.costs else [],
        "cells": [_shown(board, at, row, number) for number in range(len(board.columns))],
    }


def _costs(row: Row) -> list[dict[str, str]]:
    """Build the cells of a row's tokens per answer and of its share of answers at the limit."""
    tokens, limit = row.tokens, row.at_limit
    return [
        {
            "name": "tokens",
            "value": "" if tokens is None else _number(tokens[0]),
            "text": "" if tokens is None else shown_tokens(tokens[0]),
            "title": "" if tokens is None else f"mean of {tokens[1]} task{'s' if tokens[1] > 1 else ''}",
        },
        {
            "name": "limit",
            "value": _number(limit),
            "text": "" if limit is None else f"{100 * limit:.1f} %",
            "title": "",
        },
    ]


def _tags(row: Row) -> list[tuple[str, str]]:
    """List (tag, what it means) of a row whose scores are not measured on the tasks' own documents."""
    tags = []
    if row.kind == "mock":
        words = {"mock": "made-up answers", "oracle": "the reference answers"}
        tags.append((row.backend or "mock", f"{words.get(row.backend, 'answers')} without a model; never ranked"))
    elif row.kind != "measured":
        tags.append(("as published" if row.kind == "published" else row.kind, ""))
    if row.sample:
        tags.append(("sample", "a few sample documents that ship with the tasks, not the benchmark; never ranked"))
    return [(visible(tag), visible(words)) for tag, words in tags]


def _step(row: Row) -> str:
    return "" if row.step is None else f"step {row.step}"


def _shown(board: Board, at: int, row: Row, number: int) -> dict[str, Any] | None:
    """Return the contents of a cell of the table; None where the row has no entry for the task."""
    column = board.columns[number]
    cell = row.cells.get(column.task)
    if cell is None:
        return None
    cell_marks = marks.marks(cell, row, column.suite)
    parts = marks.differs(cell, marks.nearest_above(board.rows, at, column.task)) if cell.value is not None else []
    tokens = [*(["differs:" + "+".join(parts)] if parts else []), *(mark.token for mark in cell_marks)]
    hidden = {*_OF_THE_ROW, *(("partial",) if cell.part else ())}  # the sign of a plan says it
    signs = dict.fromkeys(_sign(mark) for mark in cell_marks if mark.code not in hidden)
    return {
        "task": column.task,
        "value": _number(cell.value),
        "lo": _number(cell.lo),
        "hi": _number(cell.hi),
        "flags": " ".join(tokens),
        "text": "failed" if cell.error else "–" if cell.value is None else f"{100 * cell.value:.1f}",
        "bounds": _bounds(cell),
        "signs": ("≠" if parts else "") + "".join(signs),
    }


def _sign(mark: Mark) -> str:
    """Return the sign of a mark; the mark `looks` also shows its count."""
    return marks.SIGNS.get(mark.code, "!") + (str(mark.count) if mark.code == "looks" else "")


def _bounds(cell: Cell | Average) -> str:
    """Format the ends of an interval in points; of a wide one as whole numbers."""
    if cell.lo is None or cell.hi is None:
        return ""
    digits = 0 if cell.hi - cell.lo >= _WIDE else 1
    return f"{100 * cell.lo:.{digits}f}–{100 * cell.hi:.{digits}f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _average(name: str, average: Average | None) -> dict[str, Any]:
    if average is None or average.value is None:
        missing = ", ".join(short(task) for task in average.missing) if average else ""
        return {
            "suite": name,
            "value": "",
            "lo": "",
            "hi": "",
            "bounds": "",
            "text": "–" if average else "",
            "missing": missing,
        }
    return {
        "suite": name, "value": _number(average.value), "lo": _number(average.lo), "hi": _number(average.hi),
        "text": f"{100 * average.value:.1f}", "bounds": _bounds(average), "missing": "", "part": average.part,
        "signs": marks.SIGNS.get(average.part, "") + (marks.SIGNS["projected"] if average.projected else ""),
        "title": _average_title(average),
    }  # fmt: skip


def _average_title(average: Average) -> str:
    """Say in words over which documents an average is."""
    words = {"planned": "over the documents of a plan", "stopped": "over the documents of a run that stopped early"}
    parts = [words[average.part]] if average.part else []
    if average.projected is not None:
        parts.append(marks.projected(average.projected))
    return "; ".join(parts)
