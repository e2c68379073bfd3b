"""Logs of Inspect: `.eval` archives and `.json` logs.

A sample of several epochs is one document with several scores. Letters count as Inspect counts them: C 1, P 0.5, I and
N 0. The score of a document is the mean over epochs, or what the log's `reductions` say where another reducer was used.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError, one_line
from olmes_suite.records import Response
from olmes_suite.runs.importers.log import (
    Document,
    Log,
    Task,
    as_object,
    doc_id,
    given,
    mapping,
    no_logs,
    number,
    read_text,
    seconds,
    text,
)  # fmt: skip

_LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_LARGEST = 2 * 1024**3
"""Bytes of the largest entry of an archive that is unpacked."""


def read(path: Path) -> Sequence[Log]:
    """Read the logs below a folder, or one log. Raises UsageError."""
    single = given(path).is_file()
    files = [path] if single else sorted(p for p in path.rglob("*") if p.name.endswith((".eval", ".json", ".json.gz")))
    found = []
    for file in files:
        header, samples = _archive(file) if file.suffix == ".eval" else _json(file)
        if "eval" not in header or "model" not in mapping(header["eval"]):
            if single:
                raise UsageError(f"{file}: not a log of Inspect: it has no `eval` with a model")
            continue
        found.append(_log(file, header, samples))
    if not found:
        raise no_logs(path, ".eval or .json logs of Inspect")
    return found


def _json(file: Path) -> tuple[dict[str, Any], Iterator[tuple[str, Mapping[str, Any]]]]:
    content = as_object(read_text(file), str(file))
    samples = content.pop("samples", None) or []
    return content, ((f"{file}, sample {n}", mapping(sample)) for n, sample in enumerate(samples, 1))


def _archive(file: Path) -> tuple[dict[str, Any], Iterator[tuple[str, Mapping[str, Any]]]]:
    try:
        archive = zipfile.ZipFile(file)
        names = archive.namelist()
        header = _entry(archive, "header.json" if "header.json" in names else "_journal/start.json", file)
    except (OSError, KeyError, zipfile.BadZipFile, NotImplementedError) as error:
        raise UsageError(f"{file}: not a complete .eval archive ({one_line(error, 200)})") from error
    if "reductions.json" in names:
        header["reductions"] = _entry(archive, "reductions.json", file, list)
    samples = sorted(name for name in names if name.startswith("samples/"))
    return header, ((f"{file}, {name}", _entry(archive, name, file)) for name in samples)


def _entry(archive: zipfile.ZipFile, name: str, file: Path, kind: type = dict) -> Any:
    if archive.getinfo(name).file_size > _LARGEST:
        raise UsageError(f"{file}: {name} is larger than {_LARGEST // 1024**3} GiB")
    try:
        data = archive.read(name)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise UsageError(f"{file}: {name} cannot be unpacked ({one_line(error, 200)})") from error
    if kind is list:
        return as_object(b'{"reductions": ' + data + b"}", f"{file}: {name}")["reductions"]
    return as_object(data, f"{file}: {name}")


def _log(file: Path, header: Mapping[str, Any], samples: Iterator[tuple[str, Mapping[str, Any]]]) -> Log:
    evaluation, results = mapping(header["eval"]), mapping(header.get("results"))
    log = Log(str(evaluation["model"]), [file], started=seconds(evaluation.get("created")))
    log.settings = {
        name: value for name in ("model_generate_config", "task_args", "config") if (value := evaluation.get(name))
    }
    if header.get("status") not in ("success", None):
        log.settings["status"] = header["status"]
    name = str(evaluation.get("task") or file.stem)
    task = log.tasks[name] = Task(name)
    epochs: dict[int | str, set[Any]] = {}
    for where, sample in samples:
        place = doc_id(sample.get("id"), where)
        if sample.get("epoch", 1) in epochs.setdefault(place, set()):
            log.left_out["document given again"] += 1
            continue
        epochs[place].add(sample.get("epoch", 1))
        _add(log, task, place, sample)
    task.documents = {place: document for place, document in task.documents.items() if document.scores}
    _reduce(task, header)
    task.metrics = list(dict.fromkeys(metric for document in task.documents.values() for metric in document.scores))
    task.reported = _reported(task, results)
    counted = mapping(next(iter(results.get("scores") or []), {})).get(
        "scored_samples", results.get("completed_samples")
    )
    task.counted = counted if isinstance(counted, int) else None
    if not task.documents:
        del log.tasks[name]
    return log


def _add(log: Log, task: Task, place: int | str, sample: Mapping[str, Any]) -> None:
    if sample.get("error"):
        log.left_out["sample ended with an error"] += 1
        return
    scores, extracted = _scores(mapping(sample.get("scores")))
    if not scores:
        log.left_out["sample without a score"] += 1
        return
    document = task.documents.get(place)
    if document is None:
        target = sample.get("target")
        document = task.documents[place] = Document(
            place, question=_question(sample.get("input")), reference=text(target), extracted=extracted
        )
    for metric, value in scores.items():
        document.samples.setdefault(metric, []).append(value)
    for metric, values in document.samples.items():
        document.scores[metric] = sum(values) / len(values)
    epoch = max(len(values) for values in document.samples.values()) - 1
    document.responses.append((0, epoch, _response(mapping(sample.get("output")))))


def _scores(given_scores: Mapping[str, Any]) -> tuple[dict[str, float], str | None]:
    """Return the numbers of a sample by metric, and the extracted answer of the first scorer."""
    scores: dict[str, float] = {}
    extracted = None
    for scorer, score in given_scores.items():
        value = mapping(score).get("value") if isinstance(score, Mapping) else score
        if extracted is None:
            extracted = text(mapping(score).get("answer"))
        parts = value if isinstance(value, Mapping) else {"": value}
        for key, part in parts.items():
            if (figure := _value(part)) is not None:
                name = scorer if key == "" else key if len(given_scores) == 1 else f"{scorer}.{key}"
                scores[str(name)] = figure
    return scores, extracted


def _value(value: Any) -> float | None:
    """Return a score as a number, by Inspect's table of letters and words."""
    if isinstance(value, str):
        if (letter := _LETTERS.get(value, _LETTERS.get(value.lower()))) is not None:
            return letter
        try:
            return number(float(value))
        except ValueError:
            return None
    return number(value)


