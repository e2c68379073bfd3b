"""Options and the course that the commands of `olmes data` share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import typer

from olmes_suite.cli.options import Json
from olmes_suite.errors import NothingLeft
from olmes_suite.wording import count
from train_plugins.data.curation import recipe as recipes
from train_plugins.data.curation.output import REJECTED, Input, Output, finished
from train_plugins.data.curation.recipe import Curation, Loaded

__all__ = ["Changes", "Command", "DryRun", "Json", "Options", "Out", "RecipeFile", "Resume", "make", "table"]

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to make; replaces the recipe's `output`.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe; repeatable.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue an unfinished run of the same recipe.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only print what would be made.")]

K = TypeVar("K", bound=Curation)


@dataclass(frozen=True, slots=True)
class Command(Generic[K]):
    """One command of `olmes data`, as `make` runs it."""

    name: str
    keys: type[K]
    inputs: Callable[[Loaded[K]], Sequence[Input]]
    """Finds and hashes what the recipe reads. Raises OlmesError."""
    plan: Callable[[Loaded[K], Sequence[Input]], Mapping[str, Any]]
    """What would be made, by the name under which `--dry-run` prints it."""
    make: Callable[[Loaded[K], Output], Mapping[str, Any]]
    """Makes the data set and returns its manifest, from `Output.finish`."""
    summary: Callable[[Mapping[str, Any]], Sequence[str]]
    """The lines to print about a manifest."""
    recheck: Callable[[Loaded[K], Mapping[str, Any]], None] | None = None
    """Raises UsageError for a finished data set that would come out otherwise today for a reason besides its inputs."""


@dataclass(frozen=True, slots=True)
class Options:
    """The shared options, as given."""

    out: Path | None = None
    changes: Sequence[str] = ()
    resume: bool = False
    dry_run: bool = False
    as_json: bool = False


def make(command: Command[K], file: Path, options: Options) -> int:
    """Run a command: read its recipe, then print the plan, or make the data set and print its summary.

    Raises OlmesError; NothingLeft if the data set has no rows.
    """
    loaded = recipes.load(file, command.name, command.keys, changes=options.changes, output=options.out)
    inputs = tuple(command.inputs(loaded))
    if options.dry_run:
        planned = command.plan(loaded, inputs)
        lines = [json.dumps(planned, ensure_ascii=False)] if options.as_json else _lines(planned)
        print("\n".join(lines))
        return 0
    manifest: Mapping[str, Any] | None = finished(loaded, inputs) if options.resume else None
    if manifest is not None and command.recheck is not None:
        command.recheck(loaded, manifest)
    if manifest is None:
        with Output(loaded, inputs, options.resume) as output:
            manifest = command.make(loaded, output)
    if options.as_json:
        print(json.dumps({"out": str(loaded.output), **manifest}, ensure_ascii=False))
    else:
        print("\n".join([*command.summary(manifest), f"written to {loaded.output}"]))
    if (counts := manifest["counts"])["written"] == 0:
        raise NothingLeft(_lost(counts, loaded.output))
    return 0


def _lost(counts: Mapping[str, Any], folder: Path) -> str:
    """Say why a data set has no rows, the most frequent reason first."""
    reasons = sorted(counts["rejected"].items(), key=lambda one: (-one[1], one[0]))
    rest = "".join(f", {number:,} as {reason}" for reason, number in reasons[1:3])
    rest += f", and {count(len(reasons) - 3, 'other reason')}" if len(reasons) > 3 else ""
    read = counts["read"] + counts.get("added", 0)
    why = f": {reasons[0][1]:,} of {read:,} are left out as {reasons[0][0]}{rest}" if reasons else ""
    return f"no row is left{why}; {folder / REJECTED} lists each"


def _lines(planned: Mapping[str, Any]) -> list[str]:
    """Return the lines of a plan: a name and its value, or its list below it; empty lists are left out."""
    lines = []
    for name, value in planned.items():
        if value == []:
            continue
        if isinstance(value, list | tuple):
            lines += [f"{name}:", *(f"  {one}" for one in value)]
        else:
            lines.append(f"{name}: {value}")
    return lines


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], width: int = 24) -> list[str]:
    """Return the lines of a table whose first column has at most `width` characters; None is shown as nothing."""
    cells = [[_cut(str(row[0]), width), *map(_shown, row[1:])] for row in rows]
    left = [all(isinstance(row[n], str) for row in rows) for n in range(len(heads))]
    widths = [max(len(row[n]) for row in [list(heads), *cells]) for n in range(len(heads))]
    return [
        "  ".join(text.ljust(widths[n]) if left[n] else text.rjust(widths[n]) for n, text in enumerate(row)).rstrip()
        for row in [list(heads), *cells]
    ]


def _shown(value: Any) -> str:
    """Return a cell's text, numbers with separators of thousands."""
    return "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)


def _cut(text: str, width: int) -> str:
    """Return a text that is at most `width` characters long."""
    return text if len(text) <= width else text[: width - 1] + "…"
