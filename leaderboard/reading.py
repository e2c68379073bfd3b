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
from olmes_suite.errors import DataError, OlmesError, UsageError
from olmes_suite.evaluation.floor import floors, identity
from olmes_suite.files import read_json
from olmes_suite.records import canonical_json, sha256
from olmes_suite.runs.scores import check_schema
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
        problems.append(Problem("floors.json", one_line(error)))
    for path in sorted(runs.iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        try:
            finished.append(read(path, known))
        except (OlmesError, ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError) as error:
            problems.append(Problem(path.name, one_line(error)))
    if (runs / UNFINISHED).is_dir():
        problems += [
            Problem(path.name, "not finished: run the same `olmes eval` command again to continue it")
            for path in sorted((runs / UNFINISHED).iterdir())
            if path.is_dir()
        ]
    return finished, problems


def one_line(error: BaseException) -> str:
    """Describe an exception on one line."""
    text = " ".join(str(error).split())[:500]
    return text if isinstance(error, OlmesError) else f"damaged ({type(error).__name__}: {text})"


def read(path: Path, known: Mapping[str, list[dict[str, Any]]]) -> Run:
    """Read one run's folder. Raises OlmesError, or Python's errors for a damaged file."""
    if not (path / "results.json").is_file():
        raise DataError("incomplete: it has no results.json")
    results = check_schema(read_json(path / "results.json"), path / "results.json")
    record = check_schema(read_json(path / "manifest.json"), path / "manifest.json")
    tasks: dict[str, Any] = results["tasks"]
    if not isinstance(results["model"], str) or not isinstance(tasks, dict) or not isinstance(record["plan"], list):
        raise DataError("damaged: results.json or manifest.json has fields of the wrong type")
    cells, skills = {}, {}
    for plan in record["plan"]:
        name = str(plan["task"])
        entry = tasks.get(name) or {"error": "it is not in results.json"}
        cells[name] = _cell(name, entry, results, record, known=known, run=path.name)
        skills[name] = str(plan.get("skill") or "other")
    engine = record.get("engine") or {}
    model_path = str((record.get("model") or {}).get("path") or "")
    started = (record.get("time") or {}).get("started") or (path / "results.json").stat().st_mtime
    return Run(
        name=path.name,
        path=path,
        model=_model_name(results["model"], model_path),
        model_path=model_path,
        kind=_kind(record),
        started=_number(started) or 0.0,
        cells=cells,
        suites={str(name): _average(suite) for name, suite in results.get("suites", {}).items()},
        skills=skills,
        checkpoint=_checkpoint(path, record, engine),
        manifest=record,
    )


def _kind(record: Mapping[str, Any]) -> Kind:
    if record.get("imported"):
        return "imported"
    return "floor" if (record.get("engine") or {}).get("backend") == "floor" or record.get("floor") else "measured"


def _checkpoint(path: Path, record: Mapping[str, Any], engine: Mapping[str, Any]) -> str:
    """Return a key of the run's checkpoint, seed, limit and kind of documents; for a run without one, its name."""
    if record.get("imported") or engine.get("backend") in _NO_MODEL or not engine.get("fingerprint"):
        return path.name
    parts = [
        engine["fingerprint"],
        engine.get("backend"),
        record.get("limit"),
        record.get("seed"),
        record.get("sample"),
    ]
    return sha256(canonical_json(parts))


def _model_name(name: str, path: str) -> str:
    """Return the model's name, with its parent folder where the name alone is generic (`checkpoint-500`)."""
    parts = [part for part in path.replace(os.sep, "/").split("/") if part]
    if len(parts) > 1 and _NAMELESS.fullmatch(name.lower()):
        return "/".join(parts[-2:])
    return name or "(no name)"


def _number(value: object) -> float | None:
    """Check that a value is a finite number or None. Raises DataError for anything else."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"damaged: {str(value)[:40]!r} instead of a number")
    return float(value)


def _estimate(metric: Mapping[str, Any] | None) -> tuple[float | None, float | None, float | None, float | None]:
    """Return (value, lower end, upper end, standard error) of a metric's entry."""
    if metric is None:
        return None, None, None, None
    lo, hi = metric.get("ci95") or (None, None)
    return _number(metric.get("value")), _number(lo), _number(hi), _number(metric.get("stderr"))


def _average(suite: Mapping[str, Any]) -> Average:
    return Average(*_estimate(suite), tuple(str(name) for name in suite.get("missing", ())))


def _cell(
    name: str,
    entry: Mapping[str, Any],
    results: Mapping[str, Any],
    record: Mapping[str, Any],
    *,
    known: Mapping[str, list[dict[str, Any]]],
    run: str,
) -> Cell:
    metric = str(entry.get("primary", ""))
    flags = {str(flag): int(count) for flag, count in (entry.get("flags") or {}).items() if count}
    if "error" in entry:
        return Cell(None, metric=metric, flags=flags, error=str(entry["error"])[:500], run=run)
    leaves = [results["tasks"][part] for part in entry.get("subtasks", ())] or [entry]
    of = sum(int(leaf.get("of", leaf["n"])) for leaf in leaves)
    n, clean = int(entry["n"]), entry.get("clean")
    cleaned = None
    if clean and clean.get("flagged"):
        value, lo, hi, _ = _estimate(clean["metrics"].get(metric))
        cleaned = Clean(value, lo, hi, int(clean["n"]), int(clean["flagged"]))
    return Cell(
        *_estimate(entry["metrics"].get(metric)),
        n=n,
        of=of if of > n else None,
        metric=metric,
        flags=flags,
        clean=cleaned,
        fingerprint=_fingerprint(leaves),
        judged=bool(record.get("judge")) and judged(name),
        floor=_floor(name, results, record, known),
        run=run,
    )


def _fingerprint(leaves: list[Mapping[str, Any]]) -> tuple[str, ...] | None:
    """Hash each part of the fingerprint over all leaf tasks."""
    prints = [leaf.get("fingerprint") for leaf in leaves]
    if not all(isinstance(one, dict) for one in prints):
        return None
    return tuple(sha256(canonical_json([(one or {}).get(part) for one in prints]))[:12] for part in PARTS)


def _floor(
    name: str, results: Mapping[str, Any], record: Mapping[str, Any], known: Mapping[str, list[dict[str, Any]]]
) -> float | None:
    """Return the floor on the same documents, otherwise on all; None where none was measured (`runs.floor.beside`)."""
    if name not in known:
        return None
    key = identity(name, results)
    same = [one for one in known[name] if one["identity"] == key]
    subset = (record.get("limit"), record.get("seed"))
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
