"""From scored documents to the files of a run: results.json, instances/*.parquet, manifest.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite import stats
from olmes_suite.evaluation.fingerprint import metric_names
from olmes_suite.evaluation.plan import Leaf, TaskPlan
from olmes_suite.files import storage
from olmes_suite.records import Instance
from olmes_suite.runs.contamination import Known
from olmes_suite.runs.store import SCHEMA
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
) -> dict[str, Any]:
    """The content of results.json. No time, host or path in it: the same inputs give the same text."""
    tasks: dict[str, Any] = {}
    for plan in plans:
        tasks.update(task_results(plan, scored.get(plan.name, []), known))
    return {
        "schema": SCHEMA,
        "run": run,
        "model": model,
        "tasks": tasks,
        "suites": {suite.name: suite_result([entry.task for entry in suite.tasks], tasks) for suite in suites},
    }


def task_results(plan: TaskPlan, instances: list[Instance], known: Known) -> dict[str, Any]:
    """Results of one top-level task and, for a group, of its sub-tasks."""
    if plan.error is not None:
        return {
            plan.name: {"n": 0, "primary": plan.primary, "metrics": {}, "clean": None, "flags": {}, "error": plan.error}
        }
    out: dict[str, Any] = {}
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
            flags.update(out[leaf.name]["flags"])
        out[plan.name] = {
            "n": len(instances),
            "primary": plan.primary,
            "metrics": _as_json(group),
            "aggregate": plan.aggregate,
            "clean": _clean_group(plan, by_leaf, known),
            "flags": dict(flags),
            "subtasks": [leaf.name for leaf in plan.leaves],
        }
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
    leaf: Leaf, instances: Sequence[Instance], plan: TaskPlan, found: dict[str, stats.Estimate], clean: Any
) -> dict[str, Any]:
    whole = len(leaf.task.task_docs)
    entry: dict[str, Any] = {
        "n": len(instances),
        "primary": plan.primary,
        "metrics": _as_json(found),
        "clean": clean,
        "flags": count_flags(instances),
        "fingerprint": leaf.fingerprint,
    }
    if len(instances) < whole:
        entry["of"] = whole
    if leaf.task.left_out:
        entry["left_out"] = left_out(leaf)
    return entry


def left_out(leaf: Leaf) -> dict[str, int]:
    """What the leaf task has no scorer for, by name, and in how many rows of its data."""
    return dict(sorted(Counter(leaf.task.left_out.values()).items()))


def count_flags(instances: Iterable[Instance]) -> dict[str, int]:
    """How many documents carry each flag."""
    counts = Counter(flag for instance in instances for flag in instance.flags)
    return {flag: counts.get(flag, 0) for flag in FLAGS}


def _as_json(found: Mapping[str, stats.Estimate]) -> dict[str, Any]:
    return {metric: estimate.as_json() for metric, estimate in found.items()}


def _clean(leaf: Leaf, instances: Sequence[Instance], known: Known) -> dict[str, Any] | None:
    """The scores without the documents that the checkpoint's training data is known to contain; None: nobody looked."""
    dirty = known.of(leaf.name)
    if dirty is None:
        return None
    kept = [instance for instance in instances if instance.doc_id not in dirty]
    return {"n": len(kept), "flagged": len(instances) - len(kept), "metrics": _as_json(estimates(leaf, kept))}


def _clean_group(plan: TaskPlan, by_leaf: Mapping[str, list[Instance]], known: Known) -> dict[str, Any] | None:
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
    out: dict[str, Any] = {"n": n, "flagged": total - n, "metrics": _as_json(group)}
    if empty := [leaf.name for leaf in plan.leaves if leaf not in left]:
        out["empty"] = empty
    if unscanned := [name for name, found in dirty.items() if found is None]:
        out["unscanned"] = unscanned
    return out


def suite_result(names: Sequence[str], tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Unweighted mean of the suite's tasks; null, with the missing ones named, unless every task has its score."""
    found, missing = [], []
    for name in names:
        task = tasks.get(name, {})
        primary = task.get("metrics", {}).get(task.get("primary"))
        if primary is None:
            missing.append(name)
        else:
            found.append(stats.Estimate(primary["value"], primary["stderr"]))
    if missing or not found:
        return {"value": None, "stderr": None, "ci95": None, "missing": missing}
    return {**stats.combine(found).as_json(), "missing": []}


def write_instances(path: Path, instances: Sequence[Instance], primary: str, known: Known) -> None:
    """One parquet file per top-level task, one row per document."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metrics = sorted({metric for instance in instances for metric in instance.scored.scores})
    columns: dict[str, Any] = {
        "task": pa.array([i.task for i in instances], pa.string()),
        "doc_id": pa.array([i.doc_id for i in instances], pa.int64()),
        "cluster": pa.array([i.cluster for i in instances], pa.string()),
        "score": pa.array([i.scored.scores.get(primary) for i in instances], pa.float64()),
    }
    if any(i.stratum for i in instances):
        columns["stratum"] = pa.array([i.stratum for i in instances], pa.string())
    for metric in metrics:
        columns[metric] = pa.array([i.scored.scores.get(metric) for i in instances], pa.float64())
    columns["extracted"] = pa.array([_text(i.scored.extracted) for i in instances], pa.string())
    columns["reference"] = pa.array([_text(i.reference) for i in instances], pa.string())
    columns["flags"] = pa.array([list(i.flags) for i in instances], pa.list_(pa.string()))
    tasks = {i.task for i in instances}
    dirty: dict[str, Any] = {task: known.of(task) for task in tasks}
    short = {task: known.short_of(task) for task in tasks}
    columns["contaminated"] = pa.array(
        [None if dirty[i.task] is None else i.doc_id in dirty[i.task] for i in instances], pa.bool_()
    )
    if any(short.values()):
        columns["contaminated_short"] = pa.array([i.doc_id in short[i.task] for i in instances], pa.bool_())
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)


def _text(value: Any) -> str | None:
    """A reference or extracted answer as text; what is no string, as JSON. Lone surrogates are replaced."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text.encode("utf-8", "replace").decode("utf-8")
