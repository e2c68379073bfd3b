"""Reading a run store: every readable run, and the reason for each run that is left out."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from leaderboard.page_data import PARTS, Average, Cell, Clean, Kind, Problem, Run
from olmes_suite.errors import DataError, OlmesError, UsageError, one_line
from olmes_suite.records import canonical_json, sha256
from olmes_suite.runs.floors import floors, identity
from olmes_suite.runs.schema import (
    RESULTS,
    Cost,
    Manifest,
    Metric,
    Projected,
    Results,
    Stopped,
    SuiteResult,
    TaskResult,
    is_finished,
    read_manifest,
    read_results,
)
from olmes_suite.runs.store import UNFINISHED
from olmes_suite.tasks import index

_NO_MODEL = frozenset({"mock", "oracle", "floor"})
"""Backends without a checkpoint, whose runs each have a separate row."""
_NAMELESS = re.compile(r"(checkpoint|step|global_step|epoch)[-_]?\d*|final|output|model|last|best")


def read_store(runs: Path) -> tuple[list[Run], list[Problem]]:
    """Read all runs of a folder. Raises UsageError where there is no such folder; damaged runs become problems."""
    if not runs.is_dir():
        raise UsageError(f"--runs {runs}: no such folder")
    finished, problems = [], []
    try:
        known = floors(runs)
    except (OlmesError, KeyError, TypeError, AttributeError) as error:
        known = {}
        problems.append(Problem("floors.json", reason(error)))
    for path in sorted(runs.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            finished.append(read(path, known))
        except (OlmesError, ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
            problems.append(Problem(path.name, reason(error)))
    if (runs / UNFINISHED).is_dir():
        problems += [
            Problem(path.name, "not finished: run the same `olmes eval` command again to continue it")
            for path in sorted((runs / UNFINISHED).iterdir())
            if path.is_dir()
        ]
    return finished, problems


def reason(error: BaseException) -> str:
    """Describe an exception on one line."""
    text = one_line(error, 500)
    return text if isinstance(error, OlmesError) else f"damaged ({type(error).__name__}: {text})"


def read(path: Path, known: Mapping[str, list[dict[str, Any]]]) -> Run:
    """Read one run's folder. Raises OlmesError, or Python's errors for a damaged file."""
    if not is_finished(path):
        raise DataError("incomplete: it has no results.json")
    results, manifest = read_results(path), read_manifest(path)
    cells, skills = {}, {}
    for plan in manifest.plan:
        entry = results.tasks.get(plan.task) or TaskResult(error="it is not in results.json")
        cells[plan.task] = _cell(plan.task, entry, results, manifest, known=known, run=path.name)
        skills[plan.task] = plan.skill or "other"
    model_path = manifest.model.path or ""
    started = manifest.time.started if manifest.time is not None else None
    return Run(
        name=path.name,
        path=path,
        model=_model_name(results.model, model_path) if manifest.name is None else path.name,
        model_path=model_path,
        kind=_kind(manifest),
        started=_number(started or (path / RESULTS).stat().st_mtime) or 0.0,
        cells=cells,
        suites={name: _average(suite, _part(suite.planned, results)) for name, suite in results.suites.items()},
        skills=skills,
        checkpoint=_checkpoint(path, manifest),
        manifest=manifest,
    )


def _kind(manifest: Manifest) -> Kind:
    if manifest.imported:
        return "imported"
    if manifest.engine.backend == "floor" or manifest.floor:
        return "floor"
    return "mock" if manifest.engine.backend in _NO_MODEL else "measured"


def _checkpoint(path: Path, manifest: Manifest) -> str:
    """Return a key of the run's checkpoint, seed, limit and kind of documents; for a run without one, its name."""
    engine = manifest.engine
    if manifest.imported or engine.backend in _NO_MODEL or not engine.fingerprint:
        return path.name
    parts: list[Any] = [engine.fingerprint, engine.backend, manifest.limit, manifest.seed, manifest.sample]
    if manifest.name is not None:  # a name of the user's makes a row
        parts.append(["name", path.name])
    if manifest.max_documents is not None:
        parts.append(["max_documents", manifest.max_documents])
    if manifest.planned is not None:
        parts.append(dict(manifest.planned.documents))
    return sha256(canonical_json(parts))


def _model_name(name: str, path: str) -> str:
    """Return the model's name, with its parent folder where the name alone is generic (`checkpoint-500`)."""
    parts = [part for part in path.replace(os.sep, "/").split("/") if part]
    if name.startswith(("/", "./", "../")) and parts:  # a path that another tool took for a name
        name = parts[-1]
    if len(parts) > 1 and _NAMELESS.fullmatch(name.lower()):
        return "/".join(parts[-2:])
    return name or "(no name)"


