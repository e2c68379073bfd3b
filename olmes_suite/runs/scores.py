"""Reading of recorded scores from a run's folder, an imported run or a baseline file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from olmes_suite.errors import DataError
from olmes_suite.runs import differences
from olmes_suite.runs.schema import (
    Cost,
    Manifest,
    PlannedTask,
    Results,
    Stopped,
    TaskResult,
    instances_file,
    read_instances,
    read_manifest,
    read_results,
)
from olmes_suite.stats import Floats

BASELINES = "baselines.json"
"""Name of the file of named baselines in the run store: name to run."""
PARTS = ("prompt", "data", "scorer", "settings")
"""The four hashes of a task's fingerprint."""
_TOKENS = ("thinking_tokens", "answer_tokens")
_COLUMNS = ("task", "doc_id", "cluster", "stratum", "score", "contaminated", "contaminated_short", *_TOKENS)
DocIds = npt.NDArray[Any]
"""Integers, or strings for imported scores with such doc_ids."""


@dataclass(frozen=True, slots=True)
class LeafScores:
    """The documents of a leaf task, in ascending order of doc_id."""

    doc_ids: DocIds
    scores: Floats
    """Primary metric by document; all NaN if the metric is not a mean over documents."""
    clusters: npt.NDArray[np.int64]
    """Cluster numbers from 0."""
    strata: npt.NDArray[np.int64]
    """Stratum numbers from 0; the score is the unweighted mean of the means of the strata."""
    fingerprint: Mapping[str, str] | None = None
    """The four hashes; None for imported scores."""
    settings: Mapping[str, Any] | None = None
    """The settings of the answers; None for log-likelihoods and where the record does not name them."""
    flagged: frozenset[Any] = frozenset()
    """doc_ids that the checkpoint's training data contains."""
    short: frozenset[Any] = frozenset()
    """The doc_ids among `flagged` that match only as items too short for an n-gram."""
    tokens: Floats | None = None
    """Generated tokens per answer of each document; None if the source does not count them."""
    cost: Cost = field(default_factory=Cost)
    of: int | None = None
    """The number of documents of the whole task; None where the run has all of them."""

    @property
    def population(self) -> int:
        """The number of documents of the whole task."""
        return len(self.doc_ids) if self.of is None else self.of


@dataclass(frozen=True, slots=True)
class TaskScores:
    """A top-level task of a run."""

    name: str
    leaves: Mapping[str, LeafScores]
    primary: str = "score"
    aggregate: str = "mean"
    skill: str = "other"
    value: float | None = None
    """The recorded score, over all documents."""
    stderr: float | None = None
    flags: Mapping[str, int] = field(default_factory=dict)
    clean: tuple[float, float | None] | None = None
    """The recorded (score, standard error) without the contaminated documents."""
    cost: Cost = field(default_factory=Cost)
    planned: bool = False
    """Whether a plan chose the documents."""

    @property
    def complete(self) -> bool:
        """Whether the run has all documents of the task."""
        return all(leaf.population == len(leaf.doc_ids) for leaf in self.leaves.values())

    @property
    def n(self) -> int:
        """Number of documents."""
        return sum(len(leaf.doc_ids) for leaf in self.leaves.values())

    @property
    def contaminated(self) -> int:
        """Number of documents that the checkpoint's training data contains."""
        return sum(len(leaf.flagged) for leaf in self.leaves.values())

    @property
    def contaminated_short(self) -> int:
        """Number of contaminated documents that match only as short items, which the paper's rule does not count."""
        return sum(len(leaf.short & leaf.flagged) for leaf in self.leaves.values())

    @property
    def by_document(self) -> bool:
        """Whether the score is a mean over documents."""
        return not all(np.isnan(leaf.scores).all() for leaf in self.leaves.values())


