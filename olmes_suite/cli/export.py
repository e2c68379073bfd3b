"""olmes export: a run in the form of another tool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from olmes_suite.cli.options import Json, Runs
from olmes_suite.wording import count

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def export(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run: folder, name, part of its name, or its checkpoint.")
    ],
    to: Annotated[str, typer.Option("--to", help="lm-eval, every-eval-ever, inspect, hub, csv, markdown or latex.")],
    out: Annotated[Path, typer.Option("--out", help="File for csv, markdown and latex; a folder for the others.")],
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> int:
    """Write a run for another tool: its log files, a model card of the Hub, or a table.

    Scores are fractions in log files and CSV, points in tables and model cards.
    """
    from olmes_suite import api
    from olmes_suite.errors import UsageError, nearest
    from olmes_suite.evaluation.exports import FORMS, exporter

    if to not in FORMS:
        raise UsageError(f"--to {to}: not one of {', '.join(FORMS)}{nearest(to, FORMS)}")
    single = to in ("csv", "markdown", "latex")
    if single and out.is_dir():
        raise UsageError(f"--out {out} is a folder; --to {to} writes one file")
    if not single and out.is_file():
        raise UsageError(f"--out {out} is a file; --to {to} writes into a folder")
    opened = api.load(run, runs)
    (out.parent if single else out).mkdir(parents=True, exist_ok=True)
    written = exporter(to)(opened, out)
    if as_json:
        print(json.dumps({"run": opened.name, "to": to, "files": [str(file) for file in written]}))
    else:
        for file in written[:3]:
            print(file)
        if len(written) > 3:
            print(f"and {count(len(written) - 3, 'more file')}")
    return 0
