"""From scored documents to what the files of a run hold: results.json and instances/*.parquet."""

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


def results(
    run: str,
    model: str,
    plans: Sequence[TaskPlan],
    scored: Mapping[str, list[Instance]],
    suites: Sequence[Suite],
    known: Known,
) -> Results:
    """The content of results.json. No time, host or path in it: the same inputs give the same text."""
    tasks: dict[str, TaskResult] = {}
    for plan in plans:
        tasks.update(task_results(plan, scored.get(plan.name, []), known))
    averages = {suite.name: suite_result([entry.task for entry in suite.tasks], tasks) for suite in suites}
    return Results(run=run, model=model, tasks=tasks, suites=averages)


def task_results(plan: TaskPlan, instances: list[Instance], known: Known) -> dict[str, TaskResult]:
    """Results of one top-level task and, for a group, of its sub-tasks."""
    if plan.error is not None:
        return {plan.name: TaskResult(primary=plan.primary, error=plan.error)}
    out: dict[str, TaskResult] = {}
    by_leaf: dict[str, list[Instance]] = {leaf.name: [] for leaf in plan.leaves}
    for instance in instances:
        by_leaf[instance.task].append(instance)
    parts = {}
    for leaf in plan.leaves:
        own = by_leaf[leaf.name]
        parts[leaf.name] = estimates(leaf, own)
        out[leaf.name] = _entry(leaf, own, plan, parts[leaf.name], _clean(leaf, own, known))
    if plan.is_group:
        group = combine(plan.aggregate, [(parts[leaf.name], len(by_leaf[leaf.name])) for leaf in plan.leaves])
        if any(leaf.task.source and leaf.task.source.sample for leaf in plan.leaves):
            # Sub-tasks may share their sample documents, so their errors are not independent: no interval.
            group = {metric: stats.Estimate(estimate.value) for metric, estimate in group.items()}
        flags: Counter[str] = Counter()
        for leaf in plan.leaves:
            flags.update(out[leaf.name].flags)
        out[plan.name] = TaskResult(
            n=len(instances),
            primary=plan.primary,
            metrics=_metrics(group),
            aggregate=plan.aggregate,
            clean=_clean_group(plan, by_leaf, known),
            flags=dict(flags),
            subtasks=tuple(leaf.name for leaf in plan.leaves),
        )
    return out


def estimates(leaf: Leaf, instances: Sequence[Instance]) -> dict[str, stats.Estimate]:
    """Each metric's mean over documents with its error bar, and what the task's own `summary` makes of them."""
    weighted = {entry["metric"] for entry in leaf.task.config.metric_list or () if entry.get("weighted")}
    found: dict[str, stats.Estimate] = {}
    for metric in metric_names(leaf.task):
        having = [i for i in instances if i.scored.scores.get(metric) is not None]
        if having:
            strata = dict.fromkeys(i.stratum for i in having)
            parts = [_mean(metric, [i for i in having if i.stratum == s], metric in weighted) for s in strata]
            found[metric] = parts[0] if len(parts) == 1 else stats.combine(parts)
    summary = leaf.task.keys.summary
    return {**found, **summary(instances)} if summary and instances else found


def _mean(metric: str, instances: Sequence[Instance], weighted: bool) -> stats.Estimate:
    values = [float(i.scored.scores[metric] or 0.0) for i in instances]
    return stats.mean(
        values, [i.cluster for i in instances], [i.scored.weight for i in instances] if weighted else None
    )


def combine(aggregate: str, parts: Sequence[tuple[dict[str, stats.Estimate], int]]) -> dict[str, stats.Estimate]:
    """A group's metrics: macro (equal weights) or micro and stratified (weighted by documents)."""
    shared = [metric for metric in parts[0][0] if all(metric in estimates for estimates, _ in parts)] if parts else []
    weights = None if aggregate in ("macro", "mean") else [float(n) for _, n in parts]
    return {metric: stats.combine([estimates[metric] for estimates, _ in parts], weights) for metric in shared}


