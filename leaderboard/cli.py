"""olmes leaderboard: the page of a run store."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from olmes_suite.cli.options import IncludePath, Json, Runs

if TYPE_CHECKING:
    from leaderboard.build import Built

app = typer.Typer(add_completion=False, rich_markup_mode=None)
CHOICES = ("all", "flips", "none")
LARGE = 60_000_000

Out = Annotated[Path, typer.Option("--out", help="The HTML file to write.")]
Instances = Annotated[
    str | None,
    typer.Option("--instances", metavar="all|flips|none", help="Documents to embed: all, those on which runs disagree, "
                 "none. [all, none for more than 400 scores]"),
]  # fmt: skip
Published = Annotated[
    bool, typer.Option("--published", help="Add the scores of the Tülu 3 and OLMo 3 papers as reference rows.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Keep running, and write the page again when runs change.")]
Every = Annotated[float, typer.Option("--every", min=0.1, help="Seconds between the checks of --watch.")]


@app.command()
def leaderboard(
    out: Out, runs: Runs = Path("runs"), instances: Instances = None, published: Published = False,
    watch: Watch = False, every: Every = 5.0, include_path: IncludePath = None, as_json: Json = False,
) -> int:  # fmt: skip
    """Write one HTML file that shows all runs of a folder. It needs no server.

    Exit status: 0, 2 wrong usage (a run that cannot be read is listed on the page), 130 where --watch is interrupted.
    """
    from leaderboard.build import build, state
    from olmes_suite.errors import UsageError
    from olmes_suite.evaluation.arguments import include

    include(include_path)
    if instances not in (None, *CHOICES):
        raise UsageError(f"--instances takes all, flips or none, not {instances!r}")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name the HTML file to write")
    if ":/" in str(runs):
        raise UsageError(f"--runs takes a local folder, not {runs}")
    chosen = cast("Any", instances)
    seen = state(runs)
    _say(build(runs, out, chosen, published), as_json)
    while watch:
        time.sleep(every)
        if (now := state(runs)) != seen:
            seen = now
            _say(build(runs, out, chosen, published), as_json)
    return 0


def _say(built: Built, as_json: bool) -> None:
    """Print one line about the page, and one for each run that it leaves out."""
    if as_json:
        import json

        problems = [{"run": problem.run, "reason": problem.reason} for problem in built.problems]
        summary = {"path": str(built.path), "rows": built.rows, "tasks": built.tasks, "bytes": built.bytes}
        print(
            json.dumps({**summary, "instances": built.instances, "problems": problems}, ensure_ascii=False), flush=True
        )
        return
    size = f"{built.bytes / 1e6:.1f} MB"
    print(f"{built.path}: {built.rows} rows, {built.tasks} tasks, documents: {built.instances}, {size}", flush=True)
    if built.bytes > LARGE and built.instances == "all":
        print("note: a large page; --instances flips embeds only documents that runs disagree on", file=sys.stderr)
    for problem in built.problems:
        reason = "".join(c if c.isprintable() else "?" for c in problem.reason)
        print(f"note: {problem.run}: {reason}", file=sys.stderr)
