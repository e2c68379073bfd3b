"""olmes gate: pass or fail a candidate against a baseline."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import Json, ReportTo, Runs

if TYPE_CHECKING:
    from olmes_suite.comparison.gate import GateReport

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_RUN = "A run: folder, name, named baseline, or baseline file."
Baseline = Annotated[str, typer.Option("--baseline", help=_RUN)]
Candidate = Annotated[str, typer.Option("--candidate", help=_RUN)]
Config = Annotated[
    Path | None, typer.Option("--config", help="Rules: a gate.yaml with margins, required tasks, floors and limits.")
]
Alpha = Annotated[
    float | None,
    typer.Option(
        "--alpha", help="Error rate of false alarms and of false passes; by default that of --config, or 0.05."
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin", help="Margin of the tasks and of the average, in points; by default that of --config, or 1."
    ),
]
Suite = Annotated[
    str | None,
    typer.Option("--suite", help="Suite whose tasks make the average; by default the runs' own, or all tasks."),
]
Only = Annotated[list[str] | None, typer.Option("--task", help="Judge only this task; repeatable.")]
Noise = Annotated[
    str | None, typer.Option("--noise", help="A repeated run of the baseline; no margin is below its noise.")
]
Inconclusive = Annotated[
    str | None,
    typer.Option(
        "--inconclusive",
        help="Outcome of an inconclusive gate: pass, fail or exit3; by default that of --config, or exit3.",
    ),
]
Junit = Annotated[Path | None, typer.Option("--junit", help="Write JUnit XML to this file.")]
Summary = Annotated[
    Path | None, typer.Option("--summary", help="Append a markdown summary to this file ($GITHUB_STEP_SUMMARY).")
]
Report = Annotated[Path | None, typer.Option("--report", help="Write the JSON report to this file.")]
Bootstrap = Annotated[
    int, typer.Option("--bootstrap", min=0, help="Bootstrap resamples for the intervals of graded scores; 0: none.")
]


@app.command()
def gate(
    baseline: Baseline, candidate: Candidate, runs: Runs = Path("runs"), config: Config = None, alpha: Alpha = None,
    margin: Margin = None, suite: Suite = None, task: Only = None, noise: Noise = None,
    inconclusive: Inconclusive = None, bootstrap: Bootstrap = 0, junit: Junit = None, summary: Summary = None,
    report: Report = None, report_to: ReportTo = None, as_json: Json = False,
) -> int:  # fmt: skip
    """Judge whether a candidate is worse than the baseline by more than the margin.

    Exit status: 0 pass, 1 fail, 2 wrong usage, 3 inconclusive, 4 not comparable, 5 infrastructure (a task
    without a score, failed requests, a damaged file).
    """
    from olmes_suite import api
    from olmes_suite.comparison.gate import as_json as report_json

    gate_report = api.gate(
        baseline, candidate, runs=runs, config=config, alpha=alpha, margin=margin, suite=suite, task=task, noise=noise,
        inconclusive=inconclusive, bootstrap=bootstrap, report_to=report_to,
    ).report  # fmt: skip
    _write(gate_report, junit, summary, report)
    if as_json:
        print(json.dumps(report_json(gate_report), ensure_ascii=False))
    else:
        from olmes_suite.cli.tables import print_gate

        print_gate(gate_report)
    _annotate(gate_report, sys.stderr if as_json else sys.stdout)
    return gate_report.exit


def _write(report: GateReport, junit: Path | None, summary: Path | None, json_file: Path | None) -> None:
    from olmes_suite.comparison import reports
    from olmes_suite.comparison.gate import as_json
    from olmes_suite.files import storage, write_json, write_text

    if json_file is not None:
        write_json(json_file, as_json(report))
    if junit is not None:
        write_text(junit, reports.junit(report))
    if summary is not None:
        text = reports.gate_markdown(report)
        with storage(summary), summary.open("a", encoding="utf-8") as handle:  # a step summary may already have content
            handle.write(text)


def _annotate(report: GateReport, stream: Any) -> None:
    """Print workflow annotations for a GitHub runner, which reads them from either stream."""
    if os.environ.get("GITHUB_ACTIONS") == "true":
        from olmes_suite.comparison.reports import workflow_annotations

        for line in workflow_annotations(report):
            print(line, file=stream)