@dataclass(frozen=True, slots=True)
class RunScores:
    """All scores of one run."""

    name: str
    model: str
    tasks: Mapping[str, TaskScores]
    failed: Mapping[str, str] = field(default_factory=dict)
    """Tasks without a score, with the reason."""
    request_errors: Mapping[str, int] = field(default_factory=dict)
    suites: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Suite to its tasks at the time of the run."""
    imported: bool = False
    limit: int | float | None = None
    path: Path | None = None
    """The run's folder; None for a baseline file."""
    stopped: Stopped | None = None
    """The verdict of a run that asked until it was decided."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """The settings of the run (`runs.differences`); empty where they are not known."""
    checkpoint: str = ""
    """The place of the evaluated weights; "" where it is not known."""


def by_subtask(run: RunScores) -> RunScores:
    """Return the run with sub-tasks in place of their groups."""
    tasks = {
        name: TaskScores(name, {name: leaf}, task.primary, "mean", task.skill, cost=leaf.cost)
        for task in run.tasks.values()
        for name, leaf in task.leaves.items()
    }
    return replace(run, tasks=tasks)


def read_run(path: Path) -> RunScores:
    """Read a finished run's folder. Raises DataError for a damaged run, UsageError for one of a newer version."""
    results, manifest = read_results(path), read_manifest(path)
    try:
        return validated(_run(path, results, manifest))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path}: results.json or manifest.json is damaged ({type(error).__name__}: {error})"
        ) from error


def validated(run: RunScores) -> RunScores:
    """Check the types of the run's fields and return the run. Raises TypeError naming an invalid field."""
    for value, what in ((run.name, "run"), (run.model, "model"), *((why, "error") for why in run.failed.values())):
        _is(value, str, what)
    _is(run.limit, (int, float, type(None)), "limit")
    for listed in run.suites.values():
        for name in _is(listed, list, "suite"):
            _is(name, str, "task of a suite")
    for count in run.request_errors.values():
        _is(count, int, "request_errors")
    for task in run.tasks.values():
        _validate_task(task)
    return run


def _validate_task(task: TaskScores) -> None:
    for text, what in ((task.primary, "primary"), (task.aggregate, "aggregate"), (task.skill, "skill")):
        _is(text, str, what)
    for number, what in ((task.value, "value"), (task.stderr, "stderr")):
        _is(number, (int, float, type(None)), what)
    for flag, count in _is(task.flags, Mapping, "flags").items():
        _is(count, int, f"flag {flag}")
    for leaf in task.leaves.values():
        for part, text in _is(leaf.fingerprint or {}, Mapping, "fingerprint").items():
            _is(text, str, f"fingerprint, {part}")


def _is(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind) or (isinstance(value, float) and not np.isfinite(value)):
        raise TypeError(f"{what} is {value!r:.60}")
    return value


def _run(path: Path, results: Results, manifest: Manifest) -> RunScores:
    tasks, failed, errors = {}, {}, {}
    for plan in manifest.plan:
        entry = results.tasks.get(plan.task) or TaskResult(error="not in results.json")
        if count := entry.flags.get("request_errors"):
            errors[plan.task] = count
        if entry.error is not None:
            failed[plan.task] = entry.error
        else:
            tasks[plan.task] = _task(path, plan, results, manifest)
    suites = {suite: [*manifest.suite(suite)] for suite in results.suites}
    return RunScores(
        results.run,
        results.model,
        tasks,
        failed,
        errors,
        suites,
        manifest.imported,
        manifest.max_documents if manifest.limit is None else manifest.limit,
        path,
        results.stopped,
        differences.facts(manifest),
        "" if manifest.imported else differences.checkpoint(manifest),
    )


def _task(path: Path, plan: PlannedTask, results: Results, manifest: Manifest) -> TaskScores:
    file, entry = instances_file(path, plan.task), results.tasks[plan.task]
    leaves = {}
    for name, leaf in _read_leaves(file, manifest.tasks).items():
        recorded, settings = results.tasks.get(name), (manifest.sampling or {}).get(name)
        if recorded is None:
            leaves[name] = replace(leaf, settings=settings, of=None)
        else:
            leaves[name] = replace(leaf, settings=settings, cost=recorded.cost, of=recorded.of)
    if not leaves:
        raise DataError(f"{file}: no documents, although {plan.task} has a score")
    metric, clean = entry.score, entry.clean.metrics.get(entry.primary) if entry.clean is not None else None
    return TaskScores(
        plan.task,
        leaves,
        entry.primary,
        plan.aggregate,
        plan.skill or "other",
        metric.value if metric is not None else None,
        metric.stderr if metric is not None else None,
        entry.flags,
        (clean.value, clean.stderr) if clean is not None and clean.value is not None else None,
        entry.cost,
        entry.planned,
    )