def _number(value: float | None) -> float | None:
    """Check that a value is a finite number or None. Raises DataError for infinity and NaN."""
    if value is not None and not math.isfinite(value):
        raise DataError(f"damaged: {value!r} instead of a number")
    return None if value is None else float(value)


def _estimate(metric: Metric | None) -> tuple[float | None, float | None, float | None, float | None]:
    """Return (value, lower end, upper end, standard error) of a metric's entry."""
    if metric is None:
        return None, None, None, None
    lo, hi = metric.ci95 or (None, None)
    return _number(metric.value), _number(lo), _number(hi), _number(metric.stderr)


def _average(suite: SuiteResult, part: str) -> Average:
    return Average(*_estimate(suite), suite.missing, part, _projection(suite.projected))


def _part(planned: bool, results: Results) -> str:
    return "" if not planned else "planned" if results.stopped is None else "stopped"


def _projection(found: Projected | None) -> Projected | None:
    """Check that the numbers are finite. Raises DataError."""
    if found is not None:
        for value in (found.value, found.stderr, *(found.ci95 or ())):
            _number(value)
    return found


def _stopped(stopped: Stopped | None) -> str:
    if stopped is None:
        return ""
    looks = f"{len(stopped.looks)} look{'s' if len(stopped.looks) != 1 else ''}"
    return f"{stopped.verdict} against {stopped.baseline} after {looks}"


def _cell(
    name: str,
    entry: TaskResult,
    results: Results,
    manifest: Manifest,
    *,
    known: Mapping[str, list[dict[str, Any]]],
    run: str,
) -> Cell:
    flags = {flag: count for flag, count in entry.flags.items() if count}
    if entry.error is not None:
        return Cell(None, metric=entry.primary, flags=flags, error=entry.error[:500], run=run)
    leaves = results.leaves(name)
    of = sum(leaf.n if leaf.of is None else leaf.of for leaf in leaves)
    costs: dict[str, Any] = {}
    if manifest.engine.backend not in _NO_MODEL:  # these count words
        costs = {"cost": _finite(entry.cost), "samples": entry.samples, "samples_sd": _number(entry.samples_sd)}
    cleaned = None
    if entry.clean is not None and entry.flagged:
        value, lo, hi, _ = _estimate(entry.clean.metrics.get(entry.primary))
        cleaned = Clean(value, lo, hi, entry.clean.n, entry.flagged)
    return Cell(
        *_estimate(entry.score),
        n=entry.n,
        of=of if of > entry.n else None,
        part=_part(entry.planned, results),
        stopped=_stopped(results.stopped) if entry.planned else "",
        projected=_projection(entry.projected),
        metric=entry.primary,
        flags=flags,
        clean=cleaned,
        fingerprint=_fingerprint(leaves),
        judged=bool(manifest.judge) and judged(name),
        floor=_floor(name, results, manifest, known),
        run=run,
        **costs,
    )


def _finite(cost: Cost) -> Cost:
    """Check that the numbers are finite. Raises DataError."""
    tokens, completed = cost.tokens, cost.completed
    _number(cost.correct_per_million_tokens)
    for value in (*((tokens.thinking, tokens.answer) if tokens else ()), *((completed.value,) if completed else ())):
        _number(value)
    return cost


def _fingerprint(leaves: list[TaskResult]) -> tuple[str, ...] | None:
    """Hash each part of the fingerprint over all leaf tasks."""
    prints = [leaf.fingerprint for leaf in leaves if leaf.fingerprint is not None]
    if len(prints) < len(leaves):
        return None
    return tuple(sha256(canonical_json([one.get(part) for one in prints]))[:12] for part in PARTS)


def _floor(name: str, results: Results, manifest: Manifest, known: Mapping[str, list[dict[str, Any]]]) -> float | None:
    """Return the floor on the same documents, otherwise on all; None where none was measured (`runs.floor.beside`)."""
    if name not in known:
        return None
    key = identity(name, results)
    same = [one for one in known[name] if one["identity"] == key]
    subset = (manifest.limit, manifest.seed)
    whole = [one for one in same if one["limit"] is None]
    exact = [one for one in same if (one["limit"], one["seed"]) == subset] if subset[0] is not None else []
    chosen = exact or whole
    return _number(chosen[-1]["value"]) if chosen else None


@lru_cache(maxsize=1024)
def judged(task: str) -> bool:
    """Whether a shipped task lists a judge or classifier in `needs`."""
    entry = index.index().get(task)
    if entry is None:
        return False
    folder = index.task_file(entry).parent
    texts = (path.read_text(encoding="utf-8") for path in folder.glob("*.yaml"))
    return any(re.search(r"^needs:.*\b(judge|classifier)\b", text, re.MULTILINE) for text in texts)
