"""olmes compare: paired comparison of recorded runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import Json, Runs

if TYPE_CHECKING:
    from olmes_suite.comparison.compare import Comparison
    from olmes_suite.runs.scores import RunScores

app = typer.Typer(add_completion=False, rich_markup_mode=None)

References = Annotated[list[str], typer.Argument(metavar="A B [C …]", help="Runs: folder, name, or baseline file.")]
Flips = Annotated[
    int, typer.Option("--flips", min=0, help="Print up to this many documents per task whose score changed.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print markdown tables.")]
Force = Annotated[bool, typer.Option("--force", help="Compare even where fingerprints differ, and mark the results.")]
Bootstrap = Annotated[
    int, typer.Option("--bootstrap", min=0, help="Bootstrap resamples for the intervals of graded scores.")
]
Subtasks = Annotated[bool, typer.Option("--subtasks", help="Print a row for each sub-task in place of its group.")]
Only = Annotated[list[str] | None, typer.Option("--task", help="Compare only this task; repeatable.")]


@app.command()
def compare(
    runs_given: References, runs: Runs = Path("runs"), task: Only = None, subtasks: Subtasks = False, flips: Flips = 0,
    bootstrap: Bootstrap = 0,
    force: Force = False, markdown: Markdown = False, as_json: Json = False,
) -> int:  # fmt: skip
    """Compare runs with the first one, document by document.

    Exit status: 0, 2 wrong usage, 4 some tasks are not comparable (prompt, data, scorer or settings differ).
    """
    from olmes_suite import api
    from olmes_suite.errors import UsageError

    if len(runs_given) < 2:
        raise UsageError("two runs are needed: olmes compare A B [C …]")
    compared = api.compare(*runs_given, runs=runs, task=task, subtasks=subtasks, bootstrap=bootstrap, force=force)
    first, *others = compared.scores
    changed = [
        _flips(comparison, first, run, flips, compared.groups)
        for comparison, run in zip(compared.comparisons, others, strict=True)
    ]
    if as_json:
        _print_json(compared.comparisons, changed if flips else None)
    elif markdown:
        print(compared.markdown(), end="")
    else:
        _print_tables(compared.comparisons, changed)
    if compared.problem is not None:
        print(f"olmes: not comparable: {compared.problem}", file=sys.stderr)
    return compared.exit


def _flips(
    comparison: Comparison, a: RunScores, b: RunScores, count: int, groups: Mapping[str, str]
) -> list[dict[str, Any]]:
    from olmes_suite.comparison.compare import flips
    from olmes_suite.runs.responses import answers

    rows = []
    for task in comparison.tasks if count else ():
        changed = flips(task)[:count]
        documents = [(leaf, doc_id) for leaf, doc_id, _, _ in changed]
        file = groups.get(task.task, task.task)
        before, after = answers(a, file, documents), answers(b, file, documents)
        for leaf, doc_id, score_before, score_after in changed:
            rows.append(
                {
                    "task": leaf,
                    "doc_id": doc_id,
                    "baseline": {"score": score_before, **before.get((leaf, doc_id), {})},
                    "candidate": {"score": score_after, **after.get((leaf, doc_id), {})},
                }
            )
    return rows


def _print_json(comparisons: Sequence[Comparison], changed: list[list[dict[str, Any]]] | None) -> None:
    from olmes_suite.comparison.compare import as_json

    objects = [as_json(comparison) for comparison in comparisons]
    for comparison_json, flipped in zip(objects, changed or [], strict=False):
        comparison_json["flips"] = flipped
    print(json.dumps(objects[0] if len(objects) == 1 else {"comparisons": objects}, ensure_ascii=False))


def _print_tables(comparisons: Sequence[Comparison], changed: list[list[dict[str, Any]]]) -> None:
    from olmes_suite.cli.tables import print_comparison

    for number, (comparison, flipped) in enumerate(zip(comparisons, changed, strict=True)):
        if number:
            print()
        print_comparison(comparison)
        for flip in flipped:
            reference = _one_line(flip["baseline"].get("reference"), 40)
            print(f"\n{flip['task']} document {flip['doc_id']}, reference {reference}")
            for side in ("baseline", "candidate"):
                response = flip[side]
                answer = f"{_one_line(response.get('extracted'), 16)} ← {_one_line(response.get('response'), 42)}"
                print(f"  {side:<9} {response['score']:.2f}  {answer}")


def _one_line(value: Any, width: int = 50) -> str:
    """Put a text on one line and shorten it at the start, because the answer is at the end."""
    text = " ".join(str("–" if value is None else value).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= width else "…" + text[1 - width :]
