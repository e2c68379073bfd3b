"""olmes data mix: several sources become one training set."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from olmes_suite.cli.options import BareRay
from olmes_suite.wording import count
from train_plugins.data_cli.options import (
    Changes,
    Command,
    DryRun,
    Json,
    Options,
    Out,
    RecipeFile,
    Resume,
    make,
    table,
)

app = typer.Typer(add_completion=False, rich_markup_mode=None)
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="[ADDRESS]", help="Work on a Ray cluster; without an address, on the one at hand."),
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of processes; by default one for each core.")
]


@app.command(cls=BareRay)
def mix(
    recipe: RecipeFile, out: Out = None, change: Changes = None, resume: Resume = False, dry_run: DryRun = False,
    workers: Workers = None, ray: Ray = None, as_json: Json = False,
) -> int:  # fmt: skip
    """Mix sources into one training set: filtered, without duplicates and evaluation items, with a data card.

    Exit status: 0 made, 1 refused (contamination), 2 wrong usage or data, 130 interrupted.
    """
    from olmes_suite.extras import require
    from train_plugins.data.curation.mix import make as course
    from train_plugins.data.curation.mix.keys import Mix

    require("curate", "olmes data mix")
    if ray is not None:
        require("ray", "--ray")
    machines = course.Machines.here(workers) if ray is None else course.Machines.on_ray(ray)
    command = Command(
        "mix", Mix, course.inputs, course.plan,
        lambda loaded, output: _made(course.make(loaded, output, machines, _watch(as_json)), as_json), summary,
        course.check_evaluations,
    )  # fmt: skip
    return make(command, recipe, Options(out, change or (), resume, dry_run, as_json))


def _made(manifest: Mapping[str, Any], as_json: bool) -> Mapping[str, Any]:
    """Print the notes of a mix to stderr where stdout has JSON only."""
    for line in _notes(manifest) if as_json else ():
        print(line, file=sys.stderr)
    return manifest


def _watch(quiet: bool) -> Any:
    """Return a function that shows the step on a terminal."""
    if quiet or not sys.stderr.isatty():
        return lambda step, done, total: None

    def show(step: str, done: int, total: int) -> None:
        count = f" {done} of {total}" if total > 1 else ""
        print(f"\r\x1b[K{step}{count} …", end="" if step != "writing" else "\r\x1b[K", file=sys.stderr, flush=True)

    return show


def summary(manifest: Mapping[str, Any]) -> Sequence[str]:
    """Return the lines to print about a finished mix."""
    content = manifest["mix"]
    rows = []
    for one in content["sources"]:
        rejected = one["rejected"]
        copies = rejected.get("exact_duplicate", 0) + rejected.get("near_duplicate", 0)
        dirty, unused = rejected.get("contaminated", 0), rejected.get("not_sampled", 0)
        other = sum(rejected.values()) - copies - dirty - unused
        rows.append([one["source"], one["read"], other, copies, dirty, unused, one["rows"]])
    heads = ["source", "read", "filtered", "copies", "matching", "not drawn", "rows"]
    held_out = f", {content['held_out']:,} of them held out" if content["held_out"] else ""
    lines = [
        *table(heads, rows),
        f"{count(content['rows'], 'row', separated=True)}{held_out}, {content['tokens']:,} tokens",
    ]
    return [*lines, *_notes(manifest)]


def _notes(manifest: Mapping[str, Any]) -> list[str]:
    """Return what a user should know about a mix besides its numbers."""
    content = manifest["mix"]
    found = content["decontamination"] or {"missing": (), "over_the_limit": ()}
    lines = [f"note: {line}" for line in found["over_the_limit"]]
    if found["missing"]:
        lines.insert(
            0, f"note: not compared with {count(len(found['missing']), 'task')} whose documents are not on this machine"
        )
    missing = [one["source"] for one in content["sources"] if one["licence"] == "unknown"]
    return [*lines, *([f"note: no licence is given for {', '.join(missing)}"] if missing else [])]
