"""olmes decontam: find evaluation items in training data, and write training data without them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import BareRay, Data, DataDirs, IncludePath, Json, WholeSentences
from olmes_suite.wording import count

if TYPE_CHECKING:
    from decontam.matching.prepared_index import Prepared
    from decontam.matching.rule import Variant
    from decontam.paraphrases.candidates import Search
    from decontam.report import Report
    from decontam.scan import SetParts, Settings
    from olmes_suite.tasks.documents import DataSource

app = typer.Typer(cls=WholeSentences, add_completion=False, rich_markup_mode=None, no_args_is_help=True)

Train = Annotated[
    list[str] | None,
    typer.Option("--train", help="Training set: parquet, JSONL(.gz/.zst), CSV, folder, pattern or Hub id; repeatable."),
]
Suites = Annotated[
    list[str] | None, typer.Option("--suite", help="Suite to compare with; repeatable; by default all suites.")
]
Tasks = Annotated[list[str] | None, typer.Option("--task", help="Task to compare with; repeatable.")]
Eval = Annotated[
    Path | None, typer.Option("--eval", help='Your own evaluation instead: JSON lines {"task","doc_id","text"}.')
]
Out = Annotated[Path, typer.Option("--out", help="Folder of the report.")]
N = Annotated[int, typer.Option("--n", min=1, max=64, help="Tokens of an n-gram.")]
Threshold = Annotated[
    float,
    typer.Option("--threshold", min=0, max=1, help="An item is hit when more than this share of it matches."),
]
Stride = Annotated[int, typer.Option("--stride", min=1, help="Compare only every stride-th n-gram of an item.")]
Share = Annotated[
    float, typer.Option("--share", min=0, max=1, help="A set is contaminated over this share of an evaluation.")
]
Roles = Annotated[str, typer.Option("--roles", help="Turns to compare, comma-separated: user,assistant,system.")]
TrainField = Annotated[
    list[str] | None, typer.Option("--train-field", help="Column of the training data to compare; repeatable.")
]
EvalField = Annotated[
    list[str] | None, typer.Option("--eval-field", help="FIELD or TASK:FIELD to compare instead of the declared ones.")
]
Split = Annotated[
    str, typer.Option("--split", help="Split of data sets of the Hub and of folders that `datasets` saved.")
]
Workers = Annotated[
    int | None, typer.Option("--workers", min=1, help="Number of processes; by default one for each core.")
]
Short = Annotated[
    bool, typer.Option("--short/--no-short", help="Look for items shorter than n too, as a whole (counted apart).")
]
MatchRule = Annotated[
    str,
    typer.Option(
        "--rule",
        help="own: text that many items share, such as an instruction, does not count; strict: the row must also have "
        "the item's words and numbers; paper: all text counts.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option("--ray", metavar="[ADDRESS]", help="Scan on a Ray cluster; without an address, on the one at hand."),
]

Embed = Annotated[
    str | None,
    typer.Option("--embed", help="Sentence-transformers model, folder or Hub id: list near texts to judge by eye."),
]
EmbedTop = Annotated[int, typer.Option("--embed-top", min=1, max=100, help="Candidates of each item.")]
EmbedMin = Annotated[float, typer.Option("--embed-min", help="Least cosine of a candidate.")]

_OUT = Path("decontam-report")


@app.callback()
def callback() -> None:
    """Compare training data with evaluations: exact n-gram overlap."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of one command."""

    train: tuple[str, ...]
    suites: tuple[str, ...]
    tasks: tuple[str, ...]
    eval_file: Path | None
    source: DataSource
    out: Path
    settings: Settings
    eval_fields: dict[str, list[str]]
    split: str
    workers: int
    ray: str | None
    search: Search | None
    """The embedding search; None without `--embed`."""