def _entry(
    leaf: Leaf, instances: Sequence[Instance], plan: TaskPlan, found: dict[str, stats.Estimate], clean: Clean | None
) -> TaskResult:
    whole = len(leaf.task.task_docs)
    return TaskResult(
        n=len(instances),
        primary=plan.primary,
        metrics=_metrics(found),
        clean=clean,
        flags=count_flags(instances),
        fingerprint=leaf.fingerprint,
        of=whole if len(instances) < whole else None,
        left_out=left_out(leaf) or None,
    )


def left_out(leaf: Leaf) -> dict[str, int]:
    """What the leaf task has no scorer for, by name, and in how many rows of its data."""
    return dict(sorted(Counter(leaf.task.left_out.values()).items()))


def count_flags(instances: Iterable[Instance]) -> dict[str, int]:
    """How many documents carry each flag."""
    counts = Counter(flag for instance in instances for flag in instance.flags)
    return {flag: counts.get(flag, 0) for flag in FLAGS}


def _metrics(found: Mapping[str, stats.Estimate]) -> dict[str, Metric]:
    return {metric: Metric.of(estimate) for metric, estimate in found.items()}


def _clean(leaf: Leaf, instances: Sequence[Instance], known: Known) -> Clean | None:
    """The scores without the documents that the checkpoint's training data is known to contain; None: nobody looked."""
    dirty = known.of(leaf.name)
    if dirty is None:
        return None
    kept = [instance for instance in instances if instance.doc_id not in dirty]
    return Clean(n=len(kept), flagged=len(instances) - len(kept), metrics=_metrics(estimates(leaf, kept)))


def _clean_group(plan: TaskPlan, by_leaf: Mapping[str, list[Instance]], known: Known) -> Clean | None:
    """A group's, over the sub-tasks of which a document is left, as `compare` has it; `empty` names the others.

    `unscanned` names sub-tasks that nobody has looked for: they count in full. None where that is all of them.
    """
    dirty = {leaf.name: known.of(leaf.name) for leaf in plan.leaves}
    if all(found is None for found in dirty.values()):
        return None
    kept = {name: [i for i in by_leaf[name] if i.doc_id not in (found or ())] for name, found in dirty.items()}
    total, n = sum(map(len, by_leaf.values())), sum(map(len, kept.values()))
    left = [leaf for leaf in plan.leaves if kept[leaf.name] or not by_leaf[leaf.name]]
    group = combine(plan.aggregate, [(estimates(leaf, kept[leaf.name]), len(kept[leaf.name])) for leaf in left])
    return Clean(
        n=n,
        flagged=total - n,
        metrics=_metrics(group),
        empty=tuple(leaf.name for leaf in plan.leaves if leaf not in left) or None,
        unscanned=tuple(name for name, found in dirty.items() if found is None) or None,
    )


def suite_result(names: Sequence[str], tasks: Mapping[str, TaskResult]) -> SuiteResult:
    """Unweighted mean of the suite's tasks; null, with the missing ones named, unless every task has its score."""
    found, missing = [], []
    for name in names:
        score = tasks[name].score if name in tasks else None
        if score is None or score.value is None:
            missing.append(name)
        else:
            found.append(stats.Estimate(score.value, score.stderr))
    return SuiteResult(missing=tuple(missing)) if missing or not found else SuiteResult.of(stats.combine(found))


def instance_rows(instances: Sequence[Instance], primary: str, known: Known) -> list[InstanceRow]:
    """The documents of a top-level task as its parquet file holds them."""
    tasks = {i.task for i in instances}
    dirty = {task: known.of(task) for task in tasks}
    short = {task: known.short_of(task) for task in tasks}
    any_short = any(short.values())
    rows = []
    for i in instances:
        found = dirty[i.task]
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
                contaminated=None if found is None else i.doc_id in found,
                contaminated_short=i.doc_id in short[i.task] if any_short else None,
                extra=i.scored.scores,
            )
        )
    return rows


def _text(value: Any) -> str | None:
    """A reference or extracted answer as text; what is no string, as JSON. Lone surrogates are replaced."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")
