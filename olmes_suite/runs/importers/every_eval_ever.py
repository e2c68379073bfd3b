"""Every Eval Ever: an aggregate JSON of a model, and the JSON lines of its samples that it names."""

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
    seconds,
    text,
)  # fmt: skip


def read(path: Path) -> Sequence[Log]:
    """Read the records below a folder, or one aggregate file. Raises UsageError."""
    files = [path] if given(path).is_file() else sorted(path.rglob("*.json"))
    found = []
    for file in files:
        content = read_object(file)
        if "evaluation_results" not in content or "model_info" not in content:
            if len(files) == 1:
                raise UsageError(f"{file}: not a record of Every Eval Ever: no evaluation_results or model_info")
            continue
        found.append(_log(file, content))
    if not found:
        raise no_logs(path, "records of Every Eval Ever")
    return found


def _log(file: Path, content: Mapping[str, Any]) -> Log:
    model = mapping(content["model_info"])
    log = Log(
        str(model.get("id") or model.get("name") or file.stem),
        [file],
        started=seconds(content.get("evaluation_timestamp")),
    )
    for result in content["evaluation_results"] or []:
        name = str(mapping(result).get("evaluation_name"))
        metric = str(mapping(mapping(result).get("metric_config")).get("metric_name") or "score")
        score = number(mapping(mapping(result).get("score_details")).get("score"))
        task = log.tasks.setdefault(name, Task(name))
        if score is not None:
            task.reported.setdefault(metric, score)
    detailed = mapping(content.get("detailed_evaluation_results"))
    if samples := _samples(file, detailed):
        log.files.append(samples)
        _read_samples(log, samples)
    for name, task in [*log.tasks.items()]:
        if not task.documents:
            log.left_out["score without documents"] += 1
            del log.tasks[name]
    return log


def _samples(file: Path, detailed: Mapping[str, Any]) -> Path | None:
    """Find the file of samples: beside the aggregate, or below the folder in which its path begins."""
    named = Path(str(detailed.get("file_path") or f"{file.stem}_samples.jsonl"))
    places = [file.with_name(named.name), *(parent / named for parent in file.parents)]
    if not named.is_absolute() and ".." not in named.parts:
        return next((place for place in places if place.is_file()), None)
    return places[0] if places[0].is_file() else None


def _read_samples(log: Log, file: Path) -> None:
    for where, row in read_lines(file):
        name, score = str(row.get("evaluation_name")), number(mapping(row.get("evaluation")).get("score"))
        place = doc_id(row.get("sample_id"), where)
        if row.get("error"):
            log.left_out["sample ended with an error"] += 1
            continue
        if score is None:
            log.left_out["sample without a score"] += 1
            continue
        task = log.tasks.setdefault(name, Task(name))
        metric = next(iter(task.reported), "score")
        task.metrics = [metric]
        document = task.documents.get(place)
        if document is None:
            shown = mapping(row.get("input"))
            document = task.documents[place] = Document(
                place, question=text(shown.get("raw")), reference=_reference(shown.get("reference"))
            )
            attributed = row.get("answer_attribution") or [{}]
            document.extracted = text(mapping(attributed[-1]).get("extracted_value"))
        sample = len(document.samples.setdefault(metric, []))
        document.samples[metric].append(score)
        document.scores[metric] = sum(document.samples[metric]) / (sample + 1)
        document.responses.append((0, sample, _response(row)))


def _reference(value: Any) -> str | None:
    return text(value[0] if isinstance(value, list) and len(value) == 1 else value or None)


def _response(row: Mapping[str, Any]) -> Response:
    output = mapping(row.get("output"))
    answer, thought = output.get("raw"), output.get("reasoning_trace")
    if not output:
        said = [m for m in row.get("messages") or [] if mapping(m).get("role") == "assistant"]
        last = mapping(said[-1]) if said else {}
        answer, thought = last.get("content"), last.get("reasoning_trace")
    usage = mapping(row.get("token_usage"))
    return Response(
        text=text(_one(answer)) or "",
        thinking=text(_one(thought)),
        prompt_tokens=int(number(usage.get("input_tokens")) or 0),
        completion_tokens=int(number(usage.get("output_tokens")) or 0),
    )


def _one(value: Any) -> Any:
    return (value[0] if value else None) if isinstance(value, list) else value
