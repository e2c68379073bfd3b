"""Tables of comparisons and gate verdicts, for a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olmes_suite.comparison.compare import Comparison, TaskComparison, setup
from olmes_suite.comparison.gate import GateReport, TaskVerdict
from olmes_suite.comparison.reports import caveats, p_value, points, projected_score, score_for_tokens, short

_COLOURS = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", "not comparable": "magenta"}


def _table(headings: Sequence[str], left: int = 1) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, heading in enumerate(headings):
        side: Any = "left" if number < left else "right"
        table.add_column(heading, justify=side, no_wrap=True, max_width=20 if number == 0 else None)
    return table


def print_comparison(comparison: Comparison) -> None:
    """Print a row per task, and below the table what the numbers mean and what they leave out."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(comparison.candidate)}[/bold] against {escape(comparison.baseline)}", soft_wrap=True)
    if (differs := setup(comparison)) is not None:
        console.print(differs, markup=False)
    table = _table(["task", "n", "before", "after", "Δ", "95 % interval", "p", "W/L", "MDE"])
    for task in comparison.tasks:
        table.add_row(*_comparison_row(task))
    console.print(table)
    for task in comparison.tasks:
        for line in (score_for_tokens(task), projected_score(task)):
            if line:
                console.print(f"{short(task.task)}: {line}", markup=False, soft_wrap=True)
    for line in (*LEGEND, *(f"! {text}" for text in caveats(comparison))):
        console.print(line, markup=False, soft_wrap=True)


def _comparison_row(task: TaskComparison) -> list[str]:
    from rich.markup import escape

    name, difference = escape(short(task.task)) + ("" if task.comparable else " !"), task.difference
    if difference is None:
        return [name, "–", points(task.baseline), points(task.candidate), "–", "–", "–", "–", "–"]
    interval = f"{points(difference.ci95[0], True)} {points(difference.ci95[1], True)}" if difference.ci95 else "–"
    bold = ("[bold]", "[/bold]") if task.p_holm is not None and task.p_holm <= 0.05 else ("", "")
    counts = "–" if difference.method == "unpaired" else f"{difference.wins}/{difference.losses}"
    scores = [points(task.baseline), points(task.candidate), f"{bold[0]}{points(difference.delta, True)}{bold[1]}"]
    return [name, str(difference.n), *scores, interval, p_value(task.p_holm), counts, points(difference.detectable)]


LEGEND = (
    "points; p: two-sided, Holm over the tasks; W/L: documents improved, worsened;",
    "MDE: smallest difference that these documents detect with 80 % power",
)


def print_gate(report: GateReport) -> None:
    """Print a row per task, the findings other than scores, and the verdict."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    console.print(f"[bold]{escape(report.candidate)}[/bold] against {escape(report.baseline)}", soft_wrap=True)
    table = _table(["task", "n", "before", "after", "Δ", "lower", "margin", "p", "verdict"])
    table.columns[-1].justify = "left"
    for row in report.rows:
        table.add_row(*_gate_row(row))
    console.print(table)
    if any(row.required for row in report.tasks):
        console.print("*: required; the gate passes only if this task passes too")
    for line in report.findings():
        console.print(f"! {line}", markup=False, soft_wrap=True)
    colour = _COLOURS.get(report.verdict, "bold red")
    console.print(f"gate: [{colour}]{report.verdict}[/{colour}] (exit status {report.exit})")


def _gate_row(row: TaskVerdict) -> list[str]:
    from rich.markup import escape

    difference, colour = row.difference, _COLOURS[row.verdict]
    name = escape(short(row.task)) + (" *" if row.required and row.task != "suite average" else "")
    n, delta, lower = (difference.n, difference.delta, difference.lower) if difference else ("–", None, None)
    return [
        name, str(n), points(row.baseline), points(row.candidate), points(delta, True), points(lower, True),
        points(-row.margin, True), p_value(row.p_adjusted), f"[{colour}]{row.verdict}[/{colour}]",
    ]  # fmt: skip
