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

References = Annotated[
    list[str],
    typer.Argument(metavar="RUN", help="Two or more runs, the baseline first: folder, name, or baseline file."),
]
Flips = Annotated[
    int, typer.Option("--flips", min=0, help="Print up to this many documents per task whose score changed.")
]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print markdown tables.")]
Force = Annotated[bool, typer.Option("--force", help="Compare even where fingerprints differ, and mark the results.")]
Bootstrap = Annotated[
    int, typer.Option("--bootstrap", min=0, help="Bootstrap resamples for the intervals of graded scores; 0: none.")
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
    """Describe changed documents: what was asked, and both runs' scores and answers."""
    from olmes_suite.comparison.compare import flips
    from olmes_suite.runs.responses import answers

    rows = []
    for task in comparison.tasks if count else ():
        changed = flips(task)[:count]
        documents = [(leaf, doc_id) for leaf, doc_id, _, _ in changed]
        file = groups.get(task.task, task.task)
        before, after = answers(a, file, documents), answers(b, file, documents)
        asked = _asked((b, a), file, documents)
        for leaf, doc_id, score_before, score_after in changed:
            rows.append(
                {
                    "task": leaf,
                    "doc_id": doc_id,
                    **asked.get((leaf, doc_id), {}),
                    "baseline": {"score": score_before, **before.get((leaf, doc_id), {})},
                    "candidate": {"score": score_after, **after.get((leaf, doc_id), {})},
                }
            )
    return rows


def _asked(runs: Sequence[RunScores], task: str, documents: Sequence[Any]) -> dict[Any, dict[str, Any]]:
    """Return {"question", "choices"} of each document, from the first run whose prompts can be rendered here."""
    from olmes_suite.evaluation import run_prompts
    from olmes_suite.runs.schema import read_manifest

    for run in runs if documents else ():
        if run.path is not None:
            found, _ = run_prompts.render(run.path, read_manifest(run.path), task, documents)
            if found:
                return {p: {"question": run_prompts.question(one), "choices": one.get("c")} for p, one in found.items()}
    return {}


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
            print("\n" + "\n".join(_readable(flip, comparison)))


_LINES = 6
"""Lines of a question or an answer on the terminal; --json has all of them."""


def _readable(flip: Mapping[str, Any], comparison: Comparison) -> list[str]:
    """Return the lines of one changed document: the question, the choices, the reference, and both answers."""
    lines = [f"{flip['task']} · document {flip['doc_id']}"]
    if flip.get("question"):
        lines += _field("question", flip["question"])
    lines += _choices(flip)
    reference = flip["baseline"].get("reference", flip["candidate"].get("reference"))
    lines += _field("reference", "–" if reference is None else reference)
    for side, run in (("baseline", comparison.baseline), ("candidate", comparison.candidate)):
        answer = flip[side]
        extracted = answer.get("extracted")
        lines.append(f"  {side} {run}: score {answer['score']:.2f}")
        lines += _field("  extracted", "–" if extracted is None else extracted)
        if answer.get("response"):
            lines += _field("  answer", answer["response"])
    return lines


def _choices(flip: Mapping[str, Any]) -> list[str]:
    """Return a line for each choice with its log-likelihood before and after; empty for generated answers."""
    before, after = (flip[side].get("loglikelihoods") or () for side in ("baseline", "candidate"))
    texts = flip.get("choices") or ()
    count = max(len(before), len(after))
    lines = ["  choices, with log-likelihoods before and after"] if count else []
    for number in range(count):
        values = [f"{one[number]:>9.2f}" if number < len(one) else f"{'–':>9}" for one in (before, after)]
        text = _printable(texts[number]) if number < len(texts) and texts[number] is not None else f"choice {number}"
        lines.append(f"    {' '.join(values)}  {text.strip() if len(text) <= 52 else text.strip()[:51] + '…'}")
    return lines


def _field(name: str, value: Any) -> list[str]:
    """Return a named text in lines of at most 80 columns, shortened at the start, because the answer is at the end."""
    import textwrap

    wrapped = [part for line in _printable(value).split("\n") for part in textwrap.wrap(line, 64) if part.strip()]
    if len(wrapped) > _LINES:
        wrapped = ["…", *wrapped[1 - _LINES :]]
    first, *rest = wrapped or [""]
    return [f"  {name:<13} {first}", *(f"{'':<16}{line}" for line in rest)]


def _printable(value: Any) -> str:
    return "".join(c if c.isprintable() or c == "\n" else " " for c in str(value))