def _command(act: Callable[[Options, bool], int]) -> None:
    """Register a command. All three commands take the same options."""

    def command(
        train: Train = None, suite: Suites = None, task: Tasks = None, eval_file: Eval = None,
        data_dir: DataDirs = None, data: Data = None, include_path: IncludePath = None, out: Out = _OUT, n: N = 8,
        threshold: Threshold = 0.5, stride: Stride = 1, share: Share = 0.02, short: Short = True, roles: Roles = "user",
        train_field: TrainField = None, eval_field: EvalField = None, split: Split = "train",
        workers: Workers = None, ray: Ray = None, embed: Embed = None, embed_top: EmbedTop = 3,
        embed_min: EmbedMin = 0.75, rule: MatchRule = "own", as_json: Json = False,
    ) -> int:  # fmt: skip
        from olmes_suite.extras import require

        require("decontam", "olmes decontam")
        if ray is not None:
            require("ray", "--ray")
        from decontam.matching.rule import Rule
        from decontam.scan import Settings
        from olmes_suite.errors import UsageError
        from olmes_suite.evaluation.arguments import include, source

        include(include_path)
        if eval_file is not None and (suite or task):
            raise UsageError("--eval is scanned alone: use it without --suite and --task")
        if eval_file is not None and eval_field:
            raise UsageError("--eval-field names fields of tasks; --eval compares `text` only: leave one of them out")
        if stride > n:
            raise UsageError(f"--stride {stride} is more than --n {n}: tokens between two n-grams could never match")
        matching = Rule(n, threshold, stride, share, short, _variant(rule))
        settings = Settings(matching, _roles(roles), tuple(train_field or ()))
        options = Options(
            tuple(train or ()), tuple(suite or ()), tuple(task or ()), eval_file, source(data_dir, data), out, settings,
            _eval_fields(eval_field or []), split, workers or len(os.sched_getaffinity(0)), ray,
            _search(embed, embed_top, embed_min),
        )  # fmt: skip
        return act(options, as_json)

    command.__doc__ = act.__doc__
    app.command(act.__name__, cls=BareRay)(command)


@_command
def scan(options: Options, as_json: bool) -> int:
    """Find every training row that contains an evaluation item.

    Exit status: 0 clean, 1 a set is contaminated, 2 wrong usage, or data that cannot be read.
    """
    _, _, result = _scanned(options)
    _show(result, as_json)
    return result.exit_code


@_command
def clean(options: Options, as_json: bool) -> int:
    """Write OUT/clean/<name>: the training sets without the matching rows, otherwise unchanged.

    Exit status: 0 written, 2 wrong usage, or data that cannot be read.
    """
    from decontam.clean import clean as write

    sets, prepared, result = _scanned(options)
    done = write(sets, prepared.index, options.out)
    if as_json:
        print(json.dumps([{"train": d.train, "path": str(d.path), "kept": d.kept, "removed": d.removed} for d in done]))
    else:
        for one in done:
            print(f"{one.path}: {count(one.kept, 'row')}, {one.removed} removed")
    return 2 if result.data["problems"] else 0


@_command
def report(options: Options, as_json: bool) -> int:
    """Print the report in OUT and write its page again; with --train, scan first.

    Exit status: 0 clean, 1 a set is contaminated, 2 wrong usage, or data that cannot be read.
    """
    from decontam.report import read, write_page

    if options.train:
        _, _, result = _scanned(options)
    else:
        result = read(options.out)
        write_page(result)
    _show(result, as_json)
    return result.exit_code


def _search(model: str | None, top: int, least: float) -> Search | None:
    """Build the embedding search. It checks its encoder now, before any data is read."""
    if model is None:
        return None
    from decontam.paraphrases.candidates import checked

    return checked(model, top, least)


def _variant(name: str) -> Variant:
    from decontam.matching.rule import VARIANTS
    from olmes_suite.errors import UsageError

    if name not in VARIANTS:
        raise UsageError(f"--rule {name}: known are {', '.join(VARIANTS)}")
    return name


def _roles(text: str) -> tuple[str, ...]:
    from olmes_suite.errors import UsageError

    known = ("user", "assistant", "system", "tool")
    chosen = tuple(dict.fromkeys(role.strip() for role in text.split(",") if role.strip()))
    if wrong := [role for role in chosen if role not in known]:
        raise UsageError(f"--roles {wrong[0]}: known are {', '.join(known)}")
    if not chosen:
        raise UsageError("--roles needs at least one role")
    return chosen


