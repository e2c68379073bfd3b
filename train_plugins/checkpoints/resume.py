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
from train_plugins.checkpoints import lineage
from train_plugins.data.sets import BAD_ROWS

FREE = frozenset({"eval", "output", "final", "decontam", "gate"})
"""Keys that may change between the starts of one stage."""
POLICY = "decontam.on_contamination"
"""The key under `decontam` that must stay: it decides which rows are trained on, and what the lineage records."""
FREE_ARGUMENTS = frozenset(
    {"logging_steps", "logging_strategy", "report_to", "run_name", "save_steps", "save_strategy", "save_total_limit",
     "dataloader_num_workers", "dataset_num_proc"}
)  # fmt: skip
"""Trainer arguments that do not affect the weights, so they may change too."""
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
    return (path.is_file() and not path.name.startswith(".")) or path.name.startswith("checkpoint-")


def finished(output: Path, resume: bool) -> bool:
    """Return whether the stage in `output` has finished and the user resumes it."""
    return resume and (output / lineage.FILE).is_file()


def same_stage(checkpoint: Path, recipe: Mapping[str, Any], sets: Sequence[TrainingSet] = ()) -> None:
    """Raise UsageError unless the checkpoint was made by this recipe from this data.

    TRL would continue with the saved schedule and silently ignore, say, a new learning rate.
    """
    before = lineage.read(checkpoint)
    then, now = flatten(before.recipe), flatten(recipe)
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key) and not _free(key):
            why = (
                "earlier steps were trained on the rows that the old value left"
                if key == POLICY
                else "the saved state of optimiser and schedule would override it"
            )
            raise UsageError(
                f"--resume: {key} was {then.get(key)!r} and is now {now.get(key)!r}; {why}. Resume with the old "
                "value, or start again with another --output"
            )
    if sets and not _same_rows(before.data, [lineage.data_line(one) for one in sets]):
        raise UsageError(
            "--resume: the training data, or what decontamination leaves of it, has changed since the checkpoint; "
            "start again with another --output"
        )


def _same_rows(then: Sequence[TrainingFile], now: Sequence[TrainingFile]) -> bool:
    """Compare files and rows in order; checkpoints of earlier versions have no hash of their rows."""
    return len(then) == len(now) and all(
        old.sha256 == new.sha256 and old.rows in (None, new.rows) and old.rows_sha256 in (None, new.rows_sha256)
        for old, new in zip(then, now, strict=True)
    )


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


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one, with keys joined by dots."""
    if not isinstance(data, Mapping):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _free(key: str) -> bool:
    if key == POLICY:
        return False
    first, _, rest = key.partition(".")
    return first in FREE or (first == "trainer" and rest in FREE_ARGUMENTS)
