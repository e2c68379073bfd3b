"""The documents of a run with everything that an export needs: question, answers, scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from olmes_suite.evaluation import run_prompts
from olmes_suite.records import Response
from olmes_suite.runs.run import Run
from olmes_suite.runs.schema import InstanceRow, instances_file, read_rows
from olmes_suite.runs.store import readable_lines


@dataclass(slots=True)
class Document:
    """A scored document."""

    row: InstanceRow
    messages: list[list[str]] | None = None
    """[[role, text], …] of the prompt; None where it is plain text or not known."""
    text: str | None = None
    """The prompt as plain text; None where it is messages or not known."""
    choices: list[str | None] | None = None
    """The continuations of a log-likelihood task."""
    answers: list[tuple[int, int, Response]] = field(default_factory=list)
    """(index of the request, sample, response), in this order."""

    @property
    def question(self) -> str:
        """The last message or the whole text; empty where the prompt is not known."""
        return (self.messages[-1][1] if self.messages else self.text) or ""

    def scores(self, primary: str) -> dict[str, float]:
        """Return the scores by metric, the primary one first."""
        own = {primary: self.row.score, **self.row.metrics}
        return {name: float(value) for name, value in own.items() if value is not None}


def documents(run: Run, task: str) -> Iterator[Document]:
    """Yield the documents of a top-level task in the order of the run. Raises DataError for damaged files."""
    found = {(row.task, row.doc_id): Document(row) for row in read_rows(instances_file(run.path, task))}
    prompts, _ = run_prompts.render(run.path, run.manifest, task, found)
    for place, prompt in prompts.items():
        document = found[place]
        document.messages, document.text, document.choices = prompt.get("m"), prompt.get("t"), prompt.get("c")
    for line in readable_lines(run_prompts.responses_file(run.path, task)):
        if (known := found.get((line.task, line.doc_id))) is not None:
            known.answers.append((line.index, line.sample, line.response))
    for document in found.values():
        document.answers.sort(key=lambda answer: answer[:2])
        yield document


def split(run: Run, task: str) -> dict[str, list[Document]]:
    """Return the documents of a top-level task by leaf task."""
    leaves: dict[str, list[Document]] = {}
    for document in documents(run, task):
        leaves.setdefault(document.row.task, []).append(document)
    return leaves


def data_of(run: Run, leaf: str) -> dict[str, Any]:
    """Return {"path", "config", "split", "revision"} of a leaf task's data, None for what is not known."""
    used = run.manifest.data.get(leaf)
    files = used.files if used is not None else None
    return {
        "path": used.path if used is not None else None,
        "config": used.config if used is not None else None,
        "split": next(iter(files)) if files else None,
        "revision": used.revision if used is not None else None,
    }
