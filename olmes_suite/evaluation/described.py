"""Documents of a recorded run as its readers see them: question, choices, reference, answer, thought and score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from olmes_suite.evaluation import run_prompts
from olmes_suite.runs.run import Run
from olmes_suite.runs.schema import InstanceRow, read_rows
from olmes_suite.runs.store import readable_lines


def rows_of(run: Run, top: str, leaf: str | None = None) -> list[InstanceRow]:
    """Return the documents of a top-level task, or of its sub-task `leaf`.

    Raises DataError for a damaged file, UsageError for a task without a score.
    """
    from olmes_suite.runs import frames

    return [row for row in read_rows(frames.documents_file(run.path, top)) if leaf is None or row.task == leaf]


def describe(run: Run, top: str, documents: Sequence[InstanceRow]) -> list[dict[str, Any]]:
    """Return the documents with question, choices, reference, answer, thought and score."""
    places = [(row.task, row.doc_id) for row in documents]
    prompts, note = run_prompts.render(run.path, run.manifest, top, places)
    described = []
    for row in documents:
        prompt = prompts.get((row.task, row.doc_id), {})
        described.append(
            {
                "task": row.task,
                "doc_id": row.doc_id,
                "question": run_prompts.question(prompt) if prompt else None,
                "choices": prompt.get("c"),
                "reference": row.reference,
                "note": note,
            }
        )
    add_answers(described, "run", run, top)
    return described


def add_answers(described: Sequence[dict[str, Any]], key: str, run: Run, top: str) -> None:
    """Add a run's score, extracted answer, flags, first response and thought to each document."""
    rows = {(row.task, row.doc_id): row for row in rows_of(run, top)}
    by_place = {(one["task"], one["doc_id"]): one for one in described}
    for place, one in by_place.items():
        row = rows[place]
        one[key] = {"name": run.name, "score": row.score, "extracted": row.extracted, "flags": list(row.flags)}
    for line in readable_lines(run_prompts.responses_file(run.path, top)):
        shown = by_place.get((line.task, line.doc_id))
        if shown is not None and line.index == 0 and line.sample == 0:
            shown[key].update(response=line.response.text, thinking=line.response.thinking)
