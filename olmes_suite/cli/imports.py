"""olmes import scores: record scores of another evaluation as a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from olmes_suite.cli.options import Json, Runs

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE", help='JSON lines {"task","doc_id","score"[,"cluster"]}.')]
Name = Annotated[str, typer.Option("--name", help="Name of the run.")]
Again = Annotated[bool, typer.Option("--again", help="Replace an existing run of that name.")]


@app.callback()
def callback() -> None:
    """Import results of other evaluations into the run store."""


@app.command()
def scores(file: File, name: Name, runs: Runs = Path("runs"), again: Again = False, as_json: Json = False) -> None:
    """Record scores of another evaluation as a run. Scores are fractions from 0 to 1; task names are not changed."""
    from olmes_suite.evaluation.arguments import local
    from olmes_suite.runs.imports import import_scores
    from olmes_suite.runs.schema import read_results
    from olmes_suite.runs.store import command_line

    local(runs)
    folder = import_scores(file, name, runs, command_line(), again)
    results = read_results(folder)
    if as_json:
        print(json.dumps({**results.as_json(), "path": str(folder)}, ensure_ascii=False))
        return
    for task, entry in results.tasks.items():
        assert entry.score is not None and entry.score.value is not None
        print(f"{task}: {entry.n} documents, {100 * entry.score.value:.1f}")
    print(f"run     {folder}")
