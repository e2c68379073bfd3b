"""The content of results.json and instances/*.parquet, computed from scored documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from olmes_suite import stats
from olmes_suite.evaluation.fingerprint import metric_names
from olmes_suite.evaluation.plan import Leaf, TaskPlan
from olmes_suite.records import Instance
from olmes_suite.runs.contamination import Known
from olmes_suite.runs.schema import Clean, InstanceRow, Metric, Results, SuiteResult, TaskResult
from olmes_suite.tasks.suites import Suite

FLAGS = (
    "truncated", "length", "empty", "extraction_failed", "scorer_timeout", "sandbox_error", "judge_unparsed",
    "checker_error", "request_errors",
)  # fmt: skip
RARE_FLAGS = ("tests_dropped",)
"""Flags of single tasks, which are counted where they occur."""


def results(
    run: str,
    model: str,
    plans: Sequence[TaskPlan],
    scored: Mapping[str, list[Instance]],
    *,
    suites: Sequence[Suite],
    known: Known,
) -> Results:
    """Build the content of results.json. It has no time, host or path: the same inputs give the same text."""
    tasks: dict[str, TaskResult] = {}
    for plan in plans:
        tasks.update(task_results(plan, scored.get(plan.name, []), known))
    averages = {suite.name: suite_result([entry.task for entry in suite.tasks], tasks) for suite in suites}
    return Results(run=run, model=model, tasks=tasks, suites=averages)


def task_results(plan: TaskPlan, instances: list[Instance], known: Known) -> dict[str, TaskResult]:
    """Build the entries of a top-level task and, for a group, of its sub-tasks."""
    if plan.error is not None:
        return {plan.name: TaskResult(primary=plan.primary, error=plan.error)}
    entries: dict[str, TaskResult] = {}
    by_leaf: dict[str, list[Instance]] = {leaf.name: [] for leaf in plan.leaves}
    for instance in instances:
        by_leaf[instance.task].append(instance)
    parts = {}
    for leaf in plan.leaves:
        leaf_instances = by_leaf[leaf.name]
        parts[leaf.name] = estimates(leaf, leaf_instances)
        entries[leaf.name] = _entry(leaf, leaf_instances, plan, parts[leaf.name], _clean(leaf, leaf_instances, known))
    if plan.is_group:
        group = combine(plan.aggregate, [(parts[leaf.name], len(by_leaf[leaf.name])) for leaf in plan.leaves])
        if any(leaf.task.source and leaf.task.source.sample for leaf in plan.leaves):
            # Sub-tasks may share sample documents, so their errors are not independent and give no interval.
            group = {metric: stats.Estimate(estimate.value) for metric, estimate in group.items()}
        flags: Counter[str] = Counter()
        for leaf in plan.leaves:
            flags.update(entries[leaf.name].flags)
        entries[plan.name] = TaskResult(
            n=len(instances),
            primary=plan.primary,
            metrics=_metrics(group),
            aggregate=plan.aggregate,
            clean=_clean_group(plan, by_leaf, known),
            flags=dict(flags),
            subtasks=tuple(leaf.name for leaf in plan.leaves),
        )
    return entries


def estimates(leaf: Leaf, instances: Sequence[Instance]) -> dict[str, stats.Estimate]:
    """Estimate each metric's mean over documents, and the metrics of the task's `summary` function."""
    weighted = {entry["metric"] for entry in leaf.task.config.metric_list or () if entry.get("weighted")}
    means: dict[str, stats.Estimate] = {}
    for metric in metric_names(leaf.task):
        scored = [i for i in instances if i.scored.scores.get(metric) is not None]
        if scored:
            strata = dict.fromkeys(i.stratum for i in scored)
            parts = [_mean(metric, [i for i in scored if i.stratum == s], metric in weighted) for s in strata]
            means[metric] = parts[0] if len(parts) == 1 else stats.combine(parts)
    summary = leaf.task.keys.summary
    return {**means, **summary(instances)} if summary and instances else means


def _mean(metric: str, instances: Sequence[Instance], weighted: bool) -> stats.Estimate:
    values = [float(i.scored.scores[metric] or 0.0) for i in instances]
    return stats.mean(
        values, [i.cluster for i in instances], [i.scored.weight for i in instances] if weighted else None
    )


def combine(aggregate: str, parts: Sequence[tuple[dict[str, stats.Estimate], int]]) -> dict[str, stats.Estimate]:
    """Combine a group's metrics: macro with equal weights, micro and stratified weighted by documents."""
    shared = [metric for metric in parts[0][0] if all(metric in estimates for estimates, _ in parts)] if parts else []
    weights = None if aggregate in ("macro", "mean") else [float(n) for _, n in parts]
    return {metric: stats.combine([estimates[metric] for estimates, _ in parts], weights) for metric in shared}


