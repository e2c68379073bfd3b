"""What `watching` shows: lines, the table, the warning. Pure functions over the history and the evaluations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from train_plugins.rl.overoptimisation import Overoptimised

WIDTH = 80
SHOWN = {"verified": ("verified", ".3f"), "kl": ("kl", ".4g"), "length": ("length", ".0f"), "eos_rate": ("eos", ".2f"),
         "no_signal": ("no signal", ".2f")}  # fmt: skip
"""Metric to its heading and format."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Dev at a step."""

    step: int
    average: float
    """Unweighted mean of the tasks, as a fraction."""
    stderr: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """An evaluation, and what was logged between the one before and it."""

    step: int
    dev: float | None
    """None for the steps after the last evaluation."""
    stderr: float | None
    means: Mapping[str, float] = field(default_factory=dict)
    """Metric to its mean over the logs."""
    rewards: tuple[float, ...] = ()
    """`verified` of each log."""


def history_line(step: int, logged: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the history; what is no finite number is null."""
    values = {name: float(value) for name, value in logged.items()}
    return {"step": step, **{name: value if math.isfinite(value) else None for name, value in values.items()}}


def log_line(line: Mapping[str, Any], steps: int) -> str:
    """One log in at most 80 columns; what does not fit is in the history."""
    text = f"step {line['step']}/{steps}"
    for name, (heading, form) in SHOWN.items():
        if line.get(name) is not None and len(text) <= WIDTH:
            part = f"  {heading} {line[name]:{form}}"
            text += part if len(text) + len(part) <= WIDTH else ""
    return text


def joined(history: Sequence[Mapping[str, Any]], evaluations: Sequence[Evaluated]) -> list[Row]:
    """A row for each evaluation, by step, and one for the logs after the last."""
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
        means = {name: sum(found) / len(found) for name, found in values.items() if found}
        dev, error = (None, None) if one is None else (one.average, one.stderr)
        rows.append(Row(step, dev, error, means, tuple(map(float, values.get("verified", ())))))
        start = step
    return rows


def table(rows: Sequence[Row], markdown: bool = False) -> list[str]:
    """The rows as a table: dev in points with its 95 % error bar, the rest as means since the row before."""
    if not rows:
        return []
    own = sorted({name for row in rows for name in row.means if name.startswith("verified/")})
    metrics = {**SHOWN, **({name: (name.removeprefix("verified/"), ".3f") for name in own} if markdown else {})}
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
    last = {name: rows[-1].means[name] for name in own if name in rows[-1].means}
    parts = ", ".join(f"{name.removeprefix('verified/')} {value:.3f}" for name, value in last.items())
    return [*lines, f"verified, by verifier: {parts}"] if parts else lines


def warning(found: Overoptimised) -> str:
    """The one line that is said when reward rises while dev falls."""
    fall, (before, after) = found.fall, found.reward
    low, high = fall.ci95 or (fall.delta, fall.delta)
    return (
        f"warning: over-optimisation: from step {found.since} to {found.step} the verified reward rose from "
        f"{before:.3f} to {after:.3f} while dev fell by {-100 * fall.delta:.1f} points (95 %: {-100 * high:.1f} to "
        f"{-100 * low:.1f}); the checkpoint of step {found.since} is better: stop, or raise rlvr.beta"
    )
