"""The content of results.json and instances/*.parquet, computed from scored documents."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from olmes_suite import stats
from olmes_suite.evaluation.cost import by_sample, completed, cost, spread
from olmes_suite.evaluation.fingerprint import metric_names
from olmes_suite.evaluation.plan import Leaf, TaskPlan
from olmes_suite.records import Instance
from olmes_suite.runs.contamination import Known
from olmes_suite.runs.schema import Clean, Completed, InstanceRow, Metric, Results, SuiteResult, TaskResult
from olmes_suite.scoring.samples import metric_of_samples, sample_score
from olmes_suite.tasks.index import NESTED, nested_shares
from olmes_suite.tasks.suites import Suite

FLAGS = (
    "truncated", "length", "unclosed", "empty", "extraction_failed", "scorer_timeout", "sandbox_error",
    "judge_unparsed", "checker_error", "request_errors",
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
        weights = _weights(plan, plan.leaves, by_leaf)
        group = combine(plan.aggregate, list(zip(parts.values(), weights, strict=True)))
        if _shares_documents(plan.leaves):
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
            of=sum(len(leaf.task.task_docs) for leaf in plan.leaves) if plan.planned else None,
            planned=plan.planned,
            subtasks=tuple(leaf.name for leaf in plan.leaves),
            **_cost(plan, plan.leaves, by_leaf, group.get(plan.primary)),
        )
    return entries


def _weights(plan: TaskPlan, leaves: Sequence[Leaf], by_leaf: Mapping[str, Sequence[Instance]]) -> list[float]:
    return leaf_weights(plan.aggregate, leaves, [len(by_leaf[leaf.name]) for leaf in leaves], plan.planned)


def leaf_weights(
    aggregate: str, leaves: Sequence[Leaf], documents: Sequence[int], planned: bool = False
) -> list[float]:
    """Return the weights of leaf tasks with so many documents in a group's average that is not macro."""
    if aggregate == NESTED:
        return nested_shares([leaf.name for leaf in leaves])
    return [leaf.weight(number, planned) for leaf, number in zip(leaves, documents, strict=True)]


def _shares_documents(leaves: Sequence[Leaf]) -> bool:
    """Tell whether sub-tasks may share documents, as with samples: their errors are not independent then."""
    return any(leaf.task.source and leaf.task.source.sample for leaf in leaves)


def estimates(leaf: Leaf, instances: Sequence[Instance]) -> dict[str, stats.Estimate]:
    """Estimate each metric's mean over documents, and the metrics of the task's `summary` function."""
    found = {metric: estimate(leaf, metric, instances) for metric in _metric_names(leaf, instances)}
    means = {metric: value for metric, value in found.items() if value is not None}
    summary = leaf.task.keys.summary
    return {**means, **summary(instances)} if summary and instances else means


def _metric_names(leaf: Leaf, instances: Sequence[Instance]) -> list[str]:
    """Return the metrics that the task declares, then those of several samples that it does not."""
    declared = metric_names(leaf.task)
    found = {name for i in instances for name in i.scored.scores if metric_of_samples(name)}
    return [*declared, *sorted(found - {*declared}, key=lambda name: (name[:4] != "pass", len(name), name))]


def estimate(leaf: Leaf, metric: str, instances: Sequence[Instance]) -> stats.Estimate | None:
    """Estimate one metric's mean over the documents that have a value; None if none has."""
    scored = [i for i in instances if i.scored.scores.get(metric) is not None]
    if not scored:
        return None
    weighted = any(entry["metric"] == metric and entry.get("weighted") for entry in leaf.task.config.metric_list or ())
    several = leaf.task.averages_samples or metric_of_samples(metric)
    sampled = several and any(len(i.generated) > 1 for i in scored)
    strata = dict.fromkeys(i.stratum for i in scored)
    parts = [_mean(metric, [i for i in scored if i.stratum == s], weighted, sampled) for s in strata]
    return parts[0] if len(parts) == 1 else stats.combine(parts)


def _primary(leaf: Leaf, primary: str, instances: Sequence[Instance]) -> stats.Estimate | None:
    """Estimate the primary metric alone."""
    if primary in metric_names(leaf.task):
        return estimate(leaf, primary, instances)
    return estimates(leaf, instances).get(primary)


def _mean(metric: str, instances: Sequence[Instance], weighted: bool, sampled: bool) -> stats.Estimate:
    values = [float(i.scored.scores[metric] or 0.0) for i in instances]
    weights = [i.scored.weight for i in instances] if weighted else None
    return stats.mean(values, [i.cluster for i in instances], weights, sampled=sampled)


def combine(aggregate: str, parts: Sequence[tuple[dict[str, stats.Estimate], float]]) -> dict[str, stats.Estimate]:
    """Combine a group's metrics: macro with equal weights, others with the weights given (`leaf_weights`)."""
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
        planned=plan.by_plan and len(leaf.rows) < total,
        left_out=left_out(leaf) or None,
        **_cost(plan, [leaf], {leaf.name: list(instances)}, means.get(plan.primary)),
    )


