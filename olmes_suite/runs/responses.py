"""Reading of a recorded run's responses to selected documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olmes_suite.runs.schema import instances_file, read_rows
from olmes_suite.runs.scores import RunScores
from olmes_suite.runs.store import read_lines

Place = tuple[str, Any]
"""(leaf task, doc_id)."""


def answers(run: RunScores, task: str, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
    """Read {"extracted", "reference", "response"} of each place; empty for baseline files, which have only scores."""
    if run.path is None or not places:
        return {}
    selected = set(places)
    by_place: dict[Place, dict[str, Any]] = {
        (row.task, row.doc_id): {"extracted": row.extracted, "reference": row.reference}
        for row in read_rows(instances_file(run.path, task), ("extracted", "reference"))
        if (row.task, row.doc_id) in selected
    }
    for line in read_lines(run.path / "responses" / f"{task}.jsonl"):
        place = (line.task, line.doc_id)
        if place in by_place and line.response.text is not None:
            by_place[place].setdefault("response", line.response.text)
    return by_place
