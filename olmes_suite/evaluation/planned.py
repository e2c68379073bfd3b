"""Runs of some documents: which rows a plan chooses, answers of smaller runs, and projected scores."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from olmes_suite.comparison import plan_file, projection
from olmes_suite.comparison.alignment import differing_parts
from olmes_suite.comparison.plan_facts import complete
from olmes_suite.errors import NotComparable, OlmesError, UsageError
from olmes_suite.evaluation.plan import Options, TaskPlan
from olmes_suite.files import storage
from olmes_suite.runs.locate import load
from olmes_suite.runs.schema import (
    Manifest,
    Projected,
    Results,
    is_finished,
    read_manifest,
    read_results,
    write_manifest,
    write_results,
)
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores, read_run
from olmes_suite.tasks.index import PREFIX


def check_data(plans: Sequence[TaskPlan], options: Options, baseline: RunScores | None) -> None:
    """Raise UsageError where the documents are not those of the plan or of the baseline, before a model is loaded."""
    from olmes_suite.evaluation.fingerprint import data_hash

    recorded = {} if baseline is None else {n: leaf for t in baseline.tasks.values() for n, leaf in t.leaves.items()}
    for leaf in (leaf for plan in plans for leaf in plan.leaves):
        planned = options.plan.tasks[leaf.name] if options.plan is not None else None
        other = (recorded[leaf.name].fingerprint or {}).get("data") if leaf.name in recorded else None
        hashed = data_hash(leaf.task) if other is not None or (planned is not None and planned.data) else None
        if planned is not None:
            plan_file.check_documents(leaf.name, planned, len(leaf.task.task_docs), hashed)
        if baseline is not None and other is not None and other != hashed:
            raise NotComparable(f"baseline {baseline.name}: the documents of {leaf.name} are not those of this run")


def baseline_of(options: Options, plans: Sequence[TaskPlan]) -> RunScores | None:
    """Read the run of `--baseline`. Raises UsageError where no score can be projected from it."""
    if options.baseline is None:
        return None
    if options.planned is None and options.limit is None and options.until_decided is None:
        raise UsageError("--baseline projects the scores of a run of some documents: give --plan or --limit with it")
    baseline = load(options.baseline, options.runs)
    _check_baseline(baseline)
    if not any(plan.name in baseline.tasks for plan in plans):
        raise UsageError(f"baseline {baseline.name} has none of these tasks")
    return baseline


def _check_baseline(baseline: RunScores) -> None:
    """Raise UsageError for a baseline from which no score can be projected."""
    if not any(task.by_document for task in baseline.tasks.values()):
        raise UsageError(f"baseline {baseline.name} has no scores of documents: scores are projected from them")
    partial = [name for name, task in baseline.tasks.items() if not task.complete or task.planned]
    if partial or baseline.limit is not None:
        name = (partial or list(baseline.tasks))[0].removeprefix(PREFIX)
        raise UsageError(
            f"baseline {baseline.name} does not have all documents ({name}), from which scores are projected; "
            f"{complete(baseline)}"
        )


def check_comparable(plans: Sequence[TaskPlan], baseline: RunScores) -> None:
    """Raise NotComparable for a task whose fingerprint or weighting differs from the baseline's."""
    import numpy as np

    none = np.zeros(0, dtype=np.int64)
    for plan in plans:
        other = baseline.tasks.get(plan.name)
        if other is None or plan.error is not None:
            continue
        leaves = {leaf.name: LeafScores(none, none.astype(float), none, none, leaf.fingerprint) for leaf in plan.leaves}
        if parts := differing_parts(TaskScores(plan.name, leaves, plan.primary, plan.aggregate), other):
            raise NotComparable(
                f"baseline {baseline.name}: {plan.name}: {' and '.join(parts)} differ; no score can be projected"
            )


def projected(results: Results, run: RunScores, baseline: RunScores) -> Results:
    """Return the results with projected scores of the tasks and suites that do not have all documents."""
    found = projection.project_run(baseline, run)
    tasks = {
        name: entry.but(projected=_recorded(found.tasks[name], baseline.name)) if name in found.tasks else entry
        for name, entry in results.tasks.items()
    }
    suites = {}
    for name, suite in results.suites.items():
        average = projection.average(found, run.suites.get(name, ()))
        suites[name] = suite.but(projected=_recorded(average, baseline.name) if average is not None else None)
    return results.but(tasks=tasks, suites=suites)


def _recorded(found: projection.Projection, baseline: str) -> Projected:
    return Projected(
        value=found.value, stderr=found.stderr, ci95=found.ci95, n=found.n, of=found.of, baseline=baseline,
        method=found.method,
    )  # fmt: skip


def add_projections(folder: Path, baseline: RunScores, named: str) -> tuple[Results, Manifest]:
    """Write projected scores into the record of a run."""
    results = projected(read_results(folder), read_run(folder), baseline)
    record = read_manifest(folder).but(projected_from=named)
    write_results(folder, results)
    write_manifest(folder, record)
    return results, record


def projected_again(run: Path) -> Results | None:
    """Project the scores of a run again after it was scored again; None where its baseline is not found."""
    named = read_manifest(run).projected_from
    if named is None:
        return None
    try:
        return add_projections(run, load(named, run.parent), named)[0]
    except OlmesError:
        return None


def answers_of_smaller_runs(options: Options, plans: Sequence[TaskPlan], fingerprint: str, folder: Path) -> int:
    """Copy the responses of finished runs of fewer documents into a new run's folder; returns the number of tasks.

    Such a run has the same model, seed and prompts. Of several, each task takes the file with the most documents.
    """
    best: dict[str, tuple[int, Path]] = {}
    for run, record, results in _smaller_runs(options, fingerprint):
        for plan in plans:
            file = run / "responses" / f"{plan.name}.jsonl"
            entry = results.tasks.get(plan.name)
            same = all(record.tasks.get(leaf.name) == leaf.fingerprint for leaf in plan.leaves)
            if plan.error is None and same and entry is not None and not entry.failed and file.is_file():
                best[plan.name] = max(best.get(plan.name, (0, file)), (entry.n, file))
    with storage(folder):
        for name, (_, file) in best.items():
            (folder / "responses").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, folder / "responses" / f"{name}.jsonl")
    return len(best)


def _smaller_runs(options: Options, fingerprint: str) -> Iterator[tuple[Path, Manifest, Results]]:
    """Yield the planned runs of the model in the run store; damaged ones are left out."""
    for run in sorted(options.runs.iterdir()) if options.runs.is_dir() else ():
        if not is_finished(run):
            continue
        try:
            record = read_manifest(run)
            if record.planned is None or record.seed != options.seed or record.engine.fingerprint != fingerprint:
                continue
            yield run, record, read_results(run)
        except OlmesError:
            continue
