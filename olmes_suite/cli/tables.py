"""Tables of comparisons and verdicts, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olmes_suite.comparison.compare import Comparison, TaskComparison
from olmes_suite.comparison.gate import GateReport, TaskVerdict
from olmes_suite.comparison.reports import p_value, points, short, span

_COLOURS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "not comparable": "magenta"}


def _table(headings: Sequence[str], left: int = 1) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        side: Any = "left" if number < left else "right"
        table.add_column(heading, justify=side, no_wrap=True, max_width=20 if number == 0 else None)
    return table


def print_comparison(comparison: Comparison) -> None:
    """One row per task; below it what the numbers mean and what is not in them."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(comparison.candidate)}[/bold] against {escape(comparison.baseline)}", soft_wrap=True)
    table = _table(["task", "n", "before", "after", "Δ", "95 % interval", "p", "W/L", "MDE"])
    for task in comparison.tasks:
        table.add_row(*_comparison_row(task))
    console.print(table)
    for line in comparison_notes(comparison):
        console.print(line, markup=False, soft_wrap=True)


def _comparison_row(task: TaskComparison) -> list[str]:
    from rich.markup import escape

    name, d = escape(short(task.task)) + ("" if task.comparable else " !"), task.difference
    if d is None:
        return [name, "–", points(task.baseline), points(task.candidate), "–", "–", "–", "–", "–"]
    ends = f"{points(d.ci95[0], True)} {points(d.ci95[1], True)}" if d.ci95 else "–"
    bold = ("[bold]", "[/bold]") if task.p_holm is not None and task.p_holm <= 0.05 else ("", "")
    counts = "–" if d.method == "unpaired" else f"{d.wins}/{d.losses}"
    scores = [points(task.baseline), points(task.candidate), f"{bold[0]}{points(d.delta, True)}{bold[1]}"]
    return [name, str(d.n), *scores, ends, p_value(task.p_holm), counts, points(d.detectable)]


def comparison_notes(comparison: Comparison) -> list[str]:
    """What a reader of the table must know."""
    out = [
        "points; p: two-sided, Holm over the tasks; W/L: documents won and lost;",
        "MDE: difference that so many documents show with 80 % power",
    ]
    if comparison.imported:
        out.append("! imported scores: nothing shows that both were made in the same way")
    for task in comparison.tasks:
        name = short(task.task)
        if not task.comparable:
            out.append(f"! {name}: {' and '.join(task.differs)} differ: the scores do not compare")
        if task.reason:
            out.append(f"! {name}: {task.reason}")
        if task.difference is not None and (task.only_baseline or task.only_candidate):
            out.append(
                f"! {name}: {task.difference.n} documents in common; {task.only_baseline} only in the first run, "
                f"{task.only_candidate} only in the second"
            )
        if task.flagged:
            c = task.clean
            rest = f"; without them {points(c.delta, True)} ({span(c.ci95)})" if c else ""
            out.append(f"! {name}: {task.flagged} documents are in a checkpoint's training data{rest}")
        if task.difference is not None and task.difference.method == "unpaired":
            out.append(f"! {name}: no mean over documents, compared unpaired from the two standard errors")
    for names, which in ((comparison.only_baseline, "second"), (comparison.only_candidate, "first")):
        if names:
            out.append(f"! the {which} run has no score of {', '.join(map(short, names))}")
    return out


def print_gate(report: GateReport) -> None:
    """The verdict, one row per task, and what was found beside the scores."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(report.candidate)}[/bold] against {escape(report.baseline)}", soft_wrap=True)
    table = _table(["task", "n", "before", "after", "Δ", "lower", "margin", "p", "verdict"])
    table.columns[-1].justify = "left"
    for row in report.rows:
        table.add_row(*_gate_row(row))
    console.print(table)
    for line in report.findings():
        console.print(f"! {line}", markup=False, soft_wrap=True)
    colour = _COLOURS.get(report.verdict, "bold red")
    console.print(f"gate: [{colour}]{report.verdict}[/{colour}] (exit status {report.exit})")


def _gate_row(row: TaskVerdict) -> list[str]:
    from rich.markup import escape

    d, colour = row.difference, _COLOURS[row.verdict]
    name = escape(short(row.task)) + (" *" if row.required and row.task != "suite average" else "")
    scores = [points(row.baseline), points(row.candidate), points(d.delta if d else None, True)]
    return [
        name, str(d.n) if d else "–", *scores, points(d.lower if d else None, True), points(-row.margin, True),
        p_value(row.p_adjusted), f"[{colour}]{row.verdict}[/{colour}]",
    ]  # fmt: skip
