"""olmes plan: how many documents of which task a decision needs, at least cost."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import IncludePath, Json, Runs

if TYPE_CHECKING:
    from olmes_suite.comparison.plan_facts import Facts
    from olmes_suite.comparison.planning import Allocation
    from olmes_suite.runs.scores import RunScores

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Suite = Annotated[str, typer.Option("--suite", help="Suite to plan.")]
Precision = Annotated[
    float | None, typer.Option("--precision", help="Half-width of the average's 95 % interval, in points.")
]
Detect = Annotated[
    float | None, typer.Option("--detect", help="Difference from the baseline's average to find, in points.")
]
Gate = Annotated[Path | None, typer.Option("--gate", help="Rules that an unchanged model must pass: a gate.yaml.")]
Tokens = Annotated[str | None, typer.Option("--tokens", help="Budget of generated tokens: 250000, 20M.")]
Hours = Annotated[float | None, typer.Option("--hours", help="Budget of hours, at the baseline's tokens per second.")]
Dollars = Annotated[float | None, typer.Option("--dollars", help="Budget of dollars; needs --model-cost.")]
ModelCost = Annotated[
    str | None,
    typer.Option(
        "--model-cost",
        metavar="PRICE|FILE",
        help="Dollars per million generated tokens, or a YAML file with the keys output and input.",
    ),
]
Baseline = Annotated[
    str | None,
    typer.Option("--baseline", help="Run whose documents give variances and tokens; a small one serves as a pilot."),
]
Power = Annotated[float, typer.Option("--power", help="Power of --detect and --gate.")]
Flips = Annotated[
    float, typer.Option("--flips", help="Share of documents whose score changes, at a score of 50 (0 to 1).")
]
ChooseSamples = Annotated[
    bool,
    typer.Option("--choose-samples", help="Also choose how many of a task's samples are asked; needs --baseline."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Write the plan for `olmes eval --plan`.")]


@app.command()
def plan(
    suite: Suite = "dev", precision: Precision = None, detect: Detect = None, gate: Gate = None, tokens: Tokens = None,
    hours: Hours = None, dollars: Dollars = None, model_cost: ModelCost = None, baseline: Baseline = None,
    power: Power = 0.8, flips: Flips = 0.10, runs: Runs = Path("runs"), include_path: IncludePath = None,
    choose_samples: ChooseSamples = False, out: Out = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Plan how many documents of each task a decision needs, at least cost.

    Give one of --precision, --detect, --gate, --tokens, --hours and --dollars.
    """
    from olmes_suite.comparison import plan_facts, plan_file
    from olmes_suite.errors import UsageError
    from olmes_suite.evaluation import arguments
    from olmes_suite.runs.locate import load
    from olmes_suite.tasks import suites

    options = {
        "--precision": precision, "--detect": detect, "--gate": gate, "--tokens": tokens, "--hours": hours,
        "--dollars": dollars,
    }  # fmt: skip
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        why = (
            f"pass only one of {' and '.join(given)}"
            if given
            else f"nothing to plan for: pass one of {', '.join(options)}"
        )
        raise UsageError(why)
    if given[0] in ("--detect", "--gate") and baseline is None:
        raise UsageError(f"{given[0]} needs --baseline RUN: the run that the candidate is held against")
    if (dollars is None) != (model_cost is None):
        raise UsageError("--dollars and --model-cost go together")
    arguments.include(include_path)
    run = load(baseline, runs) if baseline is not None else None
    if run is not None:
        plan_facts.documents_of(run)
    if run is not None and given[0] in ("--detect", "--gate"):
        plan_facts.whole(run, [entry.task for entry in suites.load(suite).tasks])
    facts = plan_facts.gather(suites.load(suite), run)
    if choose_samples:
        facts = _choosing(facts, given[0], run)
    allocation = _allocate(facts, options, model_cost, run, power=power, flips=flips)
    purpose = f"{given[0]} {options[given[0]]}" + (f" --baseline {run.name}" if run is not None else "")
    if out is not None:
        plan_file.write(out, plan_file.content(suite, purpose, allocation, run))
    paired = given[0] in ("--detect", "--gate")
    if as_json:
        print(json.dumps(_json(allocation, suite, purpose, paired), ensure_ascii=False))
        return
    _print(allocation, suite, purpose, paired)
    for line in _notes(facts, allocation, run, flips if paired else None):
        print(f"! {line}")
    if out is not None:
        print(f"written to {out}: olmes eval --plan {out}", file=sys.stderr)


def _choosing(facts: Facts, purpose: str, run: RunScores | None) -> Facts:
    """Let the plan choose the number of samples. Raises UsageError for a purpose that needs those of the baseline."""
    from olmes_suite.comparison import plan_facts
    from olmes_suite.errors import UsageError

    if purpose in ("--detect", "--gate"):
        raise UsageError(f"{purpose}: a difference needs the baseline's number of samples; leave --choose-samples out")
    if run is None:
        raise UsageError("--choose-samples needs --baseline RUN: how much the answers to a document differ")
    tasks = plan_facts.choosing_samples(facts.tasks, run)
    if not any(task.within for task in tasks):
        raise UsageError(f"--choose-samples: no task of {run.name} has a score that is a mean over several samples")
    return replace(facts, tasks=tasks)


