"""olmes tasks: list, show, check."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from olmes_suite.cli.options import Data, DataDirs, IncludePath, Json, UnsafeCode
from olmes_suite.evaluation.arguments import include, source

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    suite: Annotated[str | None, typer.Option("--suite", help="Only the tasks of this suite.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Sub-tasks of groups too.")] = False,
    as_json: Json = False,
) -> None:
    """List tasks."""
    if context.invoked_subcommand is not None:
        return
    from olmes_suite.tasks import index as registry

    index = registry.index()
    if suite is not None:
        from olmes_suite.tasks import suites

        chosen = [(entry.task, index.get(entry.task)) for entry in suites.load(suite).tasks]
    else:
        chosen = [(e.name, e) for e in (index.values() if everything else registry.top_level())]
    if as_json:
        print(json.dumps([_entry(name, entry) for name, entry in chosen], ensure_ascii=False))
        return
    width = max((len(name) for name, _ in chosen), default=10) - len(registry.PREFIX) + 2
    print(f"{'task':<{width}}{'metric':<26}{'aggregate':<12}{'shots':>5}  data set")
    for name, entry in chosen:
        short = name.removeprefix(registry.PREFIX)
        if entry is None:
            print(f"{short:<{width}}not part of this version")
            continue
        leaf = index[entry.leaves[0]]
        group = f"{entry.aggregate} {len(entry.members)}" if entry.members else "mean"
        print(f"{short:<{width}}{entry.primary:<26}{group:<12}{leaf.shots:>5}  {leaf.dataset}")


def _entry(name: str, entry: Any) -> dict[str, Any]:
    if entry is None:
        return {"task": name, "available": False}
    from olmes_suite.tasks import index as registry

    leaf = registry.index()[entry.leaves[0]]
    return {
        "task": name,
        "available": True,
        "primary": entry.primary,
        "version": entry.version,
        "aggregate": entry.aggregate,
        "tasks": list(entry.members),
        "output": leaf.output,
        "shots": leaf.shots,
        "dataset": leaf.dataset,
        "split": leaf.split,
    }


@app.command()
def show(task: Annotated[str, typer.Argument(help="Task or group, prefix optional.")], as_json: Json = False) -> int:
    """Show one task: its definition, and the first sample document's request."""
    from olmes_suite.extras import require
    from olmes_suite.tasks import catalog
    from olmes_suite.tasks import index as registry

    require("eval", "olmes tasks show")
    entry = catalog.find(task)
    leaf = registry.index()[entry.leaves[0]]
    about = {**_entry(entry.name, entry), "file": str(registry.task_file(entry))}
    if as_json:
        print(json.dumps(about, ensure_ascii=False))
        return 0
    for name, value in about.items():
        if name == "tasks" and value:
            value = f"{len(value)}: " + ", ".join(v.removeprefix(entry.name + "_") for v in value)
        if value not in ([], None):
            print(f"{name:<11}{value}")
    _show_request(leaf)
    return 0


def _show_request(leaf: Any) -> None:
    from olmes_suite.errors import MissingData
    from olmes_suite.tasks import index as registry
    from olmes_suite.tasks.documents import DataSource
    from olmes_suite.tasks.load import load_task

    try:
        loaded = load_task(registry.task_file(leaf), DataSource(sample=True))
    except MissingData as error:
        print(f"\n{error}")
        return
    request = loaded.requests(loaded.task_docs[0], 0, chat=True)[0]
    print(f"\nThe first request of a sample document of {leaf.name}:")
    for turn in request.chat or [{"role": "text", "content": request.text or ""}]:
        print(f"[{turn['role']}] {turn['content']}")
    if request.prefix or request.continuation:
        print(f"[assistant starts] {request.prefix}{request.continuation or ''}")
    if request.kind == "generate":
        settings = (
            f"at most {request.max_tokens} tokens, temperature {request.temperature}, {request.samples} sample(s)"
        )
        print(f"\nstop {list(request.stop)}, {settings}")


@app.command()
def check(
    task: Annotated[list[str] | None, typer.Argument(help="Tasks or groups; all of them by default.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Documents of every leaf task; all by default.")] = None,
    data_dir: DataDirs = None,
    data: Data = None,
    include_path: IncludePath = None,
    unsafe_code: UnsafeCode = False,
    as_json: Json = False,
) -> int:
    """Check that gold answers score 1 and corrupted ones 0, without a model.

    Uses the mirror where one is given, the sample documents otherwise. Golds that the reference's own scorer rejects
    are counted against the recorded number.
    """
    from olmes_suite.extras import require

    require("eval", "olmes tasks check")
    from olmes_suite.errors import MissingData, UsageError
    from olmes_suite.evaluation.gold_check import Checked
    from olmes_suite.evaluation.gold_check import check as run_check
    from olmes_suite.scoring.tools import ToolOptions
    from olmes_suite.tasks import index as registry
    from olmes_suite.tasks.documents import SAMPLE

    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, not {limit}")
    include(include_path)
    if include_path and not task:
        raise UsageError("--include-path: name the tasks of your own to check")
    where = source(data_dir, data)
    if not where.mirrors:
        where = source(None, SAMPLE)
    tools = ToolOptions(unsafe_code=unsafe_code)
    out: list[Checked] = []
    absent: list[str] = []
    for name in task or [entry.name for entry in registry.top_level()]:
        try:
            out += run_check([name], where, limit, lambda found: None if as_json else _say(found), tools)
        except MissingData as error:
            absent.append(f"{name}: {error}")
            if not as_json:
                said = str(error).replace("--task TASK", f"--task {name}")
                print(f"{name}: not checked, {said}")
    if as_json:
        print(json.dumps({"tasks": [_checked(found) for found in out], "not_checked": absent}, ensure_ascii=False))
    return 1 if absent or any(found.problems for found in out) else 0


def _say(found: Any) -> None:
    notes = [
        f"{len(ids)} golds rejected by {metric}: {found.expected.get(metric, {}).get('reason', '?')}"
        for metric, ids in found.rejected.items()
    ]
    if found.judged:
        notes.append("scored by another model: requests only")
    print(f"{'FAIL' if found.problems else 'ok':<5}{found.task:<52}{found.documents:>6}  {'; '.join(notes)}".rstrip())
    for problem in found.problems:
        print(f"     {problem}")


def _checked(found: Any) -> dict[str, Any]:
    return {
        "task": found.task,
        "primary": found.primary,
        "documents": found.documents,
        "problems": found.problems,
        "rejected_golds": {metric: len(ids) for metric, ids in found.rejected.items()},
    }
