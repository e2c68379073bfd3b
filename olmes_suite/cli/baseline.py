"""olmes baseline: name a run, or write its scores to a file small enough for a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from olmes_suite.cli.options import Runs, WholeSentences

app = typer.Typer(cls=WholeSentences, add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Reference = Annotated[str, typer.Argument(metavar="RUN", help="A run's folder or name.")]


@app.callback()
def callback() -> None:
    """Baselines for `olmes gate`."""


@app.command("set")
def set_name(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name that the run gets.")],
    run: Reference,
    runs: Runs = Path("runs"),
) -> None:
    """Name a run of the run store, for `olmes gate --baseline NAME`."""
    from olmes_suite.errors import UsageError
    from olmes_suite.runs.baseline import name_baseline
    from olmes_suite.runs.locate import locate
    from olmes_suite.runs.scores import read_run

    path = locate(run, runs)
    if not path.is_dir():
        raise UsageError(f"{run} is a baseline file; only a run in the run store can have a name")
    read_run(path)
    name_baseline(name, path, runs)
    print(f"baseline {name} is run {path.name}")


@app.command()
def save(
    run: Reference,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write; gzipped where its name ends in .gz.")],
    runs: Runs = Path("runs"),
) -> None:
    """Write a run's scores of documents, without texts, to a file small enough for a repository."""
    from olmes_suite.runs.baseline import save as write_baseline
    from olmes_suite.runs.locate import load
    from olmes_suite.wording import count, size

    scores = load(run, runs)
    write_baseline(scores, file)
    documents = sum(task.n for task in scores.tasks.values())
    counted = f"{count(len(scores.tasks), 'task')}, {count(documents, 'document')}"
    print(f"{file}: {counted}, {size(file.stat().st_size)}")


@app.command("list")
def list_names(runs: Runs = Path("runs")) -> None:
    """Print the named baselines."""
    from olmes_suite.runs.baseline import named

    for name, run in sorted(named(runs).items()):
        print(f"{name}\t{run}")
