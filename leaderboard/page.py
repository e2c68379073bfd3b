"""The page: one HTML text from the board, the pairs, and the files under `static/`."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard import comparisons, marks
from leaderboard.comparisons import Pair
from leaderboard.instances import Chunk, pack
from leaderboard.marks import Mark
from leaderboard.page_data import PARTS, Average, Board, Cell, Column, Row
from olmes_suite.comparison.reports import short
from olmes_suite.comparison.reports import tokens as shown_tokens
from olmes_suite.runs import differences
from olmes_suite.runs.schema import ENDINGS, Manifest, Projected

STATIC = Path(__file__).parent / "static"
SCRIPTS = (
    "core", "numbers", "state", "charts", "table", "rows", "compare", "documents", "diff", "lineage", "views", "export",
    "main",
)  # fmt: skip
"""Scripts in the order in which they are joined; they share one scope."""
SCHEMA = "1.0"
_LONGEST_NAME = 160
_WIDE = 0.04
"""Width of an interval whose ends are shown without a decimal."""
_OF_THE_ROW = frozenset({"imported", "published"})
"""Marks that are shown once, at the row's name."""
_UNFIT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Characters that are not valid in HTML or in UTF-8."""
_LEFT_OUT = frozenset({"plan", "tasks", "data", "schema"})
"""Long parts of a manifest that the page shows in another form."""


def render(board: Board, pairs: Sequence[Pair], documents: Iterable[Chunk], instances: str, title: str) -> str:
    """Render the whole file."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(STATIC), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    style, script = (STATIC / "page.css").read_text(encoding="utf-8"), _script()
    head = environment.get_template("page.html").render(
        title=_visible(title),
        policy=_policy(style, script),
        style=_Raw(style),
        script=_Raw(script),
        board=board,
        groups=_groups(board),
        rows=[_row(board, at, row) for at, row in enumerate(board.rows)],
        problems=[(_visible(p.run), _visible(p.reason, 600)) for p in board.problems],
        data=_Raw(_embedded(data(board, instances, title))),
        parts=any(cell.part for row in board.rows for cell in row.cells.values()),
        short=short,
        breakable=_breakable,
        wide=min(4, (len(board.columns) + len(board.suites) + 2 * board.costs) // 12),
        watched=any(row.watch for row in board.rows),
    )
    parts = [_UNFIT.sub("\ufffd", head)]
    details = [
        Chunk("details", pack([_details(row) for row in board.rows])),
        Chunk("pairs", pack(comparisons.as_json(pairs, board))),
    ]
    for chunk in (*details, *documents):
        parts.append(f'<script type="application/octet-stream" id="chunk-{chunk.id}">{chunk.data}</script>\n')
    parts.append("</body>\n</html>\n")
    return "".join(parts)


class _Raw(str):
    """Text that is put into the page without escaping: the files under `static/`, and JSON without `<`."""

    __slots__ = ()

    def __html__(self) -> str:
        return str(self)


def _breakable(name: str) -> _Raw:
    """Return a name as HTML that may break after its underscores and colons."""
    return _Raw(re.sub(r"(?<=[_:/|-])(?=[^_:/|-])", "<wbr>", html.escape(name)))


def _script() -> str:
    """Join the scripts, without indentation and lines of comments, which every page would carry."""
    lines = "\n".join((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS).split("\n")
    kept = [line for line in map(str.strip, lines) if line and not line.startswith(("//", "/** "))]
    return '(() => {\n"use strict";\n' + "\n".join(kept) + "\n})();\n"


def _policy(style: str, script: str) -> str:
    """Write the content security policy: only the page's script and style, by their hashes, and no requests."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; style-src 'sha256-{hashes[1]}'; img-src 'none'; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    )


def _embedded(value: object) -> str:
    """Encode a value as ASCII JSON that cannot end its script element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _visible(text: str, longest: int = _LONGEST_NAME) -> str:
    """Replace control characters and lone surrogates in a text, and cut it."""
    visible = "".join(c if c.isprintable() or c == " " else "\ufffd" for c in text[:longest])
    return visible.encode("utf-8", "replace").decode() + ("…" if len(text) > longest else "")


def day(seconds: float) -> str:
    """Format a time as YYYY-MM-DD in UTC; empty where there is none."""
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds > 0 else ""
    except (OverflowError, ValueError, OSError):
        return ""


def _groups(board: Board) -> list[tuple[str, int]]:
    """List (skill, number of columns) from the left."""
    out: list[tuple[str, int]] = []
    for column in board.columns:
        if out and out[-1][0] == column.skill:
            out[-1] = (column.skill, out[-1][1] + 1)
        else:
            out.append((column.skill, 1))
    return out


def _row(board: Board, at: int, row: Row) -> dict[str, Any]:
    return {
        "row": row,
        "id": _visible(row.id, 400),
        "name": _visible(row.name),
        "about": _visible(
            " · ".join(part for part in (row.stage, _step(row), row.recipe, row.apart, day(row.started)) if part)
        ),
        "tags": _tags(row),
        "watch": [_visible(line, 600) for line in row.watch],
        "watched": _visible(", ".join(line.partition(":")[0].replace("_", " ") for line in row.watch)),
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
    return [(_visible(tag), _visible(words)) for tag, words in tags]


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
    return f"{100 * cell.lo:.{digits}f}–{100 * cell.hi:.{digits}f}"  # noqa: RUF001 - a range


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


def _details(row: Row) -> dict[str, Any]:
    """Build the details of a row, which a click shows: its settings, and the manifests without their longest parts."""
    return {
        "facts": dict(row.facts),
        "checkpoint": differences.checkpoint(row.runs[0].manifest) if row.facts else "",
        "runs": [
            {key: value for key, value in run.manifest.as_json().items() if key not in _LEFT_OUT}
            | _sources(run.manifest)
            for run in row.runs
        ]
    }


def _sources(manifest: Manifest) -> dict[str, Any]:
    """List the data sets with their revisions, each once, and the lineage with counts instead of documents."""
    named = {f"{used.path}@{used.revision} ({used.origin})" for used in manifest.data.values()}
    return {"data": sorted(named), "lineage": manifest.lineage.summary()}
