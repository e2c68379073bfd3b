"""Logs of lm-eval: `results_*.json` beside `samples_<task>_*.jsonl`, from `lm_eval --output_path D --log_samples`.

Several filters of one task are metrics of their own, `exact_match,flexible-extract`. Releases before 0.4.4 do not name
the filter in a row: the rows of a document are then in the order of the task's filters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.records import Response
from olmes_suite.runs.importers.log import (
    GROUP,
    WITHOUT_SAMPLES,
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

_SAMPLES = re.compile(r"samples_(?P<task>.+?)(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+))?\.jsonl(?:\.gz)?$")
_RESULTS = re.compile(r"results(?:_(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+))?\.json(?:\.gz)?$")
_NOT_METRICS = frozenset(
    ("doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash")
) | {"prompt_hash", "target_hash"}
_REASON = "document given again"


def read(path: Path) -> Sequence[Log]:
    """Read the logs below a folder, or of one results or samples file. Raises UsageError."""
    found: dict[tuple[Path, str], Log] = {}
    single = given(path).is_file()
    files = sorted([path] if single else path.rglob("*.json*"))
    for file in files:
        if matched := _RESULTS.search(file.name):
            found[file.parent, matched["date"] or ""] = _results(file)
    for file in sorted(path.parent.iterdir()) if single and found else files:
        if not (matched := _SAMPLES.search(file.name)):
            continue
        place = file.parent, matched["date"] or ""
        if single and found and place not in found:
            continue
        log = found.setdefault(place, Log(file.parent.name.replace("__", "/"), []))
        log.files.append(file)
        _read_samples(log, matched["task"], file)
    for log in found.values():
        _leave_out(log)
    if not found:
        raise no_logs(path, "results_*.json or samples_*.jsonl of lm-eval (--log_samples writes the samples)")
    return [*found.values()]


def _leave_out(log: Log) -> None:
    """Count the tasks that have a figure, and no documents here."""
    for name, task in [*log.tasks.items()]:
        if not task.documents:
            log.left_out[WITHOUT_SAMPLES] += bool(task.reported)
            del log.tasks[name]


def _results(file: Path) -> Log:
    content = read_object(file)
    config, configs = mapping(content.get("config")), mapping(content.get("configs"))
    model = content.get("model_name") or mapping(_pairs(config.get("model_args"))).get("pretrained")
    log = Log(str(model or config.get("model") or file.parent.name.replace("__", "/")), [file])
    log.started = seconds(content.get("date"))
    log.settings = {
        name: value
        for name in ("model", "model_args", "gen_kwargs", "limit", "num_fewshot")
        if (value := config.get(name)) is not None
    }
    groups = {name for name, members in mapping(content.get("group_subtasks")).items() if members}
    groups |= mapping(content.get("groups")).keys()
    for name, figures in mapping(content.get("results")).items():
        if name in groups and name not in configs:
            if any(number(value) is not None for key, value in mapping(figures).items() if "_stderr" not in key):
                log.left_out[GROUP] += 1
            continue
        task = log.tasks.setdefault(name, Task(name))
        for key, value in mapping(figures).items():
            metric, _, filtered = key.partition(",")
            if not metric.endswith("_stderr") and (figure := number(value)) is not None:
                task.reported[_metric(metric, filtered or None)] = figure
        counted = mapping(mapping(content.get("n-samples")).get(name)).get("effective")
        task.counted = counted if isinstance(counted, int) else None
        task.metrics = _in_order(task.reported, mapping(configs.get(name)).get("metric_list"))
    return log


def _in_order(metrics: Iterable[str], listed: Any) -> list[str]:
    """Sort metrics as the task lists them; of equal ones the first filter comes first."""
    names = [mapping(one).get("metric") for one in listed] if isinstance(listed, list) else []
    places = {name: place for place, name in enumerate(names) if isinstance(name, str)}
    return sorted(metrics, key=lambda metric: places.get(metric.partition(",")[0], len(places)))


def _pairs(value: Any) -> Mapping[str, Any]:
    """Read lm-eval's model_args, text or a mapping."""
    if isinstance(value, str):
        return dict(pair.partition("=")[::2] for pair in value.split(","))
    return mapping(value)


