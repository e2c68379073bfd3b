"""Writing of a foreign log as a finished run that is marked as imported."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite import stats
from olmes_suite.errors import UsageError, nearest
from olmes_suite.files import RunLock, storage, write_text
from olmes_suite.records import sha256
from olmes_suite.runs.importers.log import GROUP, WITHOUT_SAMPLES, Document, Log, Task
from olmes_suite.runs.schema import (
    InstanceRow,
    Manifest,
    Metric,
    Results,
    TaskResult,
    Time,
    instances_file,
    write_instances,
    write_manifest,
    write_results,
)  # fmt: skip
from olmes_suite.runs.store import UNFINISHED, Line

PROMPTS = "prompts"
"""Folder of an imported run: the questions of a task's documents, as JSON lines {"task", "doc_id", "text"}."""
CLOSE = 5e-4
"""Largest difference between a recomputed and a reported figure that counts as equal: reports are rounded."""


@dataclass(frozen=True, slots=True)
class Figure:
    """The score of an imported task beside the one in its source."""

    n: int
    metric: str
    value: float
    reported: float | None
    """None where the source has no such figure."""
    note: str
    """Why the two differ, as far as the log tells it; "" where they are equal."""
    others: Mapping[str, float]
    """The other metrics that are fractions."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A run that was made of a log."""

    path: Path
    tasks: Mapping[str, Figure]
    left_out: Mapping[str, int]


def gather(logs: Sequence[Log]) -> list[Log]:
    """Join the logs of one model. Two logs of one task stay apart: they are two evaluations. Raises UsageError."""
    joined: list[Log] = []
    for log in logs:
        same = [one for one in joined if one.model == log.model and not one.tasks.keys() & log.tasks.keys()]
        if same and log.tasks:
            same[0].tasks.update(log.tasks)
            same[0].left_out.update(log.left_out)
            same[0].files += log.files
        else:
            joined.append(log)
    usable = [log for log in joined if any(_primary(task) for task in log.tasks.values())]
    if not usable:
        reasons = ", ".join(
            f"{count} × {reason}" for log in joined for reason, count in log.left_out.items() if reason != GROUP
        )
        hint = ""
        if any(WITHOUT_SAMPLES in log.left_out for log in joined):
            hint = "; `lm_eval --log_samples` writes them, and `olmes import scores` takes a score for each document"
        raise UsageError(f"no document with a score{f' ({reasons})' if reasons else ''}: nothing is imported{hint}")
    return usable


def with_metric(logs: Sequence[Log], metric: str | None) -> tuple[list[Log], list[Log]]:
    """Return the logs with a task that has the metric, and the others. Raises UsageError where no log has it."""
    has = [any(_primary(task, metric) is not None for task in log.tasks.values()) for log in logs]
    if metric is not None and not any(has):
        known = list(dict.fromkeys(m for log in logs for task in log.tasks.values() for m in task.metrics))
        close = [one for one in known if one.split(",")[-1] == metric or one.split(",")[0] == metric]
        hint = f", did you mean {close[0]!r}?" if close else nearest(metric, known)
        raise UsageError(f"no task has the metric {metric!r}{hint}; the logs have {', '.join(known)}")
    return [log for log, found in zip(logs, has, strict=True) if found], [
        log for log, found in zip(logs, has, strict=True) if not found
    ]


def names(logs: Sequence[Log], name: str | None) -> list[str]:
    """Return a run's name for each log: the model's, told apart by the folders in which logs of one model differ."""
    stems = [name or _slug(_short(log.model)) for log in logs]
    out = []
    for position, (log, stem) in enumerate(zip(logs, stems, strict=True)):
        twins = [other for k, other in enumerate(logs) if stems[k] == stem and k != position]
        out.append("-".join([stem, *_differing(log, twins)]) if twins else stem)
    return [f"{one}-{out[:k].count(one) + 1}" if out.count(one) > 1 else one for k, one in enumerate(out)]


def _short(model: str) -> str:
    """Return the name of a model: of a Hub id the part after the owner, of a path its last two folders."""
    parts = [part for part in model.split("/") if part]
    return "-".join(parts[-2:] if model.startswith("/") else parts[-1:])


def _differing(log: Log, twins: Sequence[Log]) -> list[str]:
    """Return the folders of a log's first file that no twin has, or its time."""
    parts = log.files[0].parent.parts
    others = {part for twin in twins for part in twin.files[0].parent.parts}
    return [_slug(part) for part in parts if part not in others][:1]


def _slug(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:120] or "imported"


def _primary(task: Task, wanted: str | None = None) -> str | None:
    """Return the metric that becomes the score: the wanted one, or the first with fractions for all documents."""
    if wanted is not None:
        return wanted if wanted in task.metrics else None
    for metric in task.metrics:
        values = [document.scores.get(metric) for document in task.documents.values()]
        if values and all(value is not None and 0 <= value <= 1 for value in values):
            return metric
    return None


def check_names(names: Sequence[str], runs: Path, again: bool) -> None:
    """Raise UsageError for a name that is no folder name, or that a run has already, before anything is written."""
    for name in names:
        if name != _slug(name):
            raise UsageError(f"--name {name!r}: letters, digits, '-', '_' and '.' make a run's name")
        if (runs / name).exists() and not again:
            raise UsageError(f"run {name} exists in {runs}; --again replaces it, --name NAME gives another name")


