"""Logs of LightEval: `results/…/results_*.json` and `details/…/details_<task>_*.parquet`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError, one_line
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
    read_object,
    text,
)  # fmt: skip

_DATE = r"(?P<date>\d{4}-\d\d-\d\dT[\d.:-]+)"
_DETAILS = re.compile(rf"details_(?P<task>.+)_{_DATE}\.parquet$")
_RESULTS = re.compile(rf"results_{_DATE}\.json$")


def read(path: Path) -> Sequence[Log]:
    """Read the logs below a folder. Raises UsageError."""
    if not given(path).is_dir():
        raise UsageError(f"{path}: give the folder that LightEval wrote, with results/ and details/")
    by_date: dict[str, Log] = {}
    for file in sorted(path.rglob("results_*.json")):
        if matched := _RESULTS.search(file.name):
            by_date[matched["date"]] = _results(file)
    for file in sorted(path.rglob("details_*.parquet")):
        if matched := _DETAILS.search(file.name):
            model = "/".join(file.parent.parts[-3:-1])
            log = by_date.setdefault(matched["date"], Log(model, []))
            log.files.append(file)
            _details(log, matched["task"], file)
    for log in by_date.values():
        for name, task in [*log.tasks.items()]:
            if not task.documents:
                log.left_out["task without details"] += 1
                del log.tasks[name]
    if not by_date:
        raise no_logs(path, "results_*.json or details_*.parquet of LightEval")
    return [*by_date.values()]


def _results(file: Path) -> Log:
    content = read_object(file)
    general = mapping(content.get("config_general"))
    model = general.get("model_name") or mapping(general.get("model_config")).get("model_name") or file.parent.name
    log = Log(str(model), [file], settings=dict(mapping(general.get("model_config"))))
    for name, figures in mapping(content.get("results")).items():
        if name == "all" or name.endswith(":_average|0") or ":_average|" in name:
            continue
        reported = {
            metric: figure
            for metric, value in mapping(figures).items()
            if not metric.endswith("_stderr") and (figure := number(value)) is not None
        }
        log.tasks[name] = Task(name, metrics=[*reported], reported=reported)
    return log


def _details(log: Log, name: str, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise UsageError(f"{file} cannot be read: {one_line(error, 200)}") from error
    task = log.tasks.setdefault(name, Task(name))
    for position, row in enumerate(rows):
        doc = mapping(_value(row.get("doc")))
        values = mapping(_value(row.get("metric", row.get("metrics"))))
        scores = {metric: figure for metric, value in values.items() if (figure := number(value)) is not None}
        place = doc_id(_id(doc.get("id", position)), f"{file}, row {position + 1}")
        if place in task.documents:
            log.left_out["document given again"] += 1
        elif not scores:
            log.left_out["document without a score"] += 1
        else:
            task.documents[place] = _document(place, row, doc, scores)
    found = dict.fromkeys(metric for document in task.documents.values() for metric in document.scores)
    task.metrics = [m for m in task.metrics if m in found] + [m for m in found if m not in task.metrics]


def _id(value: Any) -> Any:
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 18 else value


def _value(value: Any) -> Any:
    """Read a column that older releases write as JSON text."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _document(place: int | str, row: Mapping[str, Any], doc: Mapping[str, Any], scores: dict[str, float]) -> Document:
    document = Document(place, scores, question=text(doc.get("query") or row.get("full_prompt") or row.get("example")))
    choices, gold = doc.get("choices") or [], doc.get("gold_index")
    golds = [gold] if isinstance(gold, int) else gold or []
    named = [choices[g] for g in golds if isinstance(g, int) and g < len(choices)]
    document.reference = text(named[0] if len(named) == 1 else named or row.get("gold"))
    answer = mapping(_value(row.get("model_response")))
    texts = answer.get("text") or _value(row.get("predictions")) or []
    thoughts = answer.get("reasonings") or []
    for sample, one in enumerate(texts if isinstance(texts, list) else [texts]):
        thought = text(thoughts[sample]) if sample < len(thoughts) else None
        document.responses.append((0, sample, Response(text=text(one) or "", thinking=thought)))
    for index, value in enumerate(() if texts else answer.get("logprobs") or ()):
        if (loglikelihood := number(value)) is not None:
            document.responses.append((index, 0, Response(loglikelihood=loglikelihood)))
    processed = answer.get("text_post_processed") or []
    document.extracted = text(processed[0]) if processed else None
    return document
