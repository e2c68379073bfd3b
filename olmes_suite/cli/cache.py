"""olmes cache: list and delete the responses that `olmes eval --cache DIR` stored, by model."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from olmes_suite.cli.options import Json, WholeSentences

app = typer.Typer(cls=WholeSentences, add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Folder = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The folder given to `olmes eval --cache`, or a judge's cache.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="Only this model: its name or the start of its fingerprint.")
]
Days = Annotated[float | None, typer.Option("--older-than", min=0, help="Only responses older than this many days.")]
Task = Annotated[str | None, typer.Option("--task", help="Only this task or sub-task, with or without `tulu3_`.")]
All = Annotated[bool, typer.Option("--all", help="Delete the responses of all models and tasks.")]


@app.callback()
def callback() -> None:
    """List or delete responses cached across runs."""


@app.command()
def show(folder: Folder, as_json: Json = False) -> int:
    """List the models in a cache, most recently used first."""
    from olmes_suite.models.cache.store import Store

    with closing(Store(folder, create=False)) as cache:
        holdings = cache.holdings()
    if as_json:
        print(json.dumps([asdict(holding) for holding in holdings]))
        return 0
    print(f"{'model':<32} {'backend':<8} {'fingerprint':<14}{'responses':>10}{'MB':>8}  last")
    for holding in holdings:
        last_used = time.strftime("%Y-%m-%d %H:%M", time.localtime(holding.last))
        size = f"{holding.responses:>10}{holding.megabytes:>8.1f}"
        print(f"{holding.name[:32]:<32} {holding.backend:<8} {holding.model[:12]:<14}{size}  {last_used}")
    return 0


@app.command()
def prune(
    folder: Folder, model: Model = None, older_than: Days = None, task: Task = None, everything: All = False
) -> int:
    """Delete the responses that match all given options. Runs in progress are not interrupted."""
    from olmes_suite.errors import UsageError
    from olmes_suite.models.cache.store import Store
    from olmes_suite.tasks import index

    if model is None and older_than is None and task is None and not everything:
        raise UsageError("nothing to delete: pass --model, --older-than, --task or --all")
    task_name = None if task is None else task if task.startswith(index.PREFIX) else index.PREFIX + task
    before = None if older_than is None else time.time() - 86400 * older_than
    with closing(Store(folder, create=False)) as cache:
        print(f"{cache.prune(model, before, task_name)} responses deleted")
    return 0
