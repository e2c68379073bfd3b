"""What a recorded run said to chosen documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olmes_suite.runs.scores import RunScores, instances_file
from olmes_suite.runs.store import read_lines

Place = tuple[str, Any]
"""(leaf task, doc_id)."""


def answers(run: RunScores, task: str, places: Sequence[Place]) -> dict[Place, dict[str, Any]]:
    """{"extracted", "reference", "response"} of each place; nothing for baseline files, which hold scores alone."""
    if run.path is None or not places:
        return {}
    import pyarrow.parquet as pq

    table = pq.read_table(instances_file(run.path, task), columns=["task", "doc_id", "extracted", "reference"])
    wanted = set(places)
    rows = [
        i
        for i, place in enumerate(zip(*table.select(["task", "doc_id"]).to_pydict().values(), strict=True))
        if place in wanted
    ]
    found: dict[Place, dict[str, Any]] = {
        (row["task"], row["doc_id"]): {"extracted": row["extracted"], "reference": row["reference"]}
        for row in table.take(rows).to_pylist()
    }
    for line in read_lines(run.path / "responses" / f"{task}.jsonl"):
        place = (line.task, line.doc_id)
        if place in found and line.response.text is not None:
            found[place].setdefault("response", line.response.text)
    return found