def _allocate(
    facts: Facts, options: dict[str, Any], model_cost: str | None, run: RunScores | None, *, power: float, flips: float
) -> Allocation:
    from olmes_suite.comparison import plan_purpose, planning
    from olmes_suite.comparison.gate_rules import read_rules
    from olmes_suite.errors import UsageError

    if not 0 < flips <= 1:
        raise UsageError(f"--flips must be a share between 0 and 1, not {flips:g}")
    if options["--precision"] is not None:
        return plan_purpose.precision(facts.tasks, options["--precision"])
    if options["--detect"] is not None:
        return plan_purpose.detect(facts.tasks, options["--detect"], power, flips)
    if options["--gate"] is not None:
        return plan_purpose.gate(facts.tasks, read_rules(options["--gate"]), power, flips, facts.skills)
    if options["--tokens"] is not None:
        budget = plan_purpose.number(options["--tokens"], "--tokens")
    elif options["--hours"] is not None:
        budget = plan_purpose.tokens_of_hours(options["--hours"], run)
    else:
        budget = plan_purpose.tokens_of_dollars(options["--dollars"], plan_purpose.read_prices(str(model_cost)), run)
    return planning.for_tokens(facts.tasks, budget)


def _json(allocation: Allocation, suite: str, purpose: str, paired: bool) -> dict[str, Any]:
    from olmes_suite.comparison.planning import half_width

    return {
        "name": suite,
        "purpose": purpose,
        "errors_of": "difference" if paired else "score",
        "suite": {"stderr": allocation.stderr, "ci95_half": half_width(allocation.stderr)},
        "documents": allocation.documents,
        "tokens": round(allocation.tokens),
        "all": {
            "stderr": allocation.stderr_of_all,
            "ci95_half": half_width(allocation.stderr_of_all),
            "documents": allocation.of,
            "tokens": round(allocation.tokens_of_all),
        },
        "tasks": {
            part.task.name: {
                "documents": part.documents,
                "of": part.task.size,
                "samples": part.task.samples,
                "tokens": round(part.tokens),
                "ci95_half": half_width(part.stderr),
                "ci95_half_of_all": half_width(part.stderr_of_all),
                **({"whole": part.task.whole} if part.task.whole else {}),
            }
            for part in allocation.tasks
        },
        "notes": list(allocation.notes),
    }


def _print(allocation: Allocation, suite: str, purpose: str, paired: bool) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from olmes_suite.comparison.plan_facts import short
    from olmes_suite.comparison.planning import amount, half_width

    console = Console(highlight=False)
    console.print(f"[bold]{escape(suite)}[/bold] · {escape(purpose)}", soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", no_wrap=True, max_width=26)
    for heading in ("documents", "of", "samples", "tokens", "± planned", "± all"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in allocation.tasks:
        table.add_row(
            escape(short(part.task.name)), f"{part.documents:,}", f"{part.task.size:,}", str(part.task.samples),
            amount(part.tokens), *(f"{100 * half_width(error):.1f}" for error in (part.stderr, part.stderr_of_all)),
        )  # fmt: skip
    errors = (f"{100 * half_width(error):.2f}" for error in (allocation.stderr, allocation.stderr_of_all))
    table.add_row(
        "[bold]average[/bold]",
        f"{allocation.documents:,}",
        f"{allocation.of:,}",
        "",
        amount(allocation.tokens),
        *errors,
    )
    console.print(table)
    share, wider = allocation.tokens / allocation.tokens_of_all, allocation.stderr / allocation.stderr_of_all - 1
    what = "of the difference from the baseline" if paired else "of the score"
    print(f"±: half the 95 % interval {what}, in points")
    print(
        f"{100 * share:.0f} % of the {amount(allocation.tokens_of_all)} tokens of all documents; "
        f"the interval is {100 * wider:.0f} % wider"
    )


def _few(names: Sequence[str]) -> str:
    """Name up to three tasks."""
    from olmes_suite.comparison.plan_facts import short

    return ", ".join(map(short, names[:3])) + (" …" if len(names) > 3 else "")


def _notes(facts: Facts, allocation: Allocation, run: RunScores | None, flips: float | None) -> list[str]:
    from olmes_suite.comparison.plan_facts import TOKENS, short

    lines = list(allocation.notes)
    fewer = [part.task for part in allocation.tasks if part.task.most > part.task.samples]
    lines += [
        f"{short(task.name)}: {task.samples} of {task.most} samples; the score does not compare with one of {task.most}"
        for task in fewer
    ]
    lines += [f"{short(task.name)} is asked in full: {task.whole}" for task in facts.tasks if task.whole]
    if facts.assumed:
        names = "all tasks" if len(facts.assumed) == len(facts.tasks) else ", ".join(map(short, facts.assumed))
        unpublished = "" if not facts.unpublished else f" (50 where there is none: {_few(facts.unpublished)})"
        scores = "a score of 50" if facts.unpublished == facts.assumed else f"the scores of Tülu 3 8B{unpublished}"
        lines.append(f"assumed for {names}: {scores}, {TOKENS} tokens per answer; --baseline RUN measures them")
    if facts.uncounted:
        lines.append(f"assumed: {TOKENS} tokens per answer; the baseline does not count them ({_few(facts.uncounted)})")
    if flips is not None:
        lines.append(f"assumed: {100 * flips:g} % of documents flip at a score of 50 (--flips)")
    return lines
