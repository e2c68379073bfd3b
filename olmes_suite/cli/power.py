"""olmes power: plan how many documents or samples a difference needs, or how wide a gate's margin must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from olmes_suite.cli.options import IncludePath, Json, Runs
from olmes_suite.wording import points

if TYPE_CHECKING:
    from olmes_suite.comparison.gate_rules import Rules
    from olmes_suite.comparison.power import PlannedTask

app = typer.Typer(add_completion=False, rich_markup_mode=None)

Task = Annotated[str | None, typer.Option("--task", help="A task, with or without `tulu3_`.")]
Delta = Annotated[float | None, typer.Option("--delta", help="Difference in points; with --gate, the true drop.")]
Gate = Annotated[bool, typer.Option("--gate", help="Plan how often an unchanged model passes the gate.")]
Suite = Annotated[str, typer.Option("--suite", help="Suite of the gate.")]
Flips = Annotated[
    float | None,
    typer.Option(
        "--flips", help="Share of documents whose score changes (0 to 1); by default that of --between, or 0.1."
    ),
]
Between = Annotated[
    str | None, typer.Option("--between", metavar="A,B", help="Two runs from which to measure the share of flips.")
]
Power = Annotated[float, typer.Option("--power", help="Power of the test.")]
Alpha = Annotated[float, typer.Option("--alpha", help="Error rate of the test, or of the gate without --config.")]
Margin = Annotated[
    float | None, typer.Option("--margin", help="Margin of the gate, in points; by default that of --config, or 1.")
]
Config = Annotated[Path | None, typer.Option("--config", help="Rules of the gate: a gate.yaml.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="With --gate, documents of each task or sub-task; by default all.")
]
Samples = Annotated[int, typer.Option("--samples", min=1, help="Number of samples of each document.")]


@app.command()
def power(
    task: Task = None, delta: Delta = None, gate: Gate = False, suite: Suite = "dev", flips: Flips = None,
    between: Between = None, runs: Runs = Path("runs"), power: Power = 0.8, alpha: Alpha = 0.05,
    margin: Margin = None, config: Config = None, limit: Limit = None, samples: Samples = 1,
    include_path: IncludePath = None, as_json: Json = False,
) -> None:  # fmt: skip
    """Plan how many documents a difference needs (--task T --delta POINTS), or how often a gate passes (--gate)."""
    from olmes_suite.errors import UsageError
    from olmes_suite.evaluation.arguments import include

    include(include_path)
    if gate == (task is not None):
        raise UsageError("nothing to plan: pass --task T --delta POINTS, or --gate")
    if not 0 < alpha < 0.5 or not 0.5 <= power < 1:
        raise UsageError("--alpha must lie between 0 and 0.5, --power between 0.5 and 1")
    if delta is not None and (delta < 0 or (delta == 0 and not gate)):
        raise UsageError(f"--delta is a number of points above 0, not {delta:g}")
    share = flips if flips is not None else _measured(between, task, runs) if between else 0.10
    flips_source = "given" if flips is not None else f"measured between {between}" if between else "assumed"
    if gate:
        plan = _gate(suite, _rules(config, margin, alpha), share, delta or 0.0, limit=limit, samples=samples)
    else:
        plan = _task(str(task), delta, share, power=power, alpha=alpha, samples=samples)
    plan |= {"flips": share, "flips_are": flips_source}
    if as_json:
        print(json.dumps(plan, ensure_ascii=False))
    elif gate:
        _print_gate(plan)
    else:
        _print_task(plan, samples)


def _rules(config: Path | None, margin: float | None, alpha: float) -> Rules:
    from dataclasses import replace

    from olmes_suite.comparison.gate_rules import Rules, parse_rules, read_rules

    rules = read_rules(config) if config else replace(Rules(), alpha=alpha)
    return rules if margin is None else replace(rules, margin=parse_rules({"margin": margin}, "command line").margin)


def _measured(between: str, task: str | None, runs: Path) -> float:
    """Measure the share of documents whose scores differ between two runs, over the task or over all tasks."""
    from olmes_suite.comparison.compare import compare_runs
    from olmes_suite.errors import NotComparable, UsageError
    from olmes_suite.runs.locate import load
    from olmes_suite.tasks.index import full_name

    names = between.split(",")
    if len(names) != 2:
        raise UsageError("--between takes two runs: --between A,B")
    comparison = compare_runs(*(load(name.strip(), runs) for name in names))
    differences = [
        t.difference
        for t in comparison.tasks
        if t.difference and t.comparable and task in (None, t.task, t.task.removeprefix("tulu3_"))
    ]
    if not differences:
        raise NotComparable(f"{between}: no documents in common" + (f" of {full_name(task)}" if task else ""))
    flipped = sum(d.wins + d.losses for d in differences)
    if not flipped:
        raise UsageError(f"{between}: no document's score differs between the two; give --flips")
    return flipped / sum(d.n for d in differences)


def _task(task: str, delta: float | None, flips: float, *, power: float, alpha: float, samples: int) -> dict[str, Any]:
    from olmes_suite.comparison import power as planning
    from olmes_suite.errors import UsageError
    from olmes_suite.tasks.index import full_name
    from olmes_suite.tasks.sizes import leaf_sizes

    if delta is None:
        raise UsageError("--delta is needed: the difference to find, in points")
    one_sample = planning.items_needed(delta / 100, flips, power, alpha)
    sizes = leaf_sizes(task)
    available = sum(sizes) if sizes else None
    plan: dict[str, Any] = {
        "task": full_name(task),
        "delta": delta / 100,
        "power": power,
        "alpha": alpha,
        "items": planning.samples_needed(one_sample, samples),
        "have": available,
    }
    if available:
        plan["power_of_task"] = planning.power_of(available * samples, delta / 100, flips, alpha)
        plan["samples"] = planning.samples_needed(one_sample, available)
    return plan


def _planned(suite: str, limit: int | None, samples: int) -> list[PlannedTask]:
    from olmes_suite.comparison.power import PlannedTask
    from olmes_suite.errors import UsageError
    from olmes_suite.tasks import suites
    from olmes_suite.tasks.index import index
    from olmes_suite.tasks.sizes import leaf_sizes

    planned = []
    for entry in suites.load(suite).tasks:
        sizes = leaf_sizes(entry.task)
        if sizes is None:
            raise UsageError(f"the number of documents of {entry.task} is not known; plan with a suite without it")
        known = index().get(entry.task)
        aggregate = entry.aggregate or (known.aggregate if known else "mean")
        leaves = tuple(min(n, limit) if limit else n for n in sizes)
        planned.append(PlannedTask(entry.task, leaves, aggregate not in ("micro", "stratified"), entry.skill, samples))
    return planned


def _gate(suite: str, rules: Rules, flips: float, delta: float, *, limit: int | None, samples: int) -> dict[str, Any]:
    from olmes_suite.comparison.power import gate_power

    planned = _planned(suite, limit, samples)
    estimate = gate_power(planned, rules, flips, delta / 100)
    margin = rules.suite_margin if rules.suite_margin is not None else rules.margin
    return {
        "suite": suite,
        "drop": delta / 100,
        "margin": margin,
        "alpha": rules.alpha,
        "green": estimate.green,
        "red": estimate.red,
        "inconclusive": estimate.inconclusive,
        "average_passes": estimate.average_passes,
        "average_stderr": estimate.average_stderr,
        "tasks": {task.name: {"n": sum(task.leaves), "passes": estimate.tasks[task.name]} for task in planned},
    }


def _print_task(plan: dict[str, Any], samples: int) -> None:
    each = f" of {samples} samples each" if samples > 1 else ""
    delta = points(plan["delta"])
    print(f"{plan['items']:,} documents{each} find a difference of {delta} with {100 * plan['power']:.0f} % power")
    print(
        f"at alpha {plan['alpha']:g}, two-sided, if {100 * plan['flips']:.3g} % of documents flip ({plan['flips_are']})"
    )
    if samples > 1:
        print("where flips are chance in sampling alone")
    if plan["have"]:
        print(f"{plan['task']} has {plan['have']:,}: its power for {delta} is {100 * plan['power_of_task']:.0f} %")
        if plan["samples"] > samples:
            print(f"or {plan['samples']} samples of each document, where flips are chance in sampling alone")


def _print_gate(plan: dict[str, Any]) -> None:
    candidate = f"a model {points(plan['drop'])} worse" if plan["drop"] else "an unchanged model"
    print(f"gate of {plan['suite']}, margin {points(plan['margin'])}, alpha {plan['alpha']:g};")
    print(f"{100 * plan['flips']:.3g} % of documents flip ({plan['flips_are']}):")
    print(f"  {candidate}: green {plan['green']:.2f}, red {plan['red']:.2f}, inconclusive {plan['inconclusive']:.2f}")
    error = f"{100 * plan['average_stderr']:.2f} points"
    print(f"  the average passes in {plan['average_passes']:.2f}; its standard error is {error}")
    for name, task in plan["tasks"].items():
        print(f"  {name.removeprefix('tulu3_'):<18} {task['n']:>6,} documents, passes on its own {task['passes']:.2f}")
