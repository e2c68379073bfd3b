"""olmes runs: list the recorded runs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import Json, Runs

if TYPE_CHECKING:
    from olmes_suite.runs.schema import Manifest, Metric, Results

app = typer.Typer(add_completion=False, rich_markup_mode=None)
_NARROWEST = 12
"""Fewest characters of a column that holds names, however narrow the terminal is."""
_PLACES = (r"(?<=; )", r"(?<= )", r"(?<=[/_-])(?<!\de-)(?![/_-])")
"""Where a text may be broken, best first: after a mark, a word, a part of a name; not in a number such as 5e-7."""
SORTS = ("date", "name", "score")


@dataclass(frozen=True, slots=True)
class Listed:
    """A run of the list."""

    path: Path
    results: Results
    manifest: Manifest

    def score(self, task: str | None) -> tuple[str, Metric | None]:
        """Return the name and value of the run's score: of the task, else of its suite, else of its only task."""
        tasks = self.results.top_tasks
        if task is not None:
            return task, self.results.tasks[task].score
        if self.results.suites:
            return next(iter(self.results.suites.items()))
        if len(tasks) == 1:
            name = next(iter(tasks))
            return name, tasks[name].score
        return "", None

    def marks(self) -> list[str]:
        """Return what a reader must know before comparing the run with others."""
        manifest, results = self.manifest, self.results
        marks = [
            (manifest.imported, "imported"),
            (manifest.sample, "sample"),
            (manifest.limit is not None, f"limit {manifest.limit}"),
            (manifest.max_documents is not None, f"at most {manifest.max_documents}"),
            (manifest.planned is not None, "planned"),
            (results.stopped is not None, "stopped early"),
            (bool(results.failed), f"{len(results.failed)} failed"),
        ]
        return [text for given, text in marks if given]


@app.command()
def runs(
    runs: Runs = Path("runs"),
    model: Annotated[str | None, typer.Option("--model", help="Only runs whose model has this text.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only runs of this task, with its score.")] = None,
    suite: Annotated[str | None, typer.Option("--suite", help="Only runs of this suite.")] = None,
    sort: Annotated[str, typer.Option("--sort", help="date (newest first), name, or score (best first).")] = "date",
    as_json: Json = False,
) -> int:
    """List the recorded runs, newest first. An unreadable run is named on standard error."""
    from olmes_suite.errors import UsageError, nearest
    from olmes_suite.tasks.index import full_name

    if sort not in SORTS:
        raise UsageError(f"--sort {sort}: not one of {', '.join(SORTS)}{nearest(sort, SORTS)}")
    found = [run for run in _read(runs) if model is None or model in str(run.manifest.model.path or run.results.model)]
    if suite is not None:
        found = [run for run in found if suite in run.results.suites]
    if task is not None:
        names = {run.path: next((n for n in (task, full_name(task)) if n in run.results.tasks), None) for run in found}
        found = [run for run in found if names[run.path] is not None]
        task = next(filter(None, names.values()), task)
    found = _sorted(found, sort, task)
    if as_json:
        print(json.dumps([_as_json(run) for run in found], ensure_ascii=False))
    elif found:
        _print(found, task)
    else:
        print(f"no runs{' of these' if model or task or suite else ''} in {runs}")
    return 0


def _read(folder: Path) -> list[Listed]:
    from olmes_suite.errors import OlmesError
    from olmes_suite.runs.schema import read_manifest, read_results
    from olmes_suite.runs.store import finished

    found = []
    for path in finished(folder):
        try:
            found.append(Listed(path, read_results(path), read_manifest(path)))
        except OlmesError as error:
            print(f"olmes: left out: {error}", file=sys.stderr)
    return found


def _sorted(found: list[Listed], sort: str, task: str | None) -> list[Listed]:
    def value(run: Listed) -> float:
        metric = run.score(task)[1]
        return metric.value if metric is not None and metric.value is not None else -1.0

    by_name = sorted(found, key=lambda run: run.path.name)
    if sort == "date":
        return sorted(by_name, key=_started, reverse=True)
    return sorted(by_name, key=value, reverse=True) if sort == "score" else by_name


def _started(run: Listed) -> float:
    time = run.manifest.time
    return time.started or 0.0 if time is not None else 0.0


def _as_json(run: Listed) -> dict[str, Any]:
    results, manifest = run.results, run.manifest
    return {
        "run": run.path.name,
        "path": str(run.path),
        "model": manifest.model.path or results.model,
        "backend": manifest.engine.backend,
        "started": _started(run) or None,
        "suites": {name: suite.as_json() for name, suite in results.suites.items()},
        "tasks": {
            name: {"n": entry.n, "metric": entry.primary, **(entry.score.as_json() if entry.score else {"value": None})}
            for name, entry in results.top_tasks.items()
        },
        "marks": run.marks(),
    }


def _print(found: list[Listed], task: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    rows = [_row(run, task) for run in found]
    headings = ("run", "date", "n", "score", "95 % interval", "")
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    room = console.width - sum(widths[1:-1]) - (len(widths) - 1)
    widths[0] = min(widths[0], max(room - widths[-1], room // 2, _NARROWEST))
    widths[-1] = max(room - widths[0], _NARROWEST)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(
            heading, justify="right" if heading in headings[2:5] else "left", no_wrap=True, min_width=width
        )
    for row in rows:
        table.add_row("\n".join(folded(row[0], widths[0])), *row[1:-1], "\n".join(folded(row[-1], widths[-1])))
    console.print(table, crop=False)


def _row(run: Listed, task: str | None) -> tuple[str, ...]:
    """Return a run's line: name, date, documents, score, interval, and what a reader must know."""
    from olmes_suite.tasks.index import PREFIX

    name, metric = run.score(task)
    lo, hi = (metric.ci95 if metric is not None else None) or (None, None)
    started, entries = _started(run), run.results.top_tasks.values()
    n = run.results.tasks[task].n if task is not None else sum(entry.n for entry in entries)
    what = name.removeprefix(PREFIX) if name else f"{len(entries)} tasks"
    return (
        run.path.name,
        _date(started) if started else "–",
        str(n),
        _points(metric.value if metric else None),
        f"{_points(lo)} – {_points(hi)}" if lo is not None else "",
        "; ".join([what, *run.marks()]),
    )


def folded(text: str, width: int, places: Sequence[str] = _PLACES) -> list[str]:
    """Return the lines of a text, broken after `;`, where that is not enough after spaces, else after `/`, `_` and `-`.

    Words and numbers stay whole; only a word longer than a line is broken inside.
    """
    if not places:
        return [text[start : start + width] for start in range(0, len(text), width)]
    lines = [""]
    for piece in re.split(places[0], text):
        if len((lines[-1] + piece).rstrip()) <= width:
            lines[-1] += piece
        else:
            lines = [*filter(None, lines), *folded(piece, width, places[1:])]
    return [line.rstrip() for line in lines]


def _points(value: float | None) -> str:
    """Format a fraction in points; a length in characters as it is."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value > 2 else f"{100 * value:.1f}"


def _date(seconds: float) -> str:
    """Format a time: with the hour in this year, with the year in others."""
    moment = datetime.fromtimestamp(seconds)
    return moment.strftime("%m-%d %H:%M" if moment.year == datetime.now().year else "%Y-%m-%d")
