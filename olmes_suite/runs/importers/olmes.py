"""Logs of OLMES: `task-*-predictions.jsonl` and `task-*-metrics.json` in the output folder of each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.records import Response
from olmes_suite.runs.importers.log import (
    Document,
    Log,
    Task,
    doc_id,
    given,
    mapping,
    no_logs,
    number,
    read_lines,
    read_object,
    text,
)  # fmt: skip

_END = "-predictions.jsonl"


def read(path: Path) -> Sequence[Log]:
    """Read the output folders below a folder, or one file of predictions. Raises UsageError."""
    files = [path] if given(path).is_file() else sorted(path.rglob("task-*-predictions.jsonl*"))
    found: dict[tuple[Path, str], Log] = {}
    for file in files:
        if _END not in file.name:
            continue
        stem = file.name.split(_END)[0]
        metrics = next((p for end in ("", ".gz") if (p := file.with_name(f"{stem}-metrics.json{end}")).is_file()), None)
        record = read_object(metrics) if metrics is not None else {}
        model = str(mapping(record.get("model_config")).get("model") or file.parent.name).rstrip("/")
        log = found.setdefault((file.parent, model), Log(model, []))
        log.files += [file, *([metrics] if metrics is not None else [])]
        log.settings = dict(mapping(record.get("model_config")))
        _read_task(log, _name(record, stem), record, file)
    if not found:
        raise no_logs(path, "task-*-predictions.jsonl of OLMES")
    return [*found.values()]


def _name(record: Mapping[str, Any], stem: str) -> str:
    """Return the task's name: its alias where it has one, which tells its variants apart."""
    config = mapping(record.get("task_config"))
    alias = mapping(config.get("metadata")).get("alias")
    return str(alias or record.get("task_name") or stem.removeprefix("task-"))


def _read_task(log: Log, name: str, record: Mapping[str, Any], file: Path) -> None:
    task = log.tasks.setdefault(name, Task(name))
    primary = mapping(record.get("task_config")).get("primary_metric")
    task.reported = {
        key: figure
        for key, value in mapping(record.get("metrics")).items()
        if key != "primary_score" and (figure := number(value)) is not None
    }
    counted = record.get("num_instances")
    task.counted = counted if isinstance(counted, int) else None
    for where, row in read_lines(file):
        if not {"doc_id", "metrics"} <= row.keys():
            raise UsageError(f"{where}: not a prediction of OLMES: doc_id or metrics is missing")
        place = doc_id(row["doc_id"], where)
        if place in task.documents:
            log.left_out["document given again"] += 1
            continue
        scores = {key: value for key, raw in mapping(row["metrics"]).items() if (value := number(raw)) is not None}
        if not scores:
            log.left_out["document without a score"] += 1
            continue
        task.documents[place] = _document(place, row, scores)
    found = dict.fromkeys(metric for document in task.documents.values() for metric in document.scores)
    first = [primary] if primary in found else []
    task.metrics = first + [m for m in found if m not in first and (m in task.reported or not task.reported)]


def _document(place: int | str, row: Mapping[str, Any], scores: dict[str, float]) -> Document:
    document = Document(place, scores, reference=text(row.get("label")))
    outputs = row.get("model_output")
    for position, output in enumerate(outputs if isinstance(outputs, list) else []):
        output = mapping(output)
        if (total := number(output.get("sum_logits"))) is not None and "continuation" not in output:
            response = Response(loglikelihood=total, is_greedy=bool(output.get("is_greedy")))
            document.responses.append((position, 0, response))
        else:
            document.responses.append((0, position, Response(text=text(output.get("continuation")) or "")))
    answer = mapping(row["metrics"]).get("model_answer")
    document.extracted = text(answer) if answer is not None else None
    return document