def _cost(
    plan: TaskPlan, leaves: Sequence[Leaf], by_leaf: Mapping[str, list[Instance]], score: stats.Estimate | None
) -> dict[str, Any]:
    """Build the fields of a task or group about samples, tokens and endings of answers; `score` is that of all."""
    instances = [instance for leaf in leaves for instance in by_leaf[leaf.name]]
    found = cost(instances, plan.primary)
    samples = max((len(instance.generated) for instance in instances), default=0)
    fields: dict[str, Any] = {
        "samples": samples if samples > 1 else None,
        "answers": found.answers,
        "tokens": found.tokens,
        "correct_per_million_tokens": found.correct_per_million_tokens,
    }
    if found.answers is not None and found.answers.length:
        fields["completed"] = _completed(plan, leaves, by_leaf)
    elif found.answers is not None:
        fields["completed"] = _completed_as(score, found.answers.n)
    if samples > 1:
        fields["samples_sd"] = _samples_sd(plan, leaves, by_leaf)
    return fields


def _completed(plan: TaskPlan, leaves: Sequence[Leaf], by_leaf: Mapping[str, list[Instance]]) -> Completed:
    """Score the answers that ended by themselves, over the sub-tasks that have any."""
    found: dict[str, tuple[Leaf, stats.Estimate, int]] = {}
    total = 0
    for leaf in leaves:
        score = functools.partial(_primary, leaf, plan.primary)
        estimate, n = completed(by_leaf[leaf.name], plan.primary, leaf.task.averages_samples, score)
        total += n
        if estimate is not None:
            found[leaf.name] = leaf, estimate, n
    if not found:
        return _completed_as(None, total)
    scored, values, numbers = zip(*found.values(), strict=True)
    weights = leaf_weights(plan.aggregate, scored, numbers, plan.planned)
    parts = [({plan.primary: value}, weight) for value, weight in zip(values, weights, strict=True)]
    whole = parts[0][0] if len(leaves) == 1 else combine(plan.aggregate, parts)
    value = whole[plan.primary]
    if len(leaves) > 1 and _shares_documents(leaves):
        value = stats.Estimate(value.value)
    return _completed_as(value, total)


def _completed_as(value: stats.Estimate | None, n: int) -> Completed:
    if value is None:
        return Completed(n=n)
    return Completed(n=n, value=value.value, stderr=value.stderr, ci95=value.ci95, room=value.room)


def _samples_sd(plan: TaskPlan, leaves: Sequence[Leaf], by_leaf: Mapping[str, list[Instance]]) -> float | None:
    """Return the standard deviation of the task's score from one sample to the next."""
    columns = [by_sample(by_leaf[leaf.name], functools.partial(_primary, leaf, plan.primary)) for leaf in leaves]
    sizes = _weights(plan, leaves, by_leaf)
    scores = []
    for values in zip(*columns, strict=False):
        parts = [({plan.primary: stats.Estimate(value)}, n) for value, n in zip(values, sizes, strict=True)]
        scores.append(combine(plan.aggregate, parts)[plan.primary].value)
    return spread(scores)


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
    weights = _weights(plan, remaining, clean)
    parts = [estimates(leaf, clean[leaf.name]) for leaf in remaining]
    group = combine(plan.aggregate, list(zip(parts, weights, strict=True)))
    return Clean(
        n=n,
        flagged=total - n,
        metrics=_metrics(group),
        empty=tuple(leaf.name for leaf in plan.leaves if leaf not in remaining) or None,
        unscanned=tuple(name for name, doc_ids in contaminated.items() if doc_ids is None) or None,
    )


def suite_result(names: Sequence[str], tasks: Mapping[str, TaskResult]) -> SuiteResult:
    """Average the suite's tasks without weights; null, with the missing tasks, unless every task has a score."""
    planned = any(tasks[name].planned for name in names if name in tasks)
    estimates_of_tasks: list[stats.Estimate] = []
    missing: list[str] = []
    for name in names:
        score = tasks[name].score if name in tasks else None
        if score is None or score.value is None:
            missing.append(name)
        else:
            alike = score.stderr == 0.0 and score.value in (0.0, 1.0)  # so are the scores of all documents
            size = stats.wilson_size(score.ci95) if alike and score.ci95 else tasks[name].n
            df = max(tasks[name].n - 1, 1)
            estimates_of_tasks.append(stats.Estimate(score.value, score.stderr, score.ci95, size, df, score.room))
    return (
        SuiteResult(missing=tuple(missing))
        if missing or not estimates_of_tasks
        else SuiteResult.of(stats.combine(estimates_of_tasks)).but(planned=planned)
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
                thinking_tokens=_per_answer([answer.thinking_tokens for answer in i.generated]),
                answer_tokens=_per_answer([answer.answer_tokens for answer in i.generated]),
                sample_scores=_sample_scores(i, primary),
                extra=i.scored.scores,
            )
        )
    return rows


def _per_answer(tokens: Sequence[int]) -> float | None:
    return sum(tokens) / len(tokens) if tokens else None


def _sample_scores(instance: Instance, primary: str) -> tuple[float | None, ...] | None:
    """Return the primary score of each sample; None for a document with one answer."""
    if len(instance.samples) < 2:
        return None
    return tuple(sample_score(sample, primary) for sample in instance.samples)


def _text(value: Any) -> str | None:
    """Convert a reference or extracted answer to text; a value that is not a string becomes JSON.

    Lone surrogates are replaced.
    """
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")
