"""olmes tasks: list, show and check tasks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from olmes_suite.cli.options import (
    Data,
    DataDirs,
    GenKwargs,
    IncludePath,
    Json,
    Profile,
    Samples,
    System,
    TemplateArgs,
    UnsafeCode,
    WholeSentences,
)
from olmes_suite.errors import UsageError
from olmes_suite.evaluation.arguments import include, settings, source

app = typer.Typer(cls=WholeSentences, add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    suite: Annotated[str | None, typer.Option("--suite", help="Only the tasks of this suite.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list the sub-tasks of groups.")] = False,
    include_path: IncludePath = None,
    as_json: Json = False,
) -> None:
    """List tasks: the shipped ones, those of a suite, or those in a folder (--include-path)."""
    if context.invoked_subcommand is None:
        print_tasks(suite, everything, include_path, as_json)


def print_tasks(suite: str | None, everything: bool, include_path: list[Path] | None, as_json: bool) -> None:
    """Print the shipped tasks, those of a suite, or those in folders; `everything` also the sub-tasks of groups."""
    from olmes_suite.tasks import catalog
    from olmes_suite.tasks import index as registry

    include(include_path)
    index = registry.index()
    if suite is not None:
        from olmes_suite.tasks import suites

        chosen = [(entry.task, suites.task_of(entry)) for entry in suites.load(suite).tasks]
    elif include_path:
        chosen = [(entry.name, entry) for entry in catalog.own(include_path, _note, _note)]
    else:
        chosen = [(e.name, e) for e in (index.values() if everything else registry.top_level())]
    if as_json:
        print(json.dumps([_entry(name, entry) for name, entry in chosen], ensure_ascii=False))
        return
    width = max((len(name.removeprefix(registry.PREFIX)) for name, _ in chosen), default=10) + 2
    print(f"{'task':<{width}}{'metric':<26}{'aggregate':<12}{'shots':>5}  data set")
    for name, entry in chosen:
        short = name.removeprefix(registry.PREFIX)
        if entry is None:
            print(f"{short:<{width}}not part of this version")
            continue
        leaf = index[entry.leaves[0]]
        group = f"{entry.aggregate} {len(entry.members)}" if entry.members else "mean"
        print(f"{short:<{width}}{entry.primary:<26}{group:<12}{leaf.shots:>5}  {leaf.dataset}")


def _note(text: str) -> None:
    """Print a remark to stderr."""
    print(f"note: {text}", file=sys.stderr)


def _entry(name: str, entry: Any) -> dict[str, Any]:
    if entry is None:
        return {"task": name, "available": False}
    from olmes_suite.tasks import index as registry

    leaf = registry.index()[entry.leaves[0]]
    datasets = dict.fromkeys(registry.index()[name].dataset for name in entry.leaves)
    return {
        "task": name,
        "available": True,
        "primary": entry.primary,
        "version": entry.version,
        "aggregate": entry.aggregate,
        "tasks": list(entry.members),
        "output": leaf.output,
        "shots": leaf.shots,
        "dataset": ", ".join(datasets),
        "split": leaf.split,
        **{name: text for name in ("note", "differs") if (text := getattr(entry, name))},
    }


@app.command()
def show(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task or group, with or without `tulu3_`.")],
    include_path: IncludePath = None, profile: Profile = None, gen_kwargs: GenKwargs = None, samples: Samples = None,
    system: System = None,
    chat_template_args: TemplateArgs = None, as_json: Json = False,
) -> int:  # fmt: skip
    """Show a task's definition and the first request of a sample document.

    With --profile and the options of `olmes eval` beside it, also which settings are then in effect, and their origin.
    """
    from olmes_suite.extras import require
    from olmes_suite.tasks import catalog
    from olmes_suite.tasks import index as registry
    from olmes_suite.tasks.origins import applied

    require("eval", "olmes tasks show")
    include(include_path)
    entry = catalog.find(task)
    leaf = registry.index()[entry.leaves[0]]
    given = settings(
        profile=profile, gen_kwargs=gen_kwargs, samples=samples, system=system, chat_template_args=chat_template_args
    )
    loaded, reason = _sample_task(leaf)
    origins = applied(loaded, given) if given and loaded is not None else {}
    fields = {**_entry(entry.name, entry), "file": str(registry.task_file(entry))}
    if as_json:
        fields |= {"settings": {name: one.as_json() for name, one in origins.items()}} if origins else {}
        print(json.dumps(fields, ensure_ascii=False))
        return 0
    for name, value in fields.items():
        if name == "tasks" and value:
            value = f"{len(value)}: " + ", ".join(v.removeprefix(entry.name + "_") for v in value)
        if value not in ([], None):
            print(f"{name:<11}{value}")
    if loaded is None:
        print(f"\n{reason}")
    else:
        _show_request(leaf, loaded, origins)
    return 0


def _sample_task(leaf: Any) -> tuple[Any, str]:
    """Return a task with its sample documents, or None and the reason why it has none."""
    from olmes_suite.errors import MissingData
    from olmes_suite.tasks import index as registry
    from olmes_suite.tasks.documents import DataSource
    from olmes_suite.tasks.load import load_task

    try:
        return load_task(registry.task_file(leaf), DataSource(sample=True)), ""
    except MissingData as error:
        return None, str(error)


def _show_settings(origins: dict[str, Any]) -> None:
    width = max(map(len, origins)) + 2
    print()
    for name, one in origins.items():
        own = f", the task's own is {one.own}" if one.own is not None else ""
        print(f"{name:<{width}}{json.dumps(one.value, ensure_ascii=False)}  ({one.origin}{own})")


def _show_request(leaf: Any, loaded: Any, origins: dict[str, Any]) -> None:
    request = loaded.requests(loaded.task_docs[0], 0, chat=True)[0]
    print(f"\nThe first request of a sample document of {leaf.name}:")
    for turn in request.chat or [{"role": "text", "content": request.text or ""}]:
        print(f"[{turn['role']}] {turn['content']}")
    if request.prefix or request.continuation:
        print(f"[assistant starts] {request.prefix}{request.continuation or ''}")
    if origins:
        _show_settings(origins)
    elif request.kind == "generate":
        limits = f"at most {request.max_tokens} tokens, temperature {request.temperature}, {request.samples} sample(s)"
        print(f"\nstop {list(request.stop)}, {limits}")


@app.command()
def check(
    task: Annotated[
        list[str] | None,
        typer.Argument(metavar="TASK", help="Tasks or groups; by default all, or those of --include-path."),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help="Documents of each task, or of each sub-task of a group; by default all."),
    ] = None,
    data_dir: DataDirs = None,
    data: Data = None,
    include_path: IncludePath = None,
    unsafe_code: UnsafeCode = False,
    as_json: Json = False,
) -> int:
    """Check that gold answers score 1 and corrupted ones 0, without a model.

    Uses the mirror if one is given, otherwise the sample documents. The number of golds that the reference's scorer
    rejects must match the recorded number. Tasks whose file names no `gold` and `corrupt` are listed as not checked.
    """
    from olmes_suite.extras import require

    require("eval", "olmes tasks check")
    from olmes_suite.errors import MissingData
    from olmes_suite.evaluation.gold_check import Checked
    from olmes_suite.evaluation.gold_check import check as run_check
    from olmes_suite.scoring.tools import ToolOptions
    from olmes_suite.tasks import catalog
    from olmes_suite.tasks import index as registry
    from olmes_suite.tasks.documents import SAMPLE

    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, not {limit}")
    include(include_path)
    if include_path and not task:
        task = [entry.name for entry in catalog.own(include_path, _note)]
    where = source(data_dir, data)
    if not where.mirrors:
        where = source(None, SAMPLE)
    tools = ToolOptions(unsafe_code=unsafe_code)
    results: list[Checked] = []
    not_checked: list[str] = []
    for name in task or [entry.name for entry in registry.top_level()]:
        try:
            results += run_check(
                [name], where, limit, lambda checked: None if as_json else _print_checked(checked), tools
            )
        except MissingData as error:
            not_checked.append(f"{name}: {error.of(name)}")
            if not as_json:
                print(f"{name}: not checked, {error.of(name)}")
    if as_json:
        print(
            json.dumps(
                {"tasks": [_as_json(checked) for checked in results], "not_checked": not_checked}, ensure_ascii=False
            )
        )
    return 1 if not_checked or any(checked.problems for checked in results) else 0


def _print_checked(checked: Any) -> None:
    notes = [
        f"{len(ids)} golds rejected by {metric}: {checked.expected.get(metric, {}).get('reason', '?')}"
        for metric, ids in checked.rejected.items()
    ]
    if checked.judged:
        notes.append("scored by another model: requests only")
    if checked.no_gold:
        notes.append("not checked: its file names no `gold` and `corrupt`")
    state = "FAIL" if checked.problems else "–" if checked.no_gold else "ok"
    print(f"{state:<5}{checked.task:<52}{checked.documents:>6}  {'; '.join(notes)}".rstrip())
    for problem in checked.problems:
        print(f"     {problem}")


def _as_json(checked: Any) -> dict[str, Any]:
    return {
        "task": checked.task,
        "primary": checked.primary,
        "documents": checked.documents,
        "problems": checked.problems,
        "no_gold": checked.no_gold,
        "rejected_golds": {metric: len(ids) for metric, ids in checked.rejected.items()},
    }


@app.command()
def taskset(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Module of a taskset of the package verifiers (v1).")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most this many tasks; by default all.")
    ] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Token limit of an answer.")] = 1024,
) -> None:
    """Write a taskset of Prime Intellect's verifiers as training rows and as a task.

    Only rewards that read the conversation alone can be computed.
    """
    from olmes_suite.extras import require
    from olmes_suite.tasks.taskset_task import write

    require("eval", "olmes tasks taskset")
    task, count = write(name, out, limit=limit, tokens=max_tokens)
    print(f"{count} tasks of {name}")
    print(f"train:    data: [{{path: {out / 'rows.jsonl'}}}]")
    print(f"evaluate: olmes eval --task {task} --include-path {out} --data-dir {out / 'data'} --model MODEL")