def _entry(
    leaf: Leaf, instances: Sequence[Instance], plan: TaskPlan, means: dict[str, stats.Estimate], clean: Clean | None
) -> TaskResult:
    total = len(leaf.task.task_docs)
    return TaskResult(
        n=len(instances),
        primary=plan.primary,
        metrics=_metrics(means),
        clean=clean,
        flags=count_flags(instances),
        fingerprint=leaf.fingerprint,
        of=total if len(instances) < total else None,
        left_out=left_out(leaf) or None,
    )


def left_out(leaf: Leaf) -> dict[str, int]:
    """Count the rows of the leaf task that have no scorer, by the name of the missing scorer."""
    return dict(sorted(Counter(leaf.task.left_out.values()).items()))


def count_flags(instances: Iterable[Instance]) -> dict[str, int]:
    """Count the documents that carry each flag."""
    counts = Counter(flag for instance in instances for flag in instance.flags)
    shown = (*FLAGS, *(flag for flag in RARE_FLAGS if flag in counts))
    return {flag: counts.get(flag, 0) for flag in shown}


def _metrics(estimates_by_metric: Mapping[str, stats.Estimate]) -> dict[str, Metric]:
    return {metric: Metric.of(estimate) for metric, estimate in estimates_by_metric.items()}


def _clean(leaf: Leaf, instances: Sequence[Instance], known: Known) -> Clean | None:
    """Score without the documents that the checkpoint's training data contains; None if the task was not scanned."""
    contaminated = known.of(leaf.name)
    if contaminated is None:
        return None
    clean = [instance for instance in instances if instance.doc_id not in contaminated]
    return Clean(n=len(clean), flagged=len(instances) - len(clean), metrics=_metrics(estimates(leaf, clean)))


def _clean_group(plan: TaskPlan, by_leaf: Mapping[str, list[Instance]], known: Known) -> Clean | None:
    """Score a group without contaminated documents, over the sub-tasks that have documents left, as `compare` does.

    `empty` names the other sub-tasks. `unscanned` names sub-tasks that were not scanned, which count in full. Returns
    None if no sub-task was scanned.
    """
    contaminated = {leaf.name: known.of(leaf.name) for leaf in plan.leaves}
    if all(doc_ids is None for doc_ids in contaminated.values()):
        return None
    clean = {
        name: [i for i in by_leaf[name] if i.doc_id not in (doc_ids or ())] for name, doc_ids in contaminated.items()
    }
    total, n = sum(map(len, by_leaf.values())), sum(map(len, clean.values()))
    remaining = [leaf for leaf in plan.leaves if clean[leaf.name] or not by_leaf[leaf.name]]
    group = combine(plan.aggregate, [(estimates(leaf, clean[leaf.name]), len(clean[leaf.name])) for leaf in remaining])
    return Clean(
        n=n,
        flagged=total - n,
        metrics=_metrics(group),
        empty=tuple(leaf.name for leaf in plan.leaves if leaf not in remaining) or None,
        unscanned=tuple(name for name, doc_ids in contaminated.items() if doc_ids is None) or None,
    )


def suite_result(names: Sequence[str], tasks: Mapping[str, TaskResult]) -> SuiteResult:
    """Average the suite's tasks without weights; null, with the missing tasks, unless every task has a score."""
    estimates_of_tasks, missing = [], []
    for name in names:
        score = tasks[name].score if name in tasks else None
        if score is None or score.value is None:
            missing.append(name)
        else:
            estimates_of_tasks.append(stats.Estimate(score.value, score.stderr))
    return (
        SuiteResult(missing=tuple(missing))
        if missing or not estimates_of_tasks
        else SuiteResult.of(stats.combine(estimates_of_tasks))
    )


def instance_rows(instances: Sequence[Instance], primary: str, known: Known) -> list[InstanceRow]:
    """Build the rows of a top-level task's parquet file."""
    tasks = {i.task for i in instances}
    contaminated = {task: known.of(task) for task in tasks}
    short = {task: known.short_of(task) for task in tasks}
    any_short = any(short.values())
    rows = []
    for i in instances:
        doc_ids = contaminated[i.task]
        rows.append(
            InstanceRow(
                task=i.task,
                doc_id=i.doc_id,
                cluster=i.cluster,
                score=i.scored.scores.get(primary),
                stratum=i.stratum,
                extracted=_text(i.scored.extracted),
                reference=_text(i.reference),
                flags=i.flags,
                contaminated=None if doc_ids is None else i.doc_id in doc_ids,
                contaminated_short=i.doc_id in short[i.task] if any_short else None,
                extra=i.scored.scores,
            )
        )
    return rows


def _text(value: Any) -> str | None:
    """Convert a reference or extracted answer to text; a value that is not a string becomes JSON.

    Lone surrogates are replaced.
    """
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")
