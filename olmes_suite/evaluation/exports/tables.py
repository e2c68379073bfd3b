"""The scores of a run as tables: tidy CSV with every metric, markdown and LaTeX with the primary ones."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from olmes_suite.files import write_text
from olmes_suite.runs.run import Run
from olmes_suite.runs.schema import Metric
from olmes_suite.tasks.index import PREFIX

if TYPE_CHECKING:
    import pandas as pd


def tidy(run: Run) -> pd.DataFrame:
    """Build a table with a row for each task and metric, and for each suite: value, stderr, lo, hi as fractions."""
    import pandas as pd

    from olmes_suite.runs.frames import bounds

    results = run.results
    rows = [
        {"run": run.name, "model": results.model, "kind": "task", "name": name, "metric": metric,
         "primary": metric == entry.primary, **bounds(value), "n": entry.n}
        for name, entry in results.tasks.items()
        for metric, value in entry.metrics.items()
    ]  # fmt: skip
    rows += [
        {"run": run.name, "model": results.model, "kind": "suite", "name": name, "metric": "average",
         "primary": True, **bounds(suite), "n": None}
        for name, suite in results.suites.items()
    ]  # fmt: skip
    return pd.DataFrame(rows).astype({"n": "Int64"}) if rows else pd.DataFrame(rows)


def csv(run: Run, out: Path) -> list[Path]:
    """Write the tidy table."""
    write_text(out, tidy(run).to_csv(index=False))
    return [out]


def _rows(run: Run) -> list[tuple[str, str, str, str, str]]:
    """Return (task, metric, n, score, interval) of the top-level tasks and the averages, in points."""
    results = run.results
    rows = []
    for plan in run.manifest.plan:
        entry = results.tasks[plan.task]
        name = plan.task.removeprefix(PREFIX)
        rows.append((name, entry.primary, str(entry.n) if entry.error is None else "–", *_points(entry.score)))
    rows += [(f"{name} average", "", "", *_points(suite)) for name, suite in results.suites.items()]
    return rows


def _points(metric: Metric | None) -> tuple[str, str]:
    if metric is None or metric.value is None:
        return "–", ""
    low_high = metric.ci95
    return f"{100 * metric.value:.1f}", f"{100 * low_high[0]:.1f}–{100 * low_high[1]:.1f}" if low_high else ""


def markdown(run: Run, out: Path) -> list[Path]:
    """Write a markdown table: task, metric, documents, score, 95 % interval."""
    lines = ["| task | metric | n | score | 95 % interval |", "|---|---|---:|---:|---|"]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in _rows(run)]
    write_text(out, "\n".join(lines) + "\n")
    return [out]


def latex(run: Run, out: Path) -> list[Path]:
    """Write a LaTeX tabular with booktabs' rules."""
    lines = [r"\begin{tabular}{llrrl}", r"\toprule", r"Task & Metric & $n$ & Score & 95\,\% interval \\", r"\midrule"]
    lines += [" & ".join(map(_escaped, row)) + r" \\" for row in _rows(run)]
    write_text(out, "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n")
    return [out]


def _escaped(text: str) -> str:
    text = text.replace("\\", r"\textbackslash ")
    return re.sub(r"([&%$#_{}])", r"\\\1", text).replace("–", "--").replace("~", r"\textasciitilde ")
