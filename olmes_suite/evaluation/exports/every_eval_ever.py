"""A run as records of Every Eval Ever: an aggregate JSON for each top-level task, and the JSON lines of its samples.

Schemas: https://github.com/evaleval/every_eval_ever (eval.schema.json 0.3.0, instance_level_eval 0.2.1).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

from olmes_suite import __version__
from olmes_suite.evaluation.exports.documents import Document, data_of, documents
from olmes_suite.files import write_json, write_text
from olmes_suite.records import sha256
from olmes_suite.runs.run import Run
from olmes_suite.runs.schema import Metric, TaskResult

SCHEMA = "0.3.0"
INSTANCES = "instance_level_eval_0.2.1"


def write(run: Run, out: Path) -> list[Path]:
    """Write `data/<task>/<developer>/<model>/<uuid>.json` and its samples below a folder, as the schema names them."""
    results, manifest = run.results, run.manifest
    model = _model(run)
    started = f"{manifest.time.started:.0f}" if manifest.time is not None and manifest.time.started else "0"
    written: list[Path] = []
    for plan in manifest.plan:
        entry = results.tasks[plan.task]
        if entry.error is not None:
            continue
        folder = out / "data" / _part(plan.task) / _part(model["developer"]) / _part(model["name"])
        identity = f"{plan.task}/{model['id']}/{started}"
        rows = [_row(document, entry, identity, model["id"]) for document in documents(run, plan.task)]
        name = UUID(bytes=bytes.fromhex(sha256(f"{run.name}/{plan.task}"))[:16], version=4)
        samples = folder / f"{name}_samples.jsonl"
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_text(samples, text)
        record = {
            "schema_version": SCHEMA,
            "evaluation_id": identity,
            "evaluation_timestamp": started,
            "retrieved_timestamp": started,
            "source_metadata": {
                "source_name": "olmes-suite",
                "source_type": "evaluation_run",
                "source_organization_name": "unknown",
                "evaluator_relationship": "other",
            },
            "eval_library": {"name": "olmes-suite", "version": __version__},
            "model_info": model,
            "evaluation_results": _results(run, plan.task),
            "detailed_evaluation_results": {
                "format": "jsonl",
                "file_path": samples.relative_to(out).as_posix(),
                "hash_algorithm": "sha256",
                "checksum": sha256(text),
                "total_rows": len(rows),
            },
        }
        aggregate = folder / f"{name}.json"
        write_json(aggregate, record)
        written += [aggregate, samples]
    return written


def _part(name: str) -> str:
    return name.replace("/", "__").replace("\\", "__") or "unknown"


def _model(run: Run) -> dict[str, Any]:
    manifest = run.manifest
    path = str(manifest.model.path or run.results.model).rstrip("/")
    local = path.startswith(("/", ".")) or path.count("/") != 1
    name = path.rsplit("/", 1)[-1]
    served = manifest.engine.backend == "openai"
    return {
        "name": name,
        "id": name if local else path,
        "developer": "unknown" if local else path.split("/")[0],
        "inference_engine": {"name": str(manifest.engine.backend or "unknown")},
        "additional_details": {
            "deployment_type": "externally_managed" if served else "self_deployed",
            "model_availability": "unknown",
            "run": run.name,
        },
    }


def _results(run: Run, task: str) -> list[dict[str, Any]]:
    """Return an entry for the task and each of its sub-tasks, the primary metric first."""
    tasks = run.results.tasks
    found = []
    for name in (task, *(tasks[task].subtasks or ())):
        entry = tasks[name]
        data = data_of(run, name)
        source = {"dataset_name": data["path"] or name, "source_type": "hf_dataset" if data["path"] else "other"}
        if data["path"]:
            source["hf_repo"] = data["path"]
        for metric in sorted(entry.metrics, key=lambda name: name != entry.primary):
            value = entry.metrics[metric]
            if value.value is not None:
                found.append(
                    {
                        "evaluation_name": name,
                        "source_data": source,
                        "metric_config": _metric(metric, value),
                        "score_details": _score(value, entry.n),
                    }
                )
    return found


def _metric(metric: str, value: Metric) -> dict[str, Any]:
    config: dict[str, Any] = {"metric_name": metric, "lower_is_better": False, "score_type": "continuous"}
    fraction = value.value is not None and value.value <= 1
    return {**config, "min_score": 0, "max_score": 1 if fraction else "Infinity"}


def _score(value: Metric, n: int) -> dict[str, Any]:
    uncertainty: dict[str, Any] = {"num_samples": n}
    if value.stderr is not None:
        uncertainty["standard_error"] = {"value": value.stderr, "method": "analytic"}
    if value.ci95 is not None:
        lower, upper = value.ci95
        uncertainty["confidence_interval"] = {"lower": lower, "upper": upper, "confidence_level": 0.95}
    return {"score": value.value, "uncertainty": uncertainty}


def _row(document: Document, entry: TaskResult, identity: str, model: str) -> dict[str, Any]:
    row, reference = document.row, document.row.reference
    texts = [response.text for _, _, response in document.answers if response.text is not None]
    thoughts = [response.thinking or "" for _, _, response in document.answers if response.text is not None]
    score = row.score if row.score is not None else 0.0
    first = document.answers[0][2] if document.answers else None
    question = document.question
    content: dict[str, Any] = {
        "schema_version": INSTANCES,
        "evaluation_id": identity,
        "model_id": model,
        "evaluation_name": row.task,
        "sample_id": str(row.doc_id),
        "sample_hash": sha256(question + (reference or "")),
        "interaction_type": "single_turn",
        "input": {
            "raw": question,
            "reference": [reference] if reference is not None else [],
            "choices": [str(choice) for choice in document.choices] if document.choices else None,
        },
        "output": {"raw": texts, "reasoning_trace": thoughts if any(thoughts) else None},
        "answer_attribution": [],
        "evaluation": {"score": score, "is_correct": score == 1.0},
        "metadata": {"metric": entry.primary, "flags": ",".join(row.flags)},
    }
    if row.extracted is not None:
        content["answer_attribution"] = [
            {
                "turn_idx": 0,
                "source": "output.raw",
                "extracted_value": row.extracted,
                "extraction_method": "scorer of the task",
                "is_terminal": True,
            }
        ]
    if first is not None and first.completion_tokens:
        tokens = {"input_tokens": first.prompt_tokens, "output_tokens": first.completion_tokens}
        content["token_usage"] = {**tokens, "total_tokens": sum(tokens.values())}
    if row.score is None:
        content["error"] = "the score is no mean over documents"
    return content
