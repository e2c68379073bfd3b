"""Lines, table and warning that `reward_history` shows, as pure functions of the history and the evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from train_plugins.rl.overoptimisation import Overoptimised

WIDTH = 80
SHOWN = {"verified": ("verified", ".3f"), "kl": ("kl", ".4g"), "length": ("length", ".0f"), "eos_rate": ("eos", ".2f"),
         "no_signal": ("no signal", ".2f")}  # fmt: skip
"""Heading and format of each metric."""
SHOWN_IF_LOGGED = {"tools/failed": ("tools failed", ".2f"), "staleness_max": ("stale", ".0f")}
"""Heading and format of metrics that only some trainings have, which the table leaves out."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The average on dev at a step."""

    step: int
    average: float
    """Unweighted mean of the tasks, as a fraction."""
    stderr: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """An evaluation, with the metrics logged since the one before it."""

    step: int
    dev: float | None
    """Average on dev; None for the steps after the last evaluation."""
    stderr: float | None
    means: Mapping[str, float] = field(default_factory=dict)
    """Mean of each metric over the logs."""
    rewards: tuple[float, ...] = ()
    """The metric `verified` of each log."""


def history_line(step: int, logged: Mapping[str, Any]) -> dict[str, Any]:
    """Return a line of the history; numbers that are not finite become null."""
    values = {name: float(value) for name, value in logged.items()}
    return {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}


def log_line(line: Mapping[str, Any], steps: int) -> str:
    """Format one log in at most 80 columns; metrics that do not fit are only in the history."""
    text = f"step {line['step']}/{steps}"
    for name, (heading, form) in {**SHOWN, **SHOWN_IF_LOGGED}.items():
        if line.get(name) is not None and len(text) <= WIDTH:
            part = f"  {heading} {line[name]:{form}}"
            text += part if len(text) + len(part) <= WIDTH else ""
    return text


def joined(history: Sequence[Mapping[str, Any]], evaluations: Sequence[Evaluated]) -> list[Row]:
    """Return a row for each evaluation, by step, and one for the logs after the last evaluation."""
    rows, start = [], -1
    last = max((line["step"] for line in history), default=-1)
    ends: list[Evaluated | None] = [*sorted(evaluations, key=lambda one: one.step)]
    if not evaluations or last > max(one.step for one in evaluations):
        ends.append(None)
    for one in ends:
        step = last if one is None else one.step
        logs = [line for line in history if start < line["step"] <= step]
        if one is None and not logs:
            break
        names = {name: None for line in logs for name in line if name != "step"}
        values = {name: [line[name] for line in logs if line.get(name) is not None] for name in names}
        means = {name: sum(numbers) / len(numbers) for name, numbers in values.items() if numbers}
        dev, error = (None, None) if one is None else (one.average, one.stderr)
        rows.append(Row(step, dev, error, means, tuple(map(float, values.get("verified", ())))))
        start = step
    return rows


def table(rows: Sequence[Row], markdown: bool = False) -> list[str]:
    """Format the rows as a table: dev in points with its 95 % error bar, the rest as means since the row before."""
    if not rows:
        return []
    by_verifier = sorted({name for row in rows for name in row.means if name.startswith("verified/")})
    metrics = {**SHOWN, **({name: (name.removeprefix("verified/"), ".3f") for name in by_verifier} if markdown else {})}
    cells = [["step", "dev", "±", *(heading for heading, _ in metrics.values())]]
    for row in rows:
        dev = "–" if row.dev is None else f"{100 * row.dev:.1f}"
        error = "–" if row.stderr is None else f"{100 * 1.96 * row.stderr:.1f}"
        shown = [f"{row.means[name]:{form}}" if name in row.means else "–" for name, (_, form) in metrics.items()]
        cells.append([str(row.step), dev, error, *shown])
    if markdown:
        lines = [f"| {' | '.join(line)} |" for line in cells]
        return [lines[0], "|" + "---|" * len(cells[0]), *lines[1:]]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    last = {name: rows[-1].means[name] for name in by_verifier if name in rows[-1].means}
    parts = ", ".join(f"{name.removeprefix('verified/')} {value:.3f}" for name, value in last.items())
    return [*lines, f"verified, by verifier: {parts}"] if parts else lines


def warning(event: Overoptimised) -> str:
    """Return the line that warns of a rising reward with falling dev."""
    fall, (before, after) = event.fall, event.reward
    low, high = fall.ci95 or (fall.delta, fall.delta)
    return (
        f"warning: over-optimisation: from step {event.since} to {event.step} the verified reward rose from "
        f"{before:.3f} to {after:.3f} while dev fell by {-100 * fall.delta:.1f} points (95 %: {-100 * high:.1f} to "
        f"{-100 * low:.1f}); the checkpoint of step {event.since} is better: stop, or raise rlvr.beta"
    )