def _read_leaves(file: Path, fingerprints: Mapping[str, Mapping[str, str] | None]) -> dict[str, LeafScores]:
    import pyarrow.compute as pc

    table = read_instances(file, _COLUMNS)
    columns = table.column_names
    names = table["task"].combine_chunks().dictionary_encode()
    leaf_codes = names.indices.to_numpy(zero_copy_only=False)
    doc_ids = table["doc_id"].to_numpy()
    scores = table["score"].to_numpy(zero_copy_only=False).astype(float)
    clusters = _numbers(table["cluster"])
    strata = _numbers(table["stratum"]) if "stratum" in columns else np.zeros(len(scores), dtype=np.int64)
    contaminated = pc.fill_null(table["contaminated"], False).to_numpy(zero_copy_only=False).astype(bool)
    tokens = None
    if set(_TOKENS) <= {*columns}:
        tokens = sum(table[name].to_numpy(zero_copy_only=False).astype(float) for name in _TOKENS)
    short = np.zeros(len(scores), dtype=bool)
    if "contaminated_short" in columns:
        short = pc.fill_null(table["contaminated_short"], False).to_numpy(zero_copy_only=False).astype(bool)
    leaves = {}
    for leaf_code, leaf in enumerate(names.dictionary.to_pylist()):
        rows = np.flatnonzero(leaf_codes == leaf_code)
        flagged = frozenset(doc_ids[rows][contaminated[rows]].tolist())
        flagged_short = frozenset(doc_ids[rows][(contaminated & short)[rows]].tolist())
        scored = leaf_scores(
            leaf, file, doc_ids[rows], scores[rows], clusters=clusters[rows], strata=strata[rows],
            fingerprint=fingerprints.get(leaf), tokens=None if tokens is None else tokens[rows],
        )  # fmt: skip
        leaves[leaf] = replace(scored, flagged=flagged, short=flagged_short)
    return leaves


def _numbers(column: Any) -> npt.NDArray[np.int64]:
    """Number the values of a column, with equal numbers for equal values."""
    codes = column.combine_chunks().dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return np.asarray(codes, dtype=np.int64)


def leaf_scores(
    leaf: str,
    file: Path,
    doc_ids: DocIds,
    scores: Floats,
    *,
    clusters: npt.NDArray[np.int64],
    strata: npt.NDArray[np.int64],
    fingerprint: Mapping[str, str] | None,
    tokens: Floats | None = None,
) -> LeafScores:
    """Sort the scores of a leaf task by doc_id. Raises DataError for duplicate documents and missing scores."""
    if doc_ids.dtype.kind not in "iu":
        doc_ids = doc_ids.astype(str)
    order = np.argsort(doc_ids, kind="stable")
    doc_ids, scores = doc_ids[order], scores[order]
    if len(doc_ids) > 1 and (duplicates := np.flatnonzero(doc_ids[1:] == doc_ids[:-1])).size:
        raise DataError(
            f"{file}: {leaf} has document {doc_ids[duplicates[0]]} more than once ({duplicates.size} duplicates)"
        )
    unscored = np.flatnonzero(~np.isfinite(scores))
    if unscored.size and unscored.size < len(scores):
        raise DataError(
            f"{file}: {leaf} has {unscored.size} of {len(scores)} documents without a score (the first is document "
            f"{doc_ids[unscored[0]]}); score the run again with `olmes score RUN`"
        )
    if tokens is not None:
        tokens = tokens[order] if np.isfinite(tokens).all() and tokens.any() else None
    numbers = (_from_zero(clusters[order]), _from_zero(strata[order]))
    return LeafScores(doc_ids, scores, *numbers, fingerprint, tokens=tokens)


def _from_zero(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.unique(numbers, return_inverse=True)[1].astype(np.int64)
