"""A run's scores in a model repository of the Hub: `model-index` in the model card, and `.eval_results/*.yaml`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError, one_line
from olmes_suite.evaluation.exports.documents import data_of
from olmes_suite.files import write_text
from olmes_suite.runs.ledger import NO_LOOK
from olmes_suite.runs.run import Run
from olmes_suite.tasks.index import PREFIX


def write(run: Run, out: Path) -> list[Path]:
    """Add the scores to the model card of a folder, and write `.eval_results/<run>.yaml`; scores are in points.

    A card that exists keeps its text and its other metadata. Raises UsageError for a card that cannot be read.
    """
    import yaml
    from huggingface_hub import ModelCard, ModelCardData, eval_result_entries_to_yaml

    manifest = run.manifest
    if manifest.sample or manifest.engine.backend in NO_LOOK:
        what = "sample documents" if manifest.sample else f"the backend {manifest.engine.backend}"
        raise UsageError(f"run {run.name} is of {what}: its scores say nothing about a model, and are not for its card")
    model = str(manifest.model.path or run.results.model).rstrip("/")
    card_file = out / "README.md"
    text = card_file.read_text(encoding="utf-8") if card_file.is_file() else ""
    results, entries = _scores(run)
    try:
        card = ModelCard(text if text.startswith("---") else f"---\nmodel_name: {json.dumps(model)}\n---\n{text}")
    except Exception as error:  # the library raises what the YAML parser and its own checks raise
        raise UsageError(f"{card_file}: its metadata cannot be read ({one_line(error, 200)})") from error
    data: ModelCardData = card.data
    data.model_name = model.rsplit("/", 1)[-1]
    data.eval_results = results
    write_text(card_file, str(card))
    file = out / ".eval_results" / f"{run.name}.yaml"
    write_text(file, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True))
    return [card_file, file]


def _scores(run: Run) -> tuple[list[Any], list[Any]]:
    """Return the entries of `model-index`, and those of `.eval_results` for tasks with a data set of the Hub."""
    from huggingface_hub import EvalResult, EvalResultEntry

    results, entries = [], []
    started = run.manifest.time.started if run.manifest.time is not None else None
    date = datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%d") if started else None
    for plan in run.manifest.plan:
        entry = run.results.tasks[plan.task]
        if entry.score is None or entry.score.value is None:
            continue
        value, name = round(100 * entry.score.value, 2), plan.task.removeprefix(PREFIX)
        data = data_of(run, (entry.subtasks or (plan.task,))[0])
        interval = {"ci95": [round(100 * end, 2) for end in entry.score.ci95]} if entry.score.ci95 else {}
        results.append(
            EvalResult(
                task_type="text-generation",
                dataset_type=data["path"] or plan.task,
                dataset_name=name,
                dataset_split=data["split"],
                dataset_revision=data["revision"],
                metric_type=entry.primary,
                metric_name=f"{name} {entry.primary}",
                metric_value=value,
                metric_args={"n": entry.n, **interval},
            )
        )
        if data["path"]:
            notes = f"olmes-suite, {entry.primary}, n={entry.n}"
            revision = data["revision"]
            entries.append(
                EvalResultEntry(data["path"], plan.task, value, dataset_revision=revision, date=date, notes=notes)
            )
    return results, entries
