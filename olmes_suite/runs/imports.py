"""Import of scores from another evaluation as a run that can be compared and gated."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from olmes_suite import stats
from olmes_suite.errors import UsageError
from olmes_suite.files import RunLock, storage
from olmes_suite.records import sha256
from olmes_suite.runs.schema import (
    InstanceRow,
    Manifest,
    Metric,
    Results,
    TaskResult,
    instances_file,
    write_instances,
    write_manifest,
    write_results,
)
from olmes_suite.runs.store import UNFINISHED

_FIELDS = ("task", "doc_id", "score", "cluster")


@dataclass(frozen=True, slots=True)
class Score:
    """A line of a scores file."""

    task: str
    doc_id: int | str
    score: float
    cluster: str | int | None = None


def read_scores(path: Path) -> list[Score]:
    """Read JSON lines {"task","doc_id","score"[,"cluster"]}. Raises UsageError naming an invalid line."""
    scores: dict[tuple[str, str], Score] = {}
    try:
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                score = _score(line, f"{path}, line {number}")
                place = (score.task, str(score.doc_id))
                if place in scores:
                    raise UsageError(f"{path}, line {number}: doc_id {score.doc_id!r} of {score.task} is given twice")
                scores[place] = score
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"scores file {path} cannot be read: {error}") from error
    if not scores:
        raise UsageError(f"scores file {path} has no scores")
    return list(scores.values())


def _score(line: str, where: str) -> Score:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({error})") from error
    if not isinstance(data, dict) or not {"task", "doc_id", "score"} <= data.keys():
        raise UsageError(f'{where}: expected an object with "task", "doc_id" and "score"')
    task, doc_id, score, cluster = (data.get(name) for name in _FIELDS)
    if not isinstance(task, str) or not task.strip() or len(task.encode()) > 200 or not task.isprintable():
        raise UsageError(f"{where}: `task` must be a name of 1 to 200 bytes without control characters")
    if (
        isinstance(doc_id, bool)
        or not isinstance(doc_id, (int, str))
        or (isinstance(doc_id, int) and abs(doc_id) >= 2**63)
    ):
        raise UsageError(f"{where}: `doc_id` must be an integer or a string, not {doc_id!r}")
    if not isinstance(score, (int, float)) or not math.isfinite(score) or not 0 <= score <= 1:
        raise UsageError(f"{where}: `score` must be a fraction from 0 to 1, not {score!r}")
    if isinstance(cluster, bool) or not isinstance(cluster, (int, str, type(None))):
        raise UsageError(f"{where}: `cluster` must be a string or an integer, not {cluster!r}")
    return Score(task, doc_id, float(score), cluster)


def import_scores(path: Path, name: str, runs: Path, command: Sequence[str], again: bool = False) -> Path:
    """Write the scores as a finished run marked as imported. Raises UsageError if a run of that name exists."""
    if (
        not name
        or name.startswith(".")
        or "/" in name
        or "\\" in name
        or not name.isprintable()
        or len(name.encode()) > 200
    ):
        raise UsageError(
            f"--name {name!r}: it must be a valid folder name: no slash, no leading dot, at most 200 bytes"
        )
    if (runs / name).exists() and not again:
        raise UsageError(f"run {name} exists in {runs}; --again replaces it")
    scores = read_scores(path)
    tasks: dict[str, list[Score]] = {}
    for score in scores:
        tasks.setdefault(score.task, []).append(score)
    folder = runs / UNFINISHED / name
    with RunLock(folder.with_name(f"{name}.lock")):
        shutil.rmtree(folder, ignore_errors=True)
        for task, task_scores in tasks.items():
            write_instances(instances_file(folder, task), _rows(task_scores))
        write_results(folder, _results(name, tasks))
        source = {"path": str(path), "sha256": sha256(path.read_bytes())}
        write_manifest(folder, Manifest.of_import(name, tasks, command, str(Path.cwd()), source))
        with storage(runs / name):
            shutil.rmtree(runs / name, ignore_errors=True)
            os.replace(folder, runs / name)
    return runs / name


def _clusters(scores: Sequence[Score]) -> list[str]:
    return [f"doc:{s.doc_id}" if s.cluster is None else f"cluster:{s.cluster}" for s in scores]


def _results(name: str, tasks: dict[str, list[Score]]) -> Results:
    entries = {
        task: TaskResult(
            n=len(task_scores),
            primary="score",
            metrics={"score": Metric.of(stats.mean([s.score for s in task_scores], _clusters(task_scores)))},
            imported=True,
        )
        for task, task_scores in tasks.items()
    }
    return Results(run=name, model=name, imported=True, tasks=entries)


def _rows(scores: Sequence[Score]) -> list[InstanceRow]:
    return [
        InstanceRow(task=s.task, doc_id=s.doc_id, cluster=cluster, score=s.score)
        for s, cluster in zip(scores, _clusters(scores), strict=True)
    ]