def write(log: Log, name: str, runs: Path, command: Sequence[str], metric: str | None = None) -> Imported:
    """Write a log as the run `name`, in place of an earlier one. Raises UsageError for a metric that no task has."""
    left_out = dict(log.left_out)
    chosen: dict[str, tuple[Task, str]] = {}
    for task in log.tasks.values():
        if (primary := _primary(task, metric)) is not None:
            chosen[task.name] = task, primary
        else:
            reason = "task without that metric" if metric is not None else "task without a fraction as score"
            left_out[reason] = left_out.get(reason, 0) + 1
    if not chosen:
        known = ", ".join(dict.fromkeys(m for task in log.tasks.values() for m in task.metrics))
        raise UsageError(f"no task has the metric {metric!r}; the log has {known}" if metric else f"{name}: no scores")
    folder = runs / UNFINISHED / name
    with RunLock(folder.with_name(f"{name}.lock")):
        shutil.rmtree(folder, ignore_errors=True)
        for task, primary in chosen.values():
            _write_task(folder, task, primary)
        entries = {task.name: _entry(task, primary) for task, primary in chosen.values()}
        write_results(folder, Results(run=name, model=log.model, imported=True, tasks=entries))
        write_manifest(folder, _manifest(log, name, [*chosen], command, left_out))
        with storage(runs / name):
            shutil.rmtree(runs / name, ignore_errors=True)
            os.replace(folder, runs / name)
    return Imported(runs / name, {n: _figure(task, primary) for n, (task, primary) in chosen.items()}, left_out)


def _manifest(log: Log, name: str, tasks: list[str], command: Sequence[str], left_out: Mapping[str, int]) -> Manifest:
    files = {str(file): sha256(file.read_bytes()) for file in log.files}
    source: dict[str, Any] = {"path": str(log.files[0]), "sha256": files[str(log.files[0])], "files": files}
    source |= {"left_out": left_out, "settings": json.loads(json.dumps(log.settings, default=str))}
    source["reported"] = {task: log.tasks[task].reported for task in tasks}
    manifest = Manifest.of_import(name, tasks, command, str(Path.cwd()), source)
    return manifest.but(model=manifest.model.but(path=log.model), time=Time(started=log.started))


def _entry(task: Task, primary: str) -> TaskResult:
    documents = [*task.documents.values()]
    metrics = {}
    for metric in dict.fromkeys([primary, *task.metrics]):
        values = [document.scores[metric] for document in documents if metric in document.scores]
        if len(values) == len(documents):
            metrics[metric] = Metric.of(stats.mean(values, [f"doc:{document.doc_id}" for document in documents]))
    samples = max((len(document.samples.get(primary, ())) for document in documents), default=0)
    return TaskResult(
        n=len(documents), primary=primary, metrics=metrics, imported=True, samples=samples if samples > 1 else None
    )


def _write_task(folder: Path, task: Task, primary: str) -> None:
    whole = all(isinstance(place, int) for place in task.documents)
    documents = sorted(task.documents.values(), key=lambda d: (0, d.doc_id, "") if whole else (1, 0, str(d.doc_id)))
    places = {document.doc_id: document.doc_id if whole else str(document.doc_id) for document in documents}
    file = instances_file(folder, task.name)
    write_instances(file, [_row(task.name, document, primary, places[document.doc_id]) for document in documents])
    lines = (
        Line("", task.name, places[document.doc_id], index, sample, response)  # type: ignore[arg-type]
        for document in documents
        for index, sample, response in document.responses
    )
    responses = folder / "responses" / f"{file.stem}.jsonl"
    responses.parent.mkdir(parents=True, exist_ok=True)
    with storage(responses):
        responses.write_bytes(b"".join(line.to_json() for line in lines))
    questions = [
        {"task": task.name, "doc_id": places[document.doc_id], "text": document.question}
        for document in documents
        if document.question is not None
    ]
    if questions:
        (folder / PROMPTS).mkdir(parents=True, exist_ok=True)
        lines_of = (json.dumps(question, ensure_ascii=False) + "\n" for question in questions)
        write_text(folder / PROMPTS / f"{file.stem}.jsonl", "".join(lines_of))


def _row(task: str, document: Document, primary: str, place: int | str) -> InstanceRow:
    samples = document.samples.get(primary, [])
    others = {metric: value for metric, value in document.scores.items() if metric not in InstanceRow.__slots__}
    return InstanceRow(
        task=task,
        doc_id=place,
        cluster=f"doc:{place}",
        score=document.scores[primary],
        extracted=document.extracted,
        reference=document.reference,
        sample_scores=tuple(samples) if len(samples) > 1 else None,
        extra=others,
    )


def _figure(task: Task, primary: str) -> Figure:
    values = [document.scores[primary] for document in task.documents.values()]
    value, reported = sum(values) / len(values), task.reported.get(primary)
    note = ""
    if reported is not None and abs(value - reported) > CLOSE:
        note = "the log's figure is not the mean of these documents"
        if task.counted is not None and task.counted != len(values):
            note = f"the log's figure rests on {task.counted} documents, {len(values)} are in it"
    others = {m: entry.value for m, entry in _entry(task, primary).metrics.items() if m != primary}
    fractions = {m: other for m, other in others.items() if other is not None and 0 <= other <= 1}
    return Figure(len(values), primary, value, reported, note, fractions)
