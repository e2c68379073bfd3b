"""olmes prompts: print the requests of a task before any chat template is applied."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from olmes_suite.cli.options import Data, DataDirs

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def prompts(
    task: Annotated[str, typer.Option("--task", help="A task or group, prefix optional.")],
    doc_ids: Annotated[
        str | None,
        typer.Option(
            "--doc-ids", help="Rows of the split from 0: 0,17,…; for a group, of every sub-task that has the row."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Documents of each leaf task, chosen as by `olmes eval --limit`.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed for --limit.")] = 1234,
    data_dir: DataDirs = None,
    data: Data = None,
) -> int:
    """Print the requests of a task, one JSON line each."""
    from olmes_suite import api

    rows = _numbers(doc_ids) if doc_ids is not None else None
    for request in api.prompts(task, doc_ids=rows, limit=limit, seed=seed, data_dir=data_dir, data=data):
        print(json.dumps(request, ensure_ascii=False))
    return 0


def _numbers(text: str) -> list[int]:
    from olmes_suite.errors import UsageError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--doc-ids takes comma-separated integers, not {text!r}") from error
