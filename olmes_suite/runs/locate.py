"""Lookup of recorded runs and baseline files by folder, name or named baseline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from olmes_suite.errors import OlmesError, UsageError
from olmes_suite.files import read_json
from olmes_suite.runs.baseline import read_baseline
from olmes_suite.runs.schema import is_finished, read_manifest
from olmes_suite.runs.scores import BASELINES, RunScores, read_run
from olmes_suite.runs.store import UNFINISHED, finished
from olmes_suite.tasks.index import nearest


def load(reference: str, runs: Path) -> RunScores:
    """Read the scores of a run, by its folder, its name, a named baseline or a baseline file.

    Raises UsageError if there is no such run, DataError for damaged or newer files.
    """
    path = locate(reference, runs)
    if path.is_dir():
        return read_run(path)
    return read_baseline(path)


def locate(reference: str, runs: Path) -> Path:
    """Find the folder or baseline file of a reference.

    It is a folder, a file, a run's name, a named baseline, or else what only one run has: a part of its name, or the
    path or name of its checkpoint. Raises UsageError naming the nearest run, or the runs between which it is ambiguous.
    """
    named = read_json(runs / BASELINES) if (runs / BASELINES).is_file() else {}
    for path in (Path(reference), runs / reference, runs / str(named.get(reference, reference))):
        if is_finished(path) or path.is_file():
            return path
    if (len(Path(reference).parts) == 1 and (runs / UNFINISHED / reference).is_dir()) or UNFINISHED in Path(
        reference
    ).parts:
        raise UsageError(f"run {reference} is not finished: repeat the `olmes eval` command that started it")
    known = finished(runs) if runs.is_dir() else []
    if meant := _meant(reference, known):
        if len(meant) == 1:
            return meant[0]
        names = ", ".join(path.name for path in meant[:4]) + (", …" if len(meant) > 4 else "")
        raise UsageError(
            f"{reference!r} is ambiguous: {len(meant)} runs in {runs} match ({names}); give one by its name"
        )
    if Path(reference).is_dir():
        if (Path(reference) / "config.json").is_file():
            raise UsageError(
                f"{reference} is a model, and {runs} has no finished run of it: evaluate it first (olmes eval --model "
                f"{reference} …), or name another folder of runs with --runs"
            )
        raise UsageError(f"{reference} is not a run: it has no results.json")
    raise UsageError(
        f"no run {reference!r}: it is neither a folder, a file, nor a run or baseline in {runs} (--runs)"
        f"{nearest(reference, [*(path.name for path in known), *named])}"
    )


def _meant(reference: str, known: Sequence[Path]) -> list[Path]:
    """Return the runs of a checkpoint with this path or name; without any, those with this text in their names."""
    checkpoints = {path: _checkpoint(path) for path in known}
    by_path = [path for path, model in checkpoints.items() if model is not None and model == Path(reference).resolve()]
    by_name = [path for path, model in checkpoints.items() if model is not None and model.name == reference]
    return by_path or by_name or [path for path in known if reference and reference in path.name]


def _checkpoint(run: Path) -> Path | None:
    """Return the absolute path of a run's checkpoint; of a Hub id, a path that ends in its name."""
    try:
        manifest = read_manifest(run)
    except OlmesError:
        return None
    return (Path(manifest.folder) / manifest.model.path).resolve() if manifest.model.path else None
