"""A run as lm-eval's files: `<model>/results_<date>.json` and `samples_<task>_<date>.jsonl`.

The keys are those that lm-eval's own tools and the common converters read.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from olmes_suite.evaluation.exports.documents import Document, data_of, split
from olmes_suite.files import write_json, write_text
from olmes_suite.records import sha256
from olmes_suite.runs.run import Run
from olmes_suite.runs.schema import TaskResult


def write(run: Run, out: Path) -> list[Path]:
    """Write the results and the samples of each leaf task below a folder."""
    results, manifest = run.results, run.manifest
    started = manifest.time.started if manifest.time is not None and manifest.time.started else 0.0
    date = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%dT%H-%M-%S.%f")
    model = str(manifest.model.path or results.model)
    folder = out / model.strip("/").replace("/", "__")
    written = []
    entries: dict[str, TaskResult] = {}
    for plan in manifest.plan:
        if results.tasks[plan.task].error is not None:
            continue
        for leaf, documents in split(run, plan.task).items():
            entry = entries[leaf] = results.tasks.get(leaf, results.tasks[plan.task])
            file = folder / f"samples_{leaf.replace('/', '__')}_{date}.jsonl"
            rows = (json.dumps(_sample(document, entry.primary), ensure_ascii=False) for document in documents)
            write_text(file, "".join(f"{row}\n" for row in rows))
            written.append(file)
    file = folder / f"results_{date}.json"
    write_json(file, _results(run, entries, model, started))
    return [file, *written]


def _results(run: Run, entries: dict[str, TaskResult], model: str, started: float) -> dict[str, Any]:
    """Build results.json; `entries` are the leaf tasks with samples."""
    tasks, manifest = run.results.tasks, run.manifest
    shown = {name: entry for name, entry in {**tasks, **entries}.items() if entry.metrics}
    return {
        "results": {name: _figures(name, entry) for name, entry in shown.items()},
        "group_subtasks": {name: list(entry.subtasks or ()) for name, entry in tasks.items()},
        "configs": {leaf: _config(run, leaf, entry) for leaf, entry in entries.items()},
        "versions": dict.fromkeys(entries, 1),
        "n-shot": {},
        "higher_is_better": {name: dict.fromkeys(entry.metrics, True) for name, entry in entries.items()},
        "n-samples": {leaf: {"original": entry.of or entry.n, "effective": entry.n} for leaf, entry in entries.items()},
        "config": {
            "model": manifest.engine.backend,
            "model_args": f"pretrained={model}",
            "limit": manifest.limit,
            "random_seed": manifest.seed,
        },
        "date": started,
        "model_name": model,
        "model_name_sanitized": model.replace("/", "__"),
        "olmes_suite": {"run": run.name, "command": list(manifest.command)},
    }


def _figures(name: str, entry: TaskResult) -> dict[str, Any]:
    figures: dict[str, Any] = {"alias": name}
    for metric, value in entry.metrics.items():
        figures[f"{metric},none"] = value.value
        figures[f"{metric}_stderr,none"] = value.stderr if value.stderr is not None else "N/A"
    return figures


def _config(run: Run, leaf: str, entry: TaskResult) -> dict[str, Any]:
    data, sampling = data_of(run, leaf), (run.manifest.sampling or {}).get(leaf)
    return {
        "task": leaf,
        "dataset_path": data["path"],
        "dataset_name": data["config"],
        "test_split": data["split"],
        "output_type": "generate_until" if sampling else "multiple_choice",
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in sorted(entry.metrics, key=lambda name: name != entry.primary)
        ],
        "generation_kwargs": dict(sampling) if sampling else None,
        "metadata": {"version": 1, "fingerprint": run.manifest.tasks.get(leaf)},
    }


def _sample(document: Document, primary: str) -> dict[str, Any]:
    context = document.text if document.messages is None else _messages(document.messages)
    requests = document.choices or [None]
    scores = document.scores(primary)
    answers: dict[int, list[Any]] = {}
    for index, _, response in document.answers:
        plain = response.text
        answers.setdefault(index, []).append(
            plain if plain is not None else [response.loglikelihood, response.is_greedy]
        )
    responses = [answers[index] for index in sorted(answers)]
    reference = document.row.reference
    return {
        "doc_id": document.row.doc_id,
        "doc": {"question": document.question, "reference": reference},
        "target": reference,
        "arguments": {f"gen_args_{k}": {"arg_0": context, "arg_1": end} for k, end in enumerate(requests)},
        "resps": responses,
        "filtered_resps": [document.row.extracted] if document.choices is None else [answer[0] for answer in responses],
        "filter": "none",
        "metrics": [*scores],
        "doc_hash": sha256(f"{document.row.task}/{document.row.doc_id}"),
        "prompt_hash": sha256(context or ""),
        "target_hash": sha256(reference or ""),
        **scores,
    }


def _messages(messages: list[list[str]]) -> str:
    return json.dumps([{"role": role, "content": text} for role, text in messages], ensure_ascii=False)
