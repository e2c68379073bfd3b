"""olmes leaderboard: the page of a run store."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from olmes_suite.cli.options import IncludePath, Json, Runs
from olmes_suite.wording import count, size

if TYPE_CHECKING:
    from leaderboard.build import Built

app = typer.Typer(add_completion=False, rich_markup_mode=None)
CHOICES = ("all", "flips", "none")
LARGE = 60_000_000

Out = Annotated[Path, typer.Option("--out", help="The HTML file to write.")]
Instances = Annotated[
    str | None,
    typer.Option("--instances", metavar="all|flips|none", help="Documents to embed: all, those on which runs disagree, "
                 "none; by default all, but none for more than 400 scores."),
]  # fmt: skip
Published = Annotated[
    bool, typer.Option("--published", help="Add the scores of the Tülu 3 and OLMo 3 papers as reference rows.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Keep running, and write the page again when runs change.")]
Png = Annotated[
    Path | None,
    typer.Option(
        "--png", help="Also write the table as a picture, by a browser: chromium or the one in $OLMES_BROWSER."
    ),
]
Every = Annotated[float, typer.Option("--every", min=0.1, help="Seconds between the checks of --watch.")]


@app.command()
def leaderboard(
    out: Out, runs: Runs = Path("runs"), instances: Instances = None, published: Published = False,
    png: Png = None, watch: Watch = False, every: Every = 5.0, include_path: IncludePath = None, as_json: Json = False,
) -> int:  # fmt: skip
    """Write one HTML file that shows all runs of a folder. It needs no server.

    Exit status: 0, 2 wrong usage (a run that cannot be read is listed on the page), 130 where --watch is interrupted.
    """
    from leaderboard.build import state
    from olmes_suite.errors import UsageError
    from olmes_suite.evaluation.arguments import include

    include(include_path)
    if instances not in (None, *CHOICES):
        raise UsageError(f"--instances takes all, flips or none, not {instances!r}")
    if out.is_dir():
        raise UsageError(f"--out {out} is a folder: name the HTML file to write")
    if png is not None and (png.is_dir() or png.suffix.lower() != ".png"):
        raise UsageError(f"--png {png}: name a file that ends in .png")
    if ":/" in str(runs):
        raise UsageError(f"--runs takes a local folder, not {runs}")
    browser = None
    if png is not None:
        from leaderboard.picture import find_browser

        browser = find_browser()

    def write() -> None:
        _write(runs, out, cast("Any", instances), published, as_json, (png, browser) if png and browser else None)

    seen = state(runs)
    write()
    while watch:
        time.sleep(every)
        if (now := state(runs)) != seen:
            seen = now
            write()
    return 0


def _write(
    runs: Path, out: Path, instances: Any, published: bool, as_json: bool, picture: tuple[Path, str] | None
) -> None:
    """Write the page, say so, and take its picture."""
    from leaderboard.build import build

    _say(build(runs, out, instances, published), as_json)
    if picture is not None:
        from leaderboard.picture import share_picture

        share_picture(out, *picture)
        if not as_json:
            print(f"{picture[0]}: {size(picture[0].stat().st_size)}", flush=True)


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
    counted = f"{count(built.rows, 'row')}, {count(built.tasks, 'task')}, documents: {built.instances}"
    print(f"{built.path}: {counted}, {size(built.bytes)}", flush=True)
    if built.bytes > LARGE and built.instances == "all":
        print("note: a large page; --instances flips embeds only documents that runs disagree on", file=sys.stderr)
    for problem in built.problems:
        reason = "".join(c if c.isprintable() else "?" for c in problem.reason)
        print(f"note: {problem.run}: {reason}", file=sys.stderr)