def _metric(name: str, filtered: str | None) -> str:
    return name if filtered in (None, "none") else f"{name},{filtered}"


def _filters(task: Task) -> list[str | None]:
    """Return the filters of a task in the order of its figures."""
    return list(dict.fromkeys(metric.partition(",")[2] or None for metric in task.metrics)) or [None]


def _read_samples(log: Log, name: str, file: Path) -> None:
    task = log.tasks.setdefault(name, Task(name))
    filters, order = _filters(task), [*task.metrics]
    seen: dict[tuple[Any, str | None], int] = {}
    for where, row in read_lines(file):
        if not {"doc_id", "resps"} <= row.keys():
            raise UsageError(f"{where}: not a sample of lm-eval: doc_id or resps is missing")
        place = doc_id(row["doc_id"], where)
        if "filter" in row:
            filtered = None if row["filter"] == "none" else str(row["filter"])
            if seen.setdefault((place, filtered), 0):
                log.left_out[_REASON] += 1
                continue
            seen[place, filtered] = 1
        else:
            count = seen[place, None] = seen.get((place, None), 0) + 1
            if count > len(filters):
                log.left_out[_REASON] += 1
                continue
            filtered = filters[count - 1]
        document = task.documents.get(place)
        if document is None:
            document = task.documents[place] = _document(place, row)
        for metric, value in _scores(row).items():
            document.scores[_metric(metric, filtered)] = value
        if _first(order, row, filtered):
            document.extracted = text(_only(row.get("filtered_resps")))
    found = dict.fromkeys(metric for document in task.documents.values() for metric in document.scores)
    task.metrics = [metric for metric in order if metric in found] + [metric for metric in found if metric not in order]


def _first(order: Sequence[str], row: Mapping[str, Any], filtered: str | None) -> bool:
    """Tell whether a row holds the first metric, whose extracted answer is kept."""
    return not order or any(_metric(metric, filtered) == order[0] for metric in _scores(row))


def _scores(row: Mapping[str, Any]) -> dict[str, float]:
    named = row.get("metrics")
    names = named if isinstance(named, list) else [name for name in row if name not in _NOT_METRICS]
    values = {str(name): number(row.get(name)) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def _document(place: int | str, row: Mapping[str, Any]) -> Document:
    document = Document(place, reference=text(row.get("target")), question=_question(row.get("arguments")))
    for index, answers in enumerate(row["resps"] if isinstance(row["resps"], list) else []):
        for sample, answer in enumerate(answers if isinstance(answers, list) else [answers]):
            document.responses.append((index, sample, _response(answer)))
    return document


def _response(answer: Any) -> Response:
    """Read a text, or (log-likelihood, is greedy) as numbers or text."""
    if isinstance(answer, list) and len(answer) == 2:
        try:
            return Response(loglikelihood=float(answer[0]), is_greedy=str(answer[1]) == "True")
        except (TypeError, ValueError):
            pass
    return Response(text=text(answer) or "")


def _question(arguments: Any) -> str | None:
    """Return the context of the first request: {"gen_args_0": {"arg_0": …}} or [[…, …], …]."""
    first = next(iter(arguments.values()), None) if isinstance(arguments, Mapping) else _only(arguments)
    context = first.get("arg_0") if isinstance(first, Mapping) else _only(first)
    if isinstance(context, str) and context.startswith("[{"):
        try:  # messages as JSON
            return text(json.loads(context)[-1]["content"])
        except (ValueError, KeyError, TypeError, IndexError):
            pass
    return text(context)


def _only(value: Any) -> Any:
    return value[0] if isinstance(value, list) and value else None if isinstance(value, list) else value
