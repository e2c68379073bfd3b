"""What a recorded run said to chosen documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olmes_suite.runs.schema import instances_file, read_rows
from olmes_suite.runs.scores import RunScores
from olmes_suite.runs.store import read_lines

Place = tuple[str, Any]
"""(leaf task, doc_id)."""


def answers(run: RunScores, task: str, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
    """{"extracted", "reference", "response"} of each place; nothing for baseline files, which hold scores alone."""
    if run.path is None or not places:
        return {}
    wanted = set(places)
    found: dict[Place, dict[str, Any]] = {
        (row.task, row.doc_id): {"extracted": row.extracted, "reference": row.reference}
        for row in read_rows(instances_file(run.path, task), ("extracted", "reference"))
        if (row.task, row.doc_id) in wanted
    }
    for line in read_lines(run.path / "responses" / f"{task}.jsonl"):
        place = (line.task, line.doc_id)
        if place in found and line.response.text is not None:
            found[place].setdefault("response", line.response.text)
    return found
