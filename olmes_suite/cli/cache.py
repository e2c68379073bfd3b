"""olmes cache: what `olmes eval --cache DIR` has kept, by model, and how to let go of it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from olmes_suite.cli.options import Json

app = typer.Typer(add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(help="The folder that was given to `olmes eval --cache`, or a judge's.")]
Model = Annotated[str | None, typer.Option("--model", help="Only of this model: name, or start of fingerprint.")]
Days = Annotated[float | None, typer.Option("--older-than", min=0, help="Only what was kept so many days ago.")]
Task = Annotated[str | None, typer.Option("--task", help="Only of this leaf task; prefix optional.")]
All = Annotated[bool, typer.Option("--all", help="Everything.")]


@app.callback()
def callback() -> None:
    """Responses kept across runs."""


@app.command()
def show(folder: Folder, as_json: Json = False) -> int:
    """List the models in a cache, the one used last first."""
    from olmes_suite.models.cache.store import Store

    with closing(Store(folder, create=False)) as cache:
        found = cache.holdings()
    if as_json:
        print(json.dumps([asdict(holding) for holding in found]))
        return 0
    print(f"{'model':<32} {'backend':<8} {'fingerprint':<14}{'responses':>10}{'MB':>8}  last")
    for one in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.last))
        size = f"{one.responses:>10}{one.megabytes:>8.1f}"
        print(f"{one.name[:32]:<32} {one.backend:<8} {one.model[:12]:<14}{size}  {when}")
    return 0


@app.command()
def prune(
    folder: Folder, model: Model = None, older_than: Days = None, task: Task = None, everything: All = False
) -> int:
    """Delete responses: those that match all that is given. A run that is under way goes on."""
    from olmes_suite.errors import UsageError
    from olmes_suite.models.cache.store import Store
    from olmes_suite.tasks import index

    if model is None and older_than is None and task is None and not everything:
        raise UsageError("say what to delete: --model, --older-than, --task, or --all")
    name = None if task is None else task if task.startswith(index.PREFIX) else index.PREFIX + task
    before = None if older_than is None else time.time() - 86400 * older_than
    with closing(Store(folder, create=False)) as cache:
        print(f"{cache.prune(model, before, name)} responses deleted")
    return 0
