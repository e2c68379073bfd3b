"""Where a stage writes, whether something lies there already, and whether it may go on from it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.hooks import TrainingSet
from train_plugins import lineage

FREE = frozenset({"eval", "output", "final", "decontam", "gate"})
"""Keys that may change between the starts of one stage."""
POLICY = "decontam.on_contamination"
"""Not free: it decides which rows are trained on, and what the lineage says of those that were."""
FREE_ARGUMENTS = frozenset(
    {"logging_steps", "logging_strategy", "report_to", "run_name", "save_steps", "save_strategy", "save_total_limit",
     "dataloader_num_workers", "dataset_num_proc"}
)  # fmt: skip
"""Trainer arguments that do not touch the weights."""


def start(output: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from; None to begin. Raises UsageError for a folder that holds something else.

    A checkpoint that was being written when the stage was killed has no lineage and is removed.
    """
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: is a file")
    if not output.is_dir() or not any(_of_a_stage(path) for path in output.iterdir()):
        return None
    if not resume:
        raise UsageError(f"{output}: is not empty; --resume goes on with the stage there, or name another --output")
    whole = lineage.whole_checkpoints(output)
    for torn in set(output.glob("checkpoint-*")) - set(whole):
        shutil.rmtree(torn, ignore_errors=True)
    return whole[-1] if whole else None


def _of_a_stage(path: Path) -> bool:
    """A checkpoint, or any file; folders that hooks wrote before a stage was refused are no reason to stop."""
    return path.is_file() or path.name.startswith("checkpoint-")


def finished(output: Path, resume: bool) -> bool:
    """The stage in `output` has ended, and the user goes on with it."""
    return resume and (output / lineage.FILE).is_file()


def same_stage(checkpoint: Path, recipe: Mapping[str, Any], sets: Sequence[TrainingSet] = ()) -> None:
    """Raise UsageError unless the checkpoint was made by this recipe, over this data.

    TRL would go on with the saved schedule and ignore, say, a new learning rate without a word.
    """
    before = lineage.read(checkpoint)
    then, now = flatten(before["recipe"]), flatten(recipe)
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
    if sets and not _same_rows(before["data"], [lineage.data_line(one) for one in sets]):
        raise UsageError(
            "--resume: the training data has changed since the checkpoint, or what decontamination leaves of it; start "
            "anew with another --output"
        )


def _same_rows(then: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> bool:
    """Files and rows are the same, in order; a checkpoint of an earlier version has no hash of its rows."""
    return len(then) == len(now) and all(
        old[name] == new[name]
        for old, new in zip(then, now, strict=True)
        for name in ("sha256", "rows", "rows_sha256")
        if name in old
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
