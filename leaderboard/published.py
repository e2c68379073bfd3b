"""Reference rows: the numbers that the Tülu 3 paper publishes, from `published.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leaderboard.page_data import Average, Cell, Row
from olmes_suite.tasks.index import PREFIX

SOURCE = "Tülu 3, arXiv 2411.15124"


def rows() -> list[Row]:
    """Make one row for each model, without intervals, which the paper does not print."""
    import yaml

    data = yaml.safe_load((Path(__file__).parent / "published.yaml").read_text(encoding="utf-8"))
    return [_row(entry, data) for entry in data["rows"]]


def _row(entry: dict[str, Any], data: dict[str, Any]) -> Row:
    source = f"as published: {SOURCE}, {entry['tables']}"
    notes = entry.get("notes", {})
    cells = {}
    names = {"dev": data["tasks"], "unseen": data["unseen"], "safety": [f"safety_{name}" for name in data["safety"]]}
    for suite, tasks in names.items():
        for task, value in zip(tasks, entry.get(suite, [None] * len(tasks)), strict=True):
            if value is not None:
                note = f"{source}; {notes[task]}" if task in notes else source
                cells[PREFIX + task] = Cell(round(value / 100, 6), note=note)
    averages = {
        suite: Average(round(entry[f"{suite}_average"] / 100, 6))
        for suite in ("dev", "unseen")
        if f"{suite}_average" in entry
    }
    name = entry["model"]
    return Row(
        id=f"published: {name}", name=name, kind="published", stage=entry.get("stage", ""), lineage="as published",
        cells=cells, suites=averages, source=source,
    )  # fmt: skip
