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
Flips = Annotated[int, typer.Option("--flips", min=0, help="Print so many documents whose score changed, per task.")]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print markdown tables.")]
Force = Annotated[bool, typer.Option("--force", help="Numbers, marked, even where fingerprints differ.")]
Bootstrap = Annotated[int, typer.Option("--bootstrap", min=0, help="Resamples for intervals of graded scores.")]
Subtasks = Annotated[bool, typer.Option("--subtasks", help="A row for every sub-task in place of its group.")]
Only = Annotated[list[str] | None, typer.Option("--task", help="Only this task; repeatable.")]


@app.command()
def compare(
    runs_given: References, runs: Runs = Path("runs"), task: Only = None, subtasks: Subtasks = False, flips: Flips = 0,
    bootstrap: Bootstrap = 0,
    force: Force = False, markdown: Markdown = False, as_json: Json = False,
) -> int:  # fmt: skip
    """Compare runs with the first one, document by document.

    Exit status: 0, 2 wrong usage, 4 some tasks do not compare (prompt, data, scorer or settings differ).
    """
    from olmes_suite import api
    from olmes_suite.errors import UsageError

    if len(runs_given) < 2:
        raise UsageError("two runs are needed: olmes compare A B [C …]")
    found = api.compare(*runs_given, runs=runs, task=task, subtasks=subtasks, bootstrap=bootstrap, force=force)
    first, *others = found.scores
    changed = [
        _flips(comparison, first, run, flips, found.groups)
        for comparison, run in zip(found.comparisons, others, strict=True)
    ]
    if as_json:
        _print_json(found.comparisons, changed if flips else None)
    elif markdown:
        print(found.markdown(), end="")
    else:
        _print_tables(found.comparisons, changed)
    if found.problem is not None:
        print(f"olmes: not comparable: {found.problem}", file=sys.stderr)
    return found.exit


def _flips(
    comparison: Comparison, a: RunScores, b: RunScores, wanted: int, groups: Mapping[str, str]
) -> list[dict[str, Any]]:
    from olmes_suite.comparison.compare import flips
    from olmes_suite.runs.responses import answers

    out = []
    for task in comparison.tasks if wanted else ():
        changed = flips(task)[:wanted]
        places = [(leaf, doc_id) for leaf, doc_id, _, _ in changed]
        file = groups.get(task.task, task.task)
        before, after = answers(a, file, places), answers(b, file, places)
        for leaf, doc_id, one, other in changed:
            out.append(
                {
                    "task": leaf,
                    "doc_id": doc_id,
                    "baseline": {"score": one, **before.get((leaf, doc_id), {})},
                    "candidate": {"score": other, **after.get((leaf, doc_id), {})},
                }
            )
    return out


def _print_json(found: Sequence[Comparison], changed: list[list[dict[str, Any]]] | None) -> None:
    from olmes_suite.comparison.compare import as_json

    out = [as_json(comparison) for comparison in found]
    for one, flipped in zip(out, changed or [], strict=False):
        one["flips"] = flipped
    print(json.dumps(out[0] if len(out) == 1 else {"comparisons": out}, ensure_ascii=False))


def _print_tables(found: Sequence[Comparison], changed: list[list[dict[str, Any]]]) -> None:
    from olmes_suite.cli.tables import print_comparison

    for number, (comparison, flipped) in enumerate(zip(found, changed, strict=True)):
        if number:
            print()
        print_comparison(comparison)
        for flip in flipped:
            reference = _one_line(flip["baseline"].get("reference"), 40)
            print(f"\n{flip['task']} document {flip['doc_id']}, reference {reference}")
            for side in ("baseline", "candidate"):
                said = flip[side]
                answer = f"{_one_line(said.get('extracted'), 16)} ← {_one_line(said.get('response'), 42)}"
                print(f"  {side:<9} {said['score']:.2f}  {answer}")


def _one_line(value: Any, width: int = 50) -> str:
    """A text on one line, its end kept: answers stand at the end."""
    text = " ".join(str("–" if value is None else value).split())
    text = "".join(c if c.isprintable() else "?" for c in text)
    return text if len(text) <= width else "…" + text[1 - width :]