def _eval_fields(entries: list[str]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for entry in entries:
        task, _, field = entry.rpartition(":")
        fields.setdefault(task, []).append(field)
    return fields


def _scanned(options: Options) -> tuple[list[SetParts], Prepared, Report]:
    """Run the scan, and report on stderr, in one line each, what could not be read."""
    from decontam.check import scanned
    from decontam.items import items as evals
    from decontam.matching import prepared_index
    from decontam.scan import in_processes
    from decontam.training_data import sources
    from olmes_suite.errors import UsageError

    if not options.train:
        raise UsageError("--train is missing: a file, a folder or a Hub id")
    sets = [sources.find(name, options.source, options.split, options.out) for name in dict.fromkeys(options.train)]
    rule = options.settings.rule
    if options.eval_file is not None:
        prepared = prepared_index.of_file(options.eval_file, rule)
    else:
        prepared = prepared_index.of_suites(
            evals.of_suites(options.suites, options.tasks, options.eval_fields), options.source, rule
        )
    if options.ray is None:
        run = in_processes(options.workers)
    else:
        from decontam.scan_on_ray import on_ray

        run = on_ray(options.ray)
    done, result = scanned(sets, options.settings, prepared, options.out, run, watch=_watcher())
    for line in [f"not scanned: {m['task']}: {m['error']}" for m in result.data["missing"]] + result.data["problems"]:
        print("olmes: " + " ".join(line.split()), file=sys.stderr)
    if options.search is not None:
        from decontam.paraphrases.candidates import search

        result = search(done, prepared.index, options.settings, options.search, result, watch=_watcher())
    return done, prepared, result


def _watcher() -> Callable[[int, int], None]:
    """Show progress: a bar on a terminal, elsewhere a line for every tenth of the blocks."""
    if not sys.stderr.isatty():
        tenths = 0

        def line(done: int, total: int) -> None:
            nonlocal tenths
            if total > 1 and done * 10 // total > tenths:
                tenths = done * 10 // total
                print(f"{done} of {total} blocks", file=sys.stderr, flush=True)

        return line
    from rich.console import Console
    from rich.progress import Progress

    progress = Progress(console=Console(stderr=True), transient=True)
    bar = progress.add_task("blocks")

    def advance(done: int, total: int) -> None:
        progress.start()
        progress.update(bar, completed=done, total=total)
        if done >= total:
            progress.stop()

    return advance


def _show(result: Report, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**result.data, "path": str(result.folder)}, ensure_ascii=False))
        return
    for about in result.data["trains"]:
        print(f"{about['train']}: {count(about['rows'], 'row')}, read as {'; '.join(about['forms']) or 'nothing'}")
        _show_set([entry for entry in result.data["sets"] if entry["train"] == about["train"]])
    near = result.data.get("candidates")
    if near is not None:
        pairs, items = (sum(entry[name] for entry in near["sets"]) for name in ("candidates", "items"))
        print(f"candidates by embedding: {pairs} for {count(items, 'item')}, for you to judge; none of them is counted")
    print(f"report  {result.folder / 'report.html'}")


def _show_set(entries: list[dict[str, Any]]) -> None:
    """Print the evaluations that share anything with a set, in 80 columns, then the names of the others."""
    import textwrap

    from olmes_suite.tasks.index import PREFIX

    names = {entry["task"]: entry["task"].removeprefix(PREFIX) for entry in entries}
    apart = {entry["task"]: entry["shared_hit"] + entry["near_hit"] for entry in entries}
    matching = sorted(
        (e for e in entries if e["hit"] or e["short_hit"] or apart[e["task"]]),
        key=lambda e: (-e["percent"], -e["short_hit"], -apart[e["task"]]),
    )
    if matching:
        width = max(10, *(len(names[entry["task"]]) for entry in matching))
        print(f"  {'evaluation':<{width}} {'items':>5}{'hit':>6}{'%':>7}{'short':>6}{'apart':>6}  verdict")
    for entry in matching:
        numbers = f"{entry['instances']:>5}{entry['hit']:>6}{entry['percent']:>7.2f}{entry['short_hit']:>6}"
        mark = " (unseen)" if entry["unseen"] else ""
        print(f"  {names[entry['task']]:<{width}} {numbers}{apart[entry['task']]:>6}  {entry['verdict']}{mark}")
    if clean := [names[entry["task"]] for entry in entries if entry not in matching]:
        print(textwrap.fill(f"nothing of {', '.join(clean)}", 79, initial_indent="  ", subsequent_indent="    "))
