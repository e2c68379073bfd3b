"""olmes show: a recorded run's scores, or documents of a task."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import IncludePath, Json, Runs

if TYPE_CHECKING:
    from olmes_suite.runs.run import Run
    from olmes_suite.runs.schema import InstanceRow, TaskResult

app = typer.Typer(add_completion=False, rich_markup_mode=None)
SHOWN = 10
"""Documents that `--flips` prints."""
LONGEST = 1500
"""Characters of a question or answer on the terminal; --json has all of them."""


@app.command()
def show(
    run: Annotated[
        str, typer.Argument(metavar="RUN", help="A run: folder, name, part of its name, or its checkpoint.")
    ],
    task: Annotated[
        str | None, typer.Argument(metavar="TASK", help="A task or sub-task of the run, with or without `tulu3_`.")
    ] = None,
    runs: Runs = Path("runs"),
    wrong: Annotated[int, typer.Option("--wrong", min=0, help="Print this many documents that lost points.")] = 0,
    flips: Annotated[
        str | None,
        typer.Option("--flips", metavar="OTHER", help="Print documents that this other run scored differently."),
    ] = None,
    include_path: IncludePath = None,
    as_json: Json = False,
) -> int:
    """Show a recorded run: its scores; with TASK all metrics of that task; with --wrong or --flips its documents."""
    from olmes_suite import api
    from olmes_suite.errors import UsageError
    from olmes_suite.evaluation.arguments import include

    include(include_path)
    if task is None and (wrong or flips is not None):
        raise UsageError("--wrong and --flips need a task: olmes show RUN TASK --wrong N")
    opened = api.load(run, runs)
    if task is None:
        _print_scores(opened, as_json)
        return 0
    from olmes_suite.evaluation.described import add_answers, describe, rows_of
    from olmes_suite.runs import frames

    top, leaf = frames.find(opened.path, [plan.task for plan in opened.manifest.plan], task)
    name = leaf or top
    documents = None
    if flips is not None:
        other = api.load(flips, runs)
        frames.find(other.path, [plan.task for plan in other.manifest.plan], name)
        documents = _flipped(opened, other, top, leaf)[: wrong or SHOWN]
    elif wrong:
        rows = [row for row in rows_of(opened, top, leaf) if row.score is not None and row.score < 1]
        documents = [(row, None) for row in sorted(rows, key=lambda row: row.score or 0.0)[:wrong]]
    if documents is None:
        _print_task(opened, name, as_json)
        return 0
    described = describe(opened, top, [row for row, _ in documents])
    if flips is not None:
        add_answers(described, "other", other, top)
    if as_json:
        print(json.dumps({"run": opened.name, "task": name, "documents": described}, ensure_ascii=False))
    else:
        _print_documents(described, opened.name, flips)
    return 0


def _flipped(run: Run, other: Run, top: str, leaf: str | None) -> list[tuple[InstanceRow, float | None]]:
    """Return the documents whose scores differ, the largest loss of `run` first, with the score of `other`.

    A document without a score in either run, such as one that the judge did not score, is left out.
    """
    from olmes_suite.evaluation.described import rows_of

    scores = {(row.task, row.doc_id): row.score for row in rows_of(other, top, leaf)}
    pairs = [(row, scores[place]) for row in rows_of(run, top, leaf) if (place := (row.task, row.doc_id)) in scores]
    changed = [(row, score) for row, score in pairs if None not in (row.score, score) and row.score != score]
    return sorted(changed, key=lambda pair: (pair[0].score or 0.0) - (pair[1] or 0.0))


def _print_scores(run: Run, as_json: bool) -> None:
    if as_json:
        print(json.dumps({**run.results.as_json(), "path": str(run.path)}, ensure_ascii=False))
        return
    from olmes_suite.cli import display
    from olmes_suite.evaluation.evaluate import Finished

    display.print_results(Finished(run.path, run.results, run.manifest), run.manifest.command)


def _print_task(run: Run, task: str, as_json: bool) -> None:
    entry = run.results.tasks[task]
    if as_json:
        print(json.dumps({"run": run.name, "task": task, **entry.as_json()}, ensure_ascii=False))
        return
    from olmes_suite.cli.display import points

    print(f"{run.name} · {task}: {entry.n} documents")
    if entry.error is not None:
        print(f"  no score: {entry.error}")
    for metric, value in entry.metrics.items():
        score, bounds = points(value)
        print(f"  {metric + (' (primary)' if metric == entry.primary else ''):<36} {score:>6}  {bounds}")
    for name in entry.subtasks or ():
        part: TaskResult = run.results.tasks[name]
        score, bounds = points(part.score)
        print(f"  {name:<52} {part.n:>6} {score:>6}  {bounds}")
    for flag, count in entry.flags.items():
        if count:
            print(f"  {flag}: {count} of {entry.n} documents")


def _print_documents(described: Sequence[Mapping[str, Any]], run: str, flips: str | None) -> None:
    if not described:
        print(f"{run}: no document {'with another score' if flips is not None else 'lost points'}")
    elif described[0]["note"]:
        print(f"note: {described[0]['note']}\n")
    for one in described:
        print(f"{one['task']} · document {one['doc_id']}")
        _field("question", one["question"], tail=True)
        for number, choice in enumerate(one["choices"] or ()):
            _field(f"choice {number}", choice)
        _field("reference", one["reference"])
        for answer in (one["run"], one.get("other")):
            if answer is not None:
                flags = f" ({', '.join(answer['flags'])})" if answer["flags"] else ""
                print(f"  {answer['name']}: score {answer['score']:.2f}{flags}")
                _field("extracted", answer["extracted"])
                _field("thought", answer.get("thinking"))
                _field("answer", answer.get("response"), tail=True)
        print()


def _field(name: str, text: Any, tail: bool = False) -> None:
    """Print a text below its name, without control characters; of a long one the end (tail) or the start."""
    if text is None:
        return
    shown = "".join(c if c.isprintable() or c == "\n" else "?" for c in str(text).strip())
    if len(shown) > LONGEST:
        shown = f"… {shown[-LONGEST:]}" if tail else f"{shown[:LONGEST]} …"
    head, *rest = shown.split("\n")
    print(f"    {name + ':':<11} {head}")
    for line in rest:
        print(f"    {'':<11} {line}")
