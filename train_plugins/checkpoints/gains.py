"""Gains of each stage: paired differences on the same documents, with intervals and adjusted p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.comparison.compare import TaskComparison, adjusted, compare_runs
from olmes_suite.comparison.reports import p_value, points, short
from olmes_suite.runs.scores import read_run

if TYPE_CHECKING:
    from rich.table import Table

FILE = "gains.json"
SCHEMA = "1.0"


@dataclass(frozen=True, slots=True)
class Step:
    """Two evaluated checkpoints, the second trained from the first."""

    stage: str
    before: Path
    """Folder of the run."""
    after: Path


@dataclass(frozen=True, slots=True)
class Gain:
    """The gain of one step on one task."""

    stage: str
    before: str
    """Name of the run."""
    after: str
    task: TaskComparison
    stopped: bool = False
    """Whether a run stopped early, so that its looks chose the documents."""


def gains(steps: Sequence[Step]) -> list[Gain]:
    """Compare every step's tasks as `olmes compare` does; Holm's adjustment covers all p-values together.

    Raises DataError for a run that cannot be read.
    """
    unadjusted = []
    for step in steps:
        runs = read_run(step.before), read_run(step.after)
        comparison = compare_runs(*runs)
        stopped = any(run.stopped is not None for run in runs)
        unadjusted += [Gain(step.stage, runs[0].name, runs[1].name, task, stopped) for task in comparison.tasks]
    tasks = adjusted([gain.task for gain in unadjusted])
    return [replace(gain, task=task) for gain, task in zip(unadjusted, tasks, strict=True)]


def as_json(gains: Sequence[Gain], about: Mapping[str, Any]) -> dict[str, Any]:
    """Return {"schema", …about, "gains": [{"stage","task","baseline","candidate","n","before","after","delta","ci95",
    "p","p_holm","wins","losses"}]}, as fractions.

    Numbers are null where two scores cannot be compared; `reason` says why.
    """
    return {"schema": SCHEMA, **about, "gains": [_row(gain) for gain in gains]}


def _row(gain: Gain) -> dict[str, Any]:
    task, d = gain.task, gain.task.difference
    out: dict[str, Any] = {
        "stage": gain.stage, "task": task.task, "baseline": gain.before, "candidate": gain.after,
        "before": task.baseline, "after": task.candidate, "n": d.n if d else 0, "delta": d.delta if d else None,
        "ci95": list(d.ci95) if d and d.ci95 else None, "p": d.p if d else None, "p_holm": task.p_holm,
        "wins": d.wins if d else None, "losses": d.losses if d else None,
    }  # fmt: skip
    out |= {"stopped": True} if gain.stopped else {}
    return out if d else out | {"reason": _reason(task)}


def _reason(task: TaskComparison) -> str:
    return f"{' and '.join(task.differs)} differ" if task.differs else task.reason or "no difference"


def table(gains: Sequence[Gain]) -> Table:
    """Return a rich table for 80 columns, with gains in bold where the adjusted p-value is at most 0.05."""
    from rich.markup import escape
    from rich.table import Table

    out = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading, width in (("stage", 13), ("task", 18)):
        out.add_column(heading, no_wrap=True, max_width=width)
    for heading in ("n", "before", "after", "Δ", "95 % interval", "p"):
        out.add_column(heading, justify="right", no_wrap=True)
    for gain in gains:
        task, d = gain.task, gain.task.difference
        names = [escape(gain.stage), escape(short(task.task))]
        if d is None:
            out.add_row(*names, "–", points(task.baseline), points(task.candidate), "–", _reason(task)[:14], "–")
            continue
        ends = f"{points(d.ci95[0], True)} {points(d.ci95[1], True)}" if d.ci95 else "–"
        delta = points(d.delta, True)
        sure = task.p_holm is not None and task.p_holm <= 0.05
        scores = [points(task.baseline), points(task.candidate), f"[bold]{delta}[/bold]" if sure else delta]
        out.add_row(*names, str(d.n), *scores, ends, p_value(task.p_holm))
    return out
