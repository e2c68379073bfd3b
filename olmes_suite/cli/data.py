"""olmes data: mirrors of the benchmark data, and the commands of `train_plugins` that make training data."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from olmes_suite.cli.options import SENTENCE, DataDirs, IncludePath, Json
from olmes_suite.evaluation.arguments import include, source

if TYPE_CHECKING:
    from olmes_suite.tasks.mirror import Verdict

CURATION: dict[str, tuple[str, str]] = {
    "mix": ("train_plugins.data_cli.mix", "Mix sources into one training set, with a data card."),
    "mixes": ("train_plugins.data_cli.mixes", "List the shipped mixes: data sets, amounts, licences."),
    "ablate": ("train_plugins.data_cli.ablate", "Write mixes without one source and with one more, and train on each."),
    "prompts": ("train_plugins.data_cli.prompts", "Have a model write prompts for personas, by skill."),
    "responses": ("train_plugins.data_cli.responses", "Answer prompts by models and keep what is usable."),
    "passrate": ("train_plugins.data_cli.passrate", "Measure how often a model solves each prompt; filter by it."),
    "preferences": ("train_plugins.data_cli.preferences", "Make preference pairs by a judge or a verifier."),
}
"""Commands that make training data: module and help line. A module is imported when its command is called."""


class DataGroup(TyperGroup):
    """The commands of this module and those of `CURATION`."""

    def list_commands(self, ctx: Any) -> list[str]:
        """List the commands."""
        return [*super().list_commands(ctx), *CURATION]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command; None for an unknown name."""
        if cmd_name in CURATION:
            return get_command(importlib.import_module(CURATION[cmd_name][0]).app)
        return super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands without importing those of `CURATION`."""
        ours = {name: super(DataGroup, self).get_command(ctx, name) for name in super().list_commands(ctx)}
        rows = [(name, command.get_short_help_str(SENTENCE)) for name, command in ours.items() if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, *((name, about) for name, (_, about) in CURATION.items())])


app = typer.Typer(cls=DataGroup, add_completion=False, rich_markup_mode=None, no_args_is_help=True)
Suite = Annotated[list[str] | None, typer.Option("--suite", help="A suite; repeatable; by default all tasks.")]
Task = Annotated[list[str] | None, typer.Option("--task", help="A task or group; repeatable; by default all tasks.")]


@app.callback()
def callback() -> None:
    """Mirrors of the benchmark data, and data sets made for training."""


@app.command()
def pull(
    out: Annotated[
        Path, typer.Option("--out", help="Mirror folder to write: OUT/<data set>/<config>/<split>.parquet.")
    ],
    suite: Suite = None,
    task: Task = None,
    data_dir: DataDirs = None,
    include_path: IncludePath = None,
    as_json: Json = False,
) -> int:
    """Fetch the data of tasks from other mirrors (--data-dir) or from the Hub at the pinned revisions.

    Existing files are not overwritten.
    """
    from olmes_suite.extras import require
    from olmes_suite.tasks.mirror import pull as fetch

    require("eval", "olmes data pull")
    include(include_path)
    return _report(fetch(_names(suite, task), out, source(data_dir, None)), as_json, good=("pulled", "kept"))


@app.command()
def verify(
    suite: Suite = None,
    task: Task = None,
    data_dir: DataDirs = None,
    include_path: IncludePath = None,
    as_json: Json = False,
) -> int:
    """Verify a mirror against the recorded content hashes of the columns that tasks read."""
    from olmes_suite.errors import UsageError
    from olmes_suite.extras import require
    from olmes_suite.tasks.mirror import verify as compare

    require("eval", "olmes data verify")
    include(include_path)
    where = source(data_dir, None)
    if not where.mirrors:
        raise UsageError("no mirror to verify: give --data-dir D or set $OLMES_DATA_DIR")
    return _report(compare(_names(suite, task), where), as_json, good=("ok", "unrecorded"))


@app.command()
def ruler(
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", help="Model whose tokens are counted: a folder or a Hub id.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Mirror folder to write: OUT/ruler/<task>_<length>/test.parquet.")],
    length: Annotated[
        list[str] | None,
        typer.Option("--length", help="4k, 8k, 16k, 32k, 64k or 128k tokens; repeatable; by default all."),
    ] = None,
    documents: Annotated[
        int, typer.Option("--documents", help="Documents of each task and length, at most 500.")
    ] = 100,
    as_json: Json = False,
) -> int:
    """Make the documents of the suite `long` with lm-eval's generators, which need a network.

    Existing files are not overwritten.
    """
    from olmes_suite.extras import require
    from olmes_suite.tasks.ruler import LENGTHS, make

    require("eval", "olmes data ruler")
    return _report(make(tokenizer, length or LENGTHS, out, documents), as_json, good=("pulled", "kept"))


def _names(suite: list[str] | None, task: list[str] | None) -> list[str]:
    from olmes_suite.tasks import catalog, index, ruler, suites

    entries = [suites.task_of(entry) for name in suite or () for entry in suites.load(name).tasks]
    named = [entry.name for entry in entries if entry is not None]
    if chosen := [*named, *(catalog.find(name).name for name in task or ())]:
        return chosen
    fetched = (entry for entry in index.top_level() if index.index()[entry.leaves[0]].dataset != ruler.PATH)
    return [entry.name for entry in fetched]


def _report(verdicts: Iterable[Verdict], as_json: bool, good: tuple[str, ...]) -> int:
    checked = []
    for verdict in verdicts:
        checked.append(verdict)
        if not as_json and (verdict.state not in ("ok", "kept")):
            print(f"{verdict.state:<11}{verdict.place}  {verdict.detail}".rstrip())
    bad = [verdict for verdict in checked if verdict.state not in good]
    if as_json:
        print(
            json.dumps([{"place": v.place, "state": v.state, "detail": v.detail} for v in checked], ensure_ascii=False)
        )
    else:
        print(f"{len(checked) - len(bad)} of {len(checked)} valid")
    return 1 if bad else 0
