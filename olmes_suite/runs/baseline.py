"""Baselines: a name for a run in the run store, or a compact file of instance scores that a repository can hold.

The file: {"schema","run","model","imported","suites","limit","failed","tasks":{T:{"fingerprint","n","doc_ids",
"scores","clusters"[,"strata"][,"flagged"][,"short"],"group"}},"groups":{G:{"primary","aggregate","skill","value","stderr","flags"[,"clean"]}}}.
`tasks` holds the leaf tasks, `groups` the top-level tasks that they belong to; `clusters` is null where every document
stands alone.
"""

from __future__ import annotations

import gzip
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import read_json, storage, write_json
from olmes_suite.runs.scores import BASELINES, LeafScores, RunScores, TaskScores, leaf_scores, read_object, validated
from olmes_suite.runs.store import SCHEMA


def save(run: RunScores, path: Path) -> None:
    """Write a run's scores as a baseline file, gzipped where the name ends in .gz; whole or not at all."""
    content: dict[str, Any] = {
        "schema": SCHEMA,
        "run": run.name,
        "model": run.model,
        "imported": run.imported,
        "limit": run.limit,
        "suites": dict(run.suites),
        "failed": dict(run.failed),
        "groups": {},
        "tasks": {},
    }
    for task in run.tasks.values():
        content["groups"][task.name] = {
            "primary": task.primary, "aggregate": task.aggregate, "skill": task.skill, "value": task.value,
            "stderr": task.stderr, "flags": dict(task.flags), **({"clean": list(task.clean)} if task.clean else {}),
        }  # fmt: skip
        for name, leaf in task.leaves.items():
            content["tasks"][name] = {"group": task.name, **_leaf(leaf)}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n"
    data = text.encode("utf-8")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            part.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def _leaf(leaf: LeafScores) -> dict[str, Any]:
    alone = len(np.unique(leaf.clusters)) == len(leaf.clusters)
    scores = [None if np.isnan(x) else int(x) if x in (0.0, 1.0) else float(x) for x in leaf.scores]
    return {
        "fingerprint": dict(leaf.fingerprint) if leaf.fingerprint else None,
        "n": len(leaf.doc_ids),
        "doc_ids": leaf.doc_ids.tolist(),
        "scores": scores,
        "clusters": None if alone else leaf.clusters.tolist(),
        **({"strata": leaf.strata.tolist()} if leaf.strata.any() else {}),
        **({"flagged": sorted(leaf.flagged)} if leaf.flagged else {}),
        **({"short": sorted(leaf.short)} if leaf.short else {}),
    }


def read_baseline(path: Path) -> RunScores:
    """Read a baseline file. Raises DataError for what is damaged, not one, or newer."""
    content = read_object(path)
    if not isinstance(content.get("tasks"), dict) or not content["tasks"]:
        raise DataError(f"{path}: no baseline file (it has no tasks); `olmes baseline save RUN FILE` writes one")
    leaves: dict[str, dict[str, LeafScores]] = {}
    try:
        for name, entry in content["tasks"].items():
            doc_ids = np.asarray(entry["doc_ids"])
            if doc_ids.ndim != 1 or doc_ids.dtype.kind not in "iuU":
                raise DataError(f"{path}: {name}: doc_ids must be integers or strings")
            scores = np.asarray([np.nan if x is None else x for x in entry["scores"]], dtype=float)
            clusters = (
                np.arange(len(doc_ids))
                if entry.get("clusters") is None
                else np.asarray(entry["clusters"], dtype=np.int64)
            )
            strata = np.asarray(entry.get("strata") or np.zeros(len(doc_ids)), dtype=np.int64)
            if (
                not len(doc_ids) == len(scores) == len(clusters) == len(strata)
                or len(doc_ids) != entry["n"]
                or not len(doc_ids)
            ):
                raise DataError(f"{path}: {name} has {len(doc_ids)} documents, {len(scores)} scores, n {entry['n']}")
            own = leaf_scores(name, path, doc_ids, scores, clusters, strata, entry.get("fingerprint"))
            own = replace(own, flagged=frozenset(entry.get("flagged", ())), short=frozenset(entry.get("short", ())))
            leaves.setdefault(entry.get("group", name), {})[name] = own
        tasks = {name: _task(name, own, content.get("groups", {}).get(name, {})) for name, own in leaves.items()}
        run = RunScores(
            content["run"], content["model"], tasks, content.get("failed", {}), {}, content.get("suites", {}),
            bool(content.get("imported")), content.get("limit"),
        )  # fmt: skip
        return validated(run)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: a damaged baseline file ({type(error).__name__}: {error})") from error


def _task(name: str, leaves: dict[str, LeafScores], group: dict[str, Any]) -> TaskScores:
    return TaskScores(
        name,
        leaves,
        group.get("primary", "score"),
        group.get("aggregate", "mean"),
        group.get("skill", "other"),
        group.get("value"),
        group.get("stderr"),
        group.get("flags", {}),
        (float(group["clean"][0]), group["clean"][1]) if group.get("clean") else None,
    )


def name_baseline(name: str, run: Path, runs: Path) -> None:
    """Give a run of the run store a name. Raises UsageError for a run that lies elsewhere or a name that is a run's."""
    if run.resolve().parent != runs.resolve():
        raise UsageError(f"{run} is not in the run store {runs}: give --runs {run.parent}")
    if not name or "/" in name or (runs / name).exists():
        raise UsageError(f"{name!r} cannot be a baseline's name: it is empty, a path, or a run of that name exists")
    write_json(runs / BASELINES, {**named(runs), name: run.name})


def named(runs: Path) -> dict[str, str]:
    """Named baselines of a run store: name to run."""
    found = read_json(runs / BASELINES) if (runs / BASELINES).is_file() else {}
    if not isinstance(found, dict):
        raise DataError(f"{runs / BASELINES}: expected an object of names and runs")
    return found
