"""A run as logs of Inspect, one JSON log for each top-level task, which `inspect view` and `read_eval_log` open."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from olmes_suite import __version__
from olmes_suite.evaluation.exports.documents import Document, data_of, documents
from olmes_suite.files import write_json
from olmes_suite.records import sha256
from olmes_suite.runs.run import Run
from olmes_suite.runs.schema import TaskResult


def write(run: Run, out: Path) -> list[Path]:
    """Write `<date>_<task>_<run>.json` for each task below a folder."""
    results, manifest = run.results, run.manifest
    started = manifest.time.started if manifest.time is not None and manifest.time.started else 0.0
    ended = started + (manifest.time.seconds or 0.0) if manifest.time is not None else started
    begun, done = (datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds") for moment in (started, ended))
    written = []
    for plan in manifest.plan:
        entry = results.tasks[plan.task]
        if entry.error is not None:
            continue
        found = [*documents(run, plan.task)]
        identity = sha256(f"{run.name}/{plan.task}")[:22]
        content = {
            "version": 2,
            "status": "success",
            "eval": {**_spec(run, plan.task, found), "created": begun, "task_id": identity, "run_id": identity},
            "plan": {"name": "plan", "steps": [], "config": {}},
            "results": _results(entry, len(found)),
            "stats": {"started_at": begun, "completed_at": done, "model_usage": {}},
            "samples": [
                sample for document in found for sample in _samples(document, entry.primary, str(results.model))
            ],
        }
        file = out / f"{begun.replace(':', '-')}_{plan.task.replace('/', '-')}_{run.name}.json"
        write_json(file, content)
        written.append(file)
    return written


def _spec(run: Run, task: str, found: list[Document]) -> dict[str, Any]:
    manifest = run.manifest
    data = data_of(run, found[0].row.task if found else task)
    return {
        "task": task,
        "task_version": 0,
        "task_attribs": {},
        "task_args": {},
        "dataset": {
            "name": data["path"],
            "location": data["path"],
            "samples": len(found),
            "sample_ids": [_id(document) for document in found],
            "shuffled": False,
        },
        "model": f"{manifest.engine.backend or 'none'}/{manifest.model.path or run.results.model}",
        "model_args": {},
        "config": {"epochs": run.results.tasks[task].samples or 1, "epochs_reducer": ["mean"]},
        "packages": {"olmes_suite": __version__},
        "metadata": {"run": run.name, "command": " ".join(manifest.command)},
    }


def _id(document: Document) -> str:
    """Return a document's id, unique in its task: that of its sub-task comes first."""
    return f"{document.row.task}/{document.row.doc_id}"


def _results(entry: TaskResult, n: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    if entry.score is not None and entry.score.value is not None:
        metrics["mean"] = {"name": "mean", "value": entry.score.value, "params": {}}
        if entry.score.stderr is not None:
            metrics["stderr"] = {"name": "stderr", "value": entry.score.stderr, "params": {}}
    score = {"name": entry.primary, "scorer": entry.primary, "scored_samples": n, "params": {}, "metrics": metrics}
    return {"total_samples": n, "completed_samples": n, "scores": [score]}


def _samples(document: Document, primary: str, model: str) -> list[dict[str, Any]]:
    """Return a sample for each answer of the document, as epochs; one for a log-likelihood document."""
    row = document.row
    generated = [(sample, response) for _, sample, response in document.answers if response.text is not None]
    scores = list(row.sample_scores or ())
    prompt = [{"role": role, "content": text} for role, text in document.messages or ()]
    samples = []
    for number, (_, response) in enumerate(generated or [(0, None)]):
        content: Any = response.text if response is not None else ""
        if response is not None and response.thinking:
            thought = {"type": "reasoning", "reasoning": response.thinking}
            content = [thought, {"type": "text", "text": response.text}]
        message = {"role": "assistant", "content": content, "source": "generate"}
        cut = response is not None and response.finish_reason == "length"
        value = scores[number] if number < len(scores) else row.score
        samples.append(
            {
                "id": _id(document),
                "epoch": number + 1,
                "input": prompt or document.question,
                "target": row.reference or "",
                "choices": [str(choice) for choice in document.choices] if document.choices else None,
                "messages": [*prompt, message],
                "output": {
                    "model": model,
                    "choices": [{"message": message, "stop_reason": "max_tokens" if cut else "stop"}],
                },
                "scores": {primary: {"value": value if value is not None else 0.0, "answer": row.extracted}},
                "metadata": {"task": row.task, "doc_id": row.doc_id, "flags": list(row.flags)},
            }
        )
    return samples
