"""The stage's output folder: locking, rotation, and the checks before a stage resumes from what is there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from olmes_suite.errors import StorageError, UsageError
from olmes_suite.files import RunLock
from olmes_suite.hooks import TrainingSet
from olmes_suite.runs.schema import TrainingFile
from train_plugins.checkpoints import changes, lineage
from train_plugins.data.sets import BAD_ROWS

LOCK = ".lock"
"""File in the output while a stage writes there."""
PART = ".part"
"""Folder in the output while the last weights are written."""


@contextmanager
def lock(output: Path) -> Iterator[None]:
    """Keep two stages from writing to one folder; the lock ends with the process in any case. Raises RunLocked."""
    created = not output.is_dir()
    try:
        with RunLock(output / LOCK, f"stage {output}", "--output"):
            yield
    finally:
        if created:  # leave no empty folder behind
            with suppress(OSError):
                output.rmdir()


def start(output: Path, resume: bool) -> Path | None:
    """Return the checkpoint to resume from; None to start from the beginning.

    Raises UsageError for a folder that is not empty without `resume`, StorageError for one that cannot be written.
    """
    _check_writable(output)
    if not output.is_dir() or not any(_of_a_stage(path) for path in output.iterdir()):
        return None
    if not resume:
        raise UsageError(f"{output} is not empty; add --resume to continue the stage there, or name another --output")
    whole = lineage.whole_checkpoints(output)
    return whole[-1] if whole else None


def _check_writable(output: Path) -> None:
    """Check before hours of work that the folder, or its nearest existing parent, takes new files."""
    place = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not place.is_dir():
        raise UsageError(f"--output {output}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"--output {output}: {place} cannot be written; name another place")


def remove_torn(output: Path) -> None:
    """Remove checkpoints without a lineage: the stage ended while they were written or rotated away."""
    for torn in {*output.glob("checkpoint-*"), output / PART} - set(lineage.whole_checkpoints(output)):
        shutil.rmtree(torn, ignore_errors=True)


def rotate(output: Path, limit: int | None, best: str | None, held: Collection[str] = ()) -> None:
    """Keep `limit` checkpoints: the last, the `best` and the `held` ones, then the newest.

    The last, the best and the held ones stay even if they are more than `limit`. A removed checkpoint loses its
    lineage first, so that a kill in between leaves nothing that looks whole.
    """
    whole = lineage.whole_checkpoints(output)
    remaining = {path for path in whole if str(path) == best or str(path) in held} | set(whole[-1:])
    for path in reversed(whole):
        if limit and path not in remaining and len(remaining) < limit:
            remaining.add(path)
    for path in whole if limit else ():
        if path not in remaining:
            (path / lineage.FILE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _of_a_stage(path: Path) -> bool:
    """Return whether a path belongs to a stage: a checkpoint or a file, but not a folder that a hook wrote."""
    if path.name == BAD_ROWS:  # written before training, so a stage that failed at once can be started again
        return False
    if path.suffix == ".jsonl" and path.is_file() and not path.stat().st_size:  # a log, before the first step
        return False
    return (path.is_file() and not path.name.startswith(".")) or path.name.startswith("checkpoint-")


def finished(output: Path, resume: bool) -> bool:
    """Return whether the stage in `output` has finished and the user resumes it."""
    return resume and (output / lineage.FILE).is_file()


def same_stage(checkpoint: Path, recipe: Mapping[str, Any], sets: Sequence[TrainingSet] = ()) -> list[str]:
    """Return notes on what has changed harmlessly since the checkpoint.

    Raises UsageError unless the checkpoint was made by this recipe, apart from `changes.FREE` and the like, from these
    rows: TRL would continue with the saved schedule and silently ignore, say, a new learning rate.
    """
    before = lineage.read(checkpoint)
    notes = changes.check(before.recipe, recipe, before.training_processes or 1)
    if not sets:
        return notes
    now = [lineage.data_line(one) for one in sets]
    if different := _other_rows(before.data, now):
        raise UsageError(
            "--resume: the training data, or what decontamination leaves of it, has changed since the checkpoint: "
            f"{different}; start again with another --output"
        )
    names = [(old.path, new.path) for old, new in zip(before.data, now, strict=True) if old.path != new.path]
    return notes + [f"note: {new} has the rows of {old} (compared by their SHA-256)" for old, new in names]


def renamed_data(checkpoint: Path, recipe: Mapping[str, Any]) -> bool:
    """Return whether the recipe describes its data differently than the checkpoint's, so that rows must be compared."""
    return changes.renamed(lineage.read(checkpoint).recipe, recipe)


def _other_rows(then: Sequence[TrainingFile], now: Sequence[TrainingFile]) -> str | None:
    """Say what differs between the rows, set by set; None if nothing does. The files' names are not compared."""
    if len(then) != len(now):
        return f"{len(then)} sets are now {len(now)}"
    for old, new in zip(then, now, strict=True):
        # checkpoints of earlier versions have no hash of their rows, so the files must be the same
        whole = old.rows_sha256 is None or new.rows_sha256 is None
        hashes = (old.sha256, new.sha256) if whole else (old.rows_sha256, new.rows_sha256)
        if hashes[0] != hashes[1] or old.rows not in (None, new.rows):
            return f"{old.path} had {_rows(old.rows, hashes[0])}, {new.path} has {_rows(new.rows, hashes[1])}"
    return None


def _rows(count: int | None, sha256: str | None) -> str:
    return f"{'?' if count is None else count} rows (SHA-256 {str(sha256)[:12]}…)"


def same_processes(checkpoint: Path, processes: int) -> None:
    """Raise UsageError unless the checkpoint was made by `processes` processes.

    Each process saved its own random state and rollouts; without `batch_size` the batch would change too.
    """
    before = lineage.read(checkpoint).training_processes
    if before not in (None, processes):
        raise UsageError(
            f"--resume: {checkpoint} was made by {before} processes, not {processes}; each has its own share of the "
            f"saved state. Resume with --num-processes {before}, or start again with another --output"
        )