def _reduce(task: Task, header: Mapping[str, Any]) -> None:
    """Take the reduced values of the log where the epochs were not reduced by their mean."""
    reducers = mapping(mapping(header["eval"]).get("config")).get("epochs_reducer") or ["mean"]
    if reducers[0] == "mean":
        return
    for reduction in header.get("reductions") or []:
        scorer = mapping(reduction).get("scorer")
        for one in mapping(reduction).get("samples") or []:
            document = task.documents.get(mapping(one).get("sample_id", ""))
            value = _value(mapping(one).get("value"))
            if document is not None and value is not None and scorer in document.scores:
                document.scores[str(scorer)] = value


def _reported(task: Task, results: Mapping[str, Any]) -> dict[str, float]:
    """Match the log's figures to the metrics: a scorer's mean, or one of the same words (prompt_level_strict)."""
    reported: dict[str, float] = {}
    for entry in results.get("scores") or []:
        figures = {
            str(name): value
            for name, metric in mapping(mapping(entry).get("metrics")).items()
            if (value := number(mapping(metric).get("value"))) is not None
        }
        scorer = str(mapping(entry).get("name"))
        for name in ("accuracy", "mean"):
            if scorer in task.metrics and name in figures:
                reported.setdefault(scorer, figures[name])
        words = {_words(name): value for name, value in figures.items() if "stderr" not in name}
        for metric in task.metrics:
            if metric not in reported and (value := words.get(_words(metric))) is not None:
                reported[metric] = value
    return reported


def _words(name: str) -> frozenset[str]:
    return frozenset(re.split(r"[^a-z0-9]+", name.lower())) - {"level", "acc", "accuracy", "mean", ""}


def _question(given_input: Any) -> str | None:
    """Return the text of the input; of messages the last one of the user."""
    if isinstance(given_input, list):
        users = [message for message in given_input if mapping(message).get("role") == "user"]
        return _content(mapping(users[-1]).get("content"))[0] if users else None
    return text(given_input)


def _response(output: Mapping[str, Any]) -> Response:
    choices = output.get("choices") or []
    choice = mapping(choices[0]) if choices else {}
    answer, thought = _content(mapping(choice.get("message")).get("content"))
    usage = mapping(output.get("usage"))
    cut = choice.get("stop_reason") == "max_tokens"
    return Response(
        text=answer if answer is not None else text(output.get("completion")) or "",
        thinking=thought,
        finish_reason="length" if cut else "stop",
        prompt_tokens=int(number(usage.get("input_tokens")) or 0),
        completion_tokens=int(number(usage.get("output_tokens")) or 0),
    )


def _content(content: Any) -> tuple[str | None, str | None]:
    """Return (text, reasoning) of a message's content, text or parts."""
    if not isinstance(content, list):
        return text(content), None
    texts = [str(mapping(part).get("text", "")) for part in content if mapping(part).get("type") == "text"]
    thoughts = [str(mapping(p).get("reasoning", "")) for p in content if mapping(p).get("type") == "reasoning"]
    return "".join(texts), "".join(thoughts) or None
