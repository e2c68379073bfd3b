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
    """Read {"extracted", "reference", "response", "loglikelihoods"} of each place, the last two where there are some.

    Empty for baseline files, which have only scores.
    """
    if run.path is None or not places:
        return {}
    selected = set(places)
    by_place: dict[Place, dict[str, Any]] = {
        (row.task, row.doc_id): {"extracted": row.extracted, "reference": row.reference}
        for row in read_rows(instances_file(run.path, task), ("extracted", "reference"))
        if (row.task, row.doc_id) in selected
    }
    likely: dict[Place, dict[int, float]] = {}
    for line in read_lines(run.path / "responses" / f"{instances_file(run.path, task).stem}.jsonl"):
        place = (line.task, line.doc_id)
        if place not in by_place:
            continue
        if line.response.loglikelihood is not None:
            likely.setdefault(place, {})[line.index] = line.response.loglikelihood
        elif line.response.text is not None:
            by_place[place].setdefault("response", line.response.text)
    for place, values in likely.items():
        by_place[place]["loglikelihoods"] = [values[index] for index in sorted(values)]
    return by_place
