"""Reference rows: the numbers that papers publish, from `published.yaml` (Tülu 3) and `published_olmo3.yaml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leaderboard.page_data import Average, Cell, Row
from olmes_suite.tasks.index import PREFIX

SOURCE = "Tülu 3, arXiv 2411.15124"


def rows() -> list[Row]:
    """Make one row for each model, without intervals, which the papers do not print.

    The board shows the rows that have a score in one of its columns.
    """
    tulu3, olmo3 = _read("published.yaml"), _read("published_olmo3.yaml")
    return [*(_row(entry, tulu3) for entry in tulu3["rows"]), *(_olmo3_row(entry, olmo3) for entry in olmo3["rows"])]


def _read(name: str) -> dict[str, Any]:
    import yaml

    data: dict[str, Any] = yaml.safe_load((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return data


def _row(entry: dict[str, Any], data: dict[str, Any]) -> Row:
    source = f"as published: {SOURCE}, {entry['tables']}"
    notes = entry.get("notes", {})
    cells = {}
    names = {"dev": data["tasks"], "unseen": data["unseen"], "safety": [f"safety_{name}" for name in data["safety"]]}
    for suite, tasks in names.items():
        for task, value in zip(tasks, entry.get(suite, [None] * len(tasks)), strict=True):
            if value is not None:
                cells[PREFIX + task] = _cell(value, source, notes.get(task))
    averages = {
        suite: Average(round(entry[f"{suite}_average"] / 100, 6))
        for suite in ("dev", "unseen")
        if f"{suite}_average" in entry
    }
    return _published(entry, cells, averages, source)


def _olmo3_row(entry: dict[str, Any], data: dict[str, Any]) -> Row:
    source = f"as published: {data['source']}, tables 14, 15 and 26; mean of 3 runs"
    scores = zip(data["tasks"], entry["scores"], strict=True)
    cells = {data["prefix"] + task: _cell(value, source, data["notes"].get(task)) for task, value in scores}
    return _published(entry, cells, {}, source)


def _cell(points: float, source: str, note: str | None) -> Cell:
    return Cell(round(points / 100, 6), note=f"{source}; {note}" if note else source)


def _published(entry: dict[str, Any], cells: dict[str, Cell], averages: dict[str, Average], source: str) -> Row:
    name = entry["model"]
    return Row(
        id=f"published: {name}", name=name, kind="published", stage=entry.get("stage", ""), lineage="as published",
        cells=cells, suites=averages, source=source,
    )  # fmt: skip
