"""Baselines: names for runs in the run store, and compact files of instance scores for a repository."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import changing, read_json, write_json
from olmes_suite.runs.schema import (
    Baseline,
    BaselineGroup,
    BaselineTask,
    Cost,
    read_baseline_file,
    write_baseline_file,
)
from olmes_suite.runs.scores import BASELINES, LeafScores, RunScores, TaskScores, leaf_scores, validated


def save(run: RunScores, path: Path) -> None:
    """Write a run's scores to a baseline file, gzipped if the name ends in .gz. The file is never partly written."""
    groups, tasks = {}, {}
    for task in run.tasks.values():
        groups[task.name] = BaselineGroup(
            primary=task.primary, aggregate=task.aggregate, skill=task.skill, value=task.value, stderr=task.stderr,
            flags=task.flags, clean=task.clean, cost=task.cost if task.cost.known else None,
            planned=task.planned,
        )  # fmt: skip
        for name, leaf in task.leaves.items():
            tasks[name] = _recorded(task, leaf)
    baseline = Baseline(
        run=run.name, model=run.model, imported=run.imported, limit=run.limit,
        suites={name: tuple(listed) for name, listed in run.suites.items()}, failed=run.failed, groups=groups,
        tasks=tasks,
    )  # fmt: skip
    write_baseline_file(path, baseline)


def _recorded(task: TaskScores, leaf: LeafScores) -> BaselineTask:
    unclustered = len(np.unique(leaf.clusters)) == len(leaf.clusters)
    return BaselineTask(
        group=task.name,
        fingerprint=leaf.fingerprint or None,
        n=len(leaf.doc_ids),
        doc_ids=leaf.doc_ids.tolist(),
        scores=[None if np.isnan(x) else int(x) if x in (0.0, 1.0) else float(x) for x in leaf.scores],
        clusters=None if unclustered else leaf.clusters.tolist(),
        strata=leaf.strata.tolist() if leaf.strata.any() else None,
        flagged=tuple(sorted(leaf.flagged)) or None,
        short=tuple(sorted(leaf.short)) or None,
        of=leaf.of if task.planned else None,
        tokens=None if leaf.tokens is None else [int(x) if x == int(x) else round(x, 2) for x in leaf.tokens.tolist()],
    )


def read_baseline(path: Path) -> RunScores:
    """Read a baseline file. Raises DataError for a damaged or newer file, and for one of another kind."""
    content = read_baseline_file(path)
    leaves: dict[str, dict[str, LeafScores]] = {}
    try:
        for name, entry in content.tasks.items():
            group = name if entry.group is None else entry.group
            leaves.setdefault(group, {})[name] = _leaf(name, entry, path)
        tasks = {
            name: _task(name, task_leaves, content.groups.get(name, BaselineGroup()))
            for name, task_leaves in leaves.items()
        }
        run = RunScores(
            content.run, content.model, tasks, content.failed, {}, {s: [*t] for s, t in content.suites.items()},
            content.imported, content.limit,
        )  # fmt: skip
        return validated(run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: a damaged baseline file ({type(error).__name__}: {error})") from error


def _leaf(name: str, entry: BaselineTask, path: Path) -> LeafScores:
    doc_ids = np.asarray(entry.doc_ids)
    if doc_ids.ndim != 1 or doc_ids.dtype.kind not in "iuU":
        raise DataError(f"{path}: {name}: doc_ids must be integers or strings")
    scores = np.asarray([np.nan if x is None else x for x in entry.scores], dtype=float)
    clusters = np.arange(len(doc_ids)) if entry.clusters is None else np.asarray(entry.clusters, dtype=np.int64)
    strata = np.asarray(entry.strata or np.zeros(len(doc_ids)), dtype=np.int64)
    tokens = None if entry.tokens is None else np.asarray(entry.tokens, dtype=float)
    sizes = {len(doc_ids), len(scores), len(clusters), len(strata), len(doc_ids if tokens is None else tokens), entry.n}
    if len(sizes) > 1 or not len(doc_ids):
        raise DataError(f"{path}: {name} has {len(doc_ids)} documents, {len(scores)} scores, n {entry.n}")
    leaf = leaf_scores(
        name, path, doc_ids, scores, clusters=clusters, strata=strata, fingerprint=entry.fingerprint, tokens=tokens
    )
    return replace(leaf, flagged=frozenset(entry.flagged or ()), short=frozenset(entry.short or ()), of=entry.of)


def _task(name: str, leaves: Mapping[str, LeafScores], group: BaselineGroup) -> TaskScores:
    return TaskScores(
        name, leaves, group.primary, group.aggregate, group.skill, group.value, group.stderr, group.flags, group.clean,
        group.cost or Cost(), group.planned,
    )  # fmt: skip


def name_baseline(name: str, run: Path, runs: Path) -> None:
    """Name a run of the run store. Raises UsageError for a run outside the store and for an invalid name."""
    if run.resolve().parent != runs.resolve():
        raise UsageError(f"{run} is not in the run store {runs}: give --runs {run.parent}")
    if not name or "/" in name or (runs / name).exists():
        raise UsageError(f"{name!r} cannot be a baseline's name: it is empty, a path, or the name of a run")
    with changing(runs / BASELINES):
        write_json(runs / BASELINES, {**named(runs), name: run.name})


def named(runs: Path) -> dict[str, str]:
    """Read the named baselines of a run store: name to run."""
    names = read_json(runs / BASELINES) if (runs / BASELINES).is_file() else {}
    if not isinstance(names, dict):
        raise DataError(f"{runs / BASELINES}: expected an object of names and runs")
    return names
