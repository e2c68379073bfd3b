"""Where a stage writes, whether something lies there already, and whether it may go on from it."""

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

FREE = frozenset({"eval", "output", "final", "decontam", "gate"})
"""Keys that may change between the starts of one stage."""
POLICY = "decontam.on_contamination"
"""Not free: it decides which rows are trained on, and what the lineage says of those that were."""
FREE_ARGUMENTS = frozenset(
    {"logging_steps", "logging_strategy", "report_to", "run_name", "save_steps", "save_strategy", "save_total_limit",
     "dataloader_num_workers", "dataset_num_proc"}
)  # fmt: skip
"""Trainer arguments that do not touch the weights."""


LOCK = ".lock"
"""In the output, while a stage is writing there."""
PART = ".part"
"""In the output, while the last weights are being written."""


@contextmanager
def lock(output: Path) -> Iterator[None]:
    """Keeps two stages from writing one folder; it goes with the process, however that ends. Raises RunLocked."""
    made = not output.is_dir()
    try:
        with RunLock(output / LOCK, f"stage {output}", "--output"):
            yield
    finally:
        if made:  # and nothing was written: no trace is left
            with suppress(OSError):
                output.rmdir()


def start(output: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from; None to begin.

    Raises UsageError for a folder that holds something else, StorageError for one that cannot be written.
    """
    _check_writable(output)
    if not output.is_dir() or not any(_of_a_stage(path) for path in output.iterdir()):
        return None
    if not resume:
        raise UsageError(f"{output}: is not empty; --resume goes on with the stage there, or name another --output")
    whole = lineage.whole_checkpoints(output)
    return whole[-1] if whole else None


def _check_writable(output: Path) -> None:
    """The folder, or the nearest one above it that is there, takes new files: known before hours of work."""
    place = next(path for path in (output.absolute(), *output.absolute().parents) if path.exists())
    if not place.is_dir():
        raise UsageError(f"--output {output}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise StorageError(f"--output {output}: {place} cannot be written; name another place")


def remove_torn(output: Path) -> None:
    """Remove checkpoints that were being written, or rotated away, when the stage ended: they have no lineage."""
    for torn in {*output.glob("checkpoint-*"), output / PART} - set(lineage.whole_checkpoints(output)):
        shutil.rmtree(torn, ignore_errors=True)


def rotate(output: Path, limit: int | None, best: str | None, held: Collection[str] = ()) -> None:
    """Keep the `limit` newest checkpoints, among them the last, the `best` and those that are `held`, be they more. Any
    other loses its lineage first, so that a kill in between leaves nothing that looks whole."""
    whole = lineage.whole_checkpoints(output)
    kept = {path for path in whole if str(path) == best or str(path) in held} | set(whole[-1:])
    for path in reversed(whole):
        if limit and path not in kept and len(kept) < limit:
            kept.add(path)
    for path in whole if limit else ():
        if path not in kept:
            (path / lineage.FILE).unlink(missing_ok=True)
            shutil.rmtree(path, ignore_errors=True)


def _of_a_stage(path: Path) -> bool:
    """A checkpoint, or any file; folders that hooks wrote before a stage was refused are no reason to stop."""
    return (path.is_file() and not path.name.startswith(".")) or path.name.startswith("checkpoint-")


def finished(output: Path, resume: bool) -> bool:
    """The stage in `output` has ended, and the user goes on with it."""
    return resume and (output / lineage.FILE).is_file()


def same_stage(checkpoint: Path, recipe: Mapping[str, Any], sets: Sequence[TrainingSet] = ()) -> None:
    """Raise UsageError unless the checkpoint was made by this recipe, over this data.

    TRL would go on with the saved schedule and ignore, say, a new learning rate without a word.
    """
    before = lineage.read(checkpoint)
    then, now = flatten(before.recipe), flatten(recipe)
    for key in sorted(then.keys() | now.keys()):
        if then.get(key) != now.get(key) and not _free(key):
            why = (
                "the steps before were trained on what it left then"
                if key == POLICY
                else "the saved state of optimiser and schedule would win over it"
            )
            raise UsageError(
                f"--resume: {key} was {then.get(key)!r} and is now {now.get(key)!r}; {why}. Go on with the old value, "
                "or start anew with another --output"
            )
    if sets and not _same_rows(before.data, [lineage.data_line(one) for one in sets]):
        raise UsageError(
            "--resume: the training data has changed since the checkpoint, or what decontamination leaves of it; start "
            "anew with another --output"
        )


def _same_rows(then: Sequence[TrainingFile], now: Sequence[TrainingFile]) -> bool:
    """Files and rows are the same, in order; a checkpoint of an earlier version has no hash of its rows."""
    return len(then) == len(now) and all(
        old.sha256 == new.sha256 and old.rows in (None, new.rows) and old.rows_sha256 in (None, new.rows_sha256)
        for old, new in zip(then, now, strict=True)
    )


def same_processes(checkpoint: Path, processes: int) -> None:
    """Raise UsageError unless so many processes made the checkpoint.

    Each has saved its own state of the random numbers and rollouts; without `batch_size` the batch would change.
    """
    before = lineage.read(checkpoint).training_processes
    if before not in (None, processes):
        raise UsageError(
            f"--resume: {checkpoint} was made by {before} processes, not {processes}; each has its own share of the "
            f"saved state. Go on with --num-processes {before}, or start anew with another --output"
        )


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, keys joined by dots."""
    if not isinstance(data, Mapping):
        return {prefix: data}
    found: dict[str, Any] = {}
    for key, value in data.items():
        found |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return found


def _free(key: str) -> bool:
    if key == POLICY:
        return False
    first, _, rest = key.partition(".")
    return first in FREE or (first == "trainer" and rest in FREE_ARGUMENTS)
