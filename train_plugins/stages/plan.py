"""The plan of a stage, computed before any weights are loaded: processes, batch, steps, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import DataError, UsageError
from olmes_suite.wording import count


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a stage."""

    rows: int
    """Rows in one epoch; with packing, the approximate number of sequences."""
    batch: int
    """Rows in one optimiser step over all processes."""
    accumulation: int
    """Forward passes of each process in one optimiser step."""
    processes: int
    steps: int
    tokens: int
    """Approximate number of tokens over all epochs."""


DEFAULT_ROWS = 8
"""Rows of one forward pass of a process where nothing else is said: the default of transformers."""


def pass_rows(batch_size: int | None, arguments: Mapping[str, Any], processes: int) -> int:
    """Return the rows of one forward pass of a process: those of the trainer's arguments, if they say so.

    Otherwise the default, or for a batch that it does not divide the largest number below it that does.
    """
    given = arguments.get("per_device_train_batch_size")
    if given is not None or batch_size is None or batch_size % processes:
        return int(given or DEFAULT_ROWS)
    return next(rows for rows in range(DEFAULT_ROWS, 0, -1) if batch_size // processes % rows == 0)


def accumulation(batch_size: int | None, arguments: Mapping[str, Any], processes: int) -> int:
    """Return the gradient accumulation for `batch_size` rows per step. Raises UsageError if it does not divide."""
    if batch_size is None:
        return int(arguments.get("gradient_accumulation_steps", 1))
    at_once = int(arguments.get("per_device_train_batch_size", DEFAULT_ROWS)) * processes
    if batch_size % at_once:
        if "per_device_train_batch_size" not in arguments:
            raise UsageError(f"batch_size {batch_size} is not a multiple of the {count(processes, 'process')}")
        raise UsageError(
            f"batch_size {batch_size} is not a multiple of the {count(at_once, 'row')} of one pass "
            f"(trainer.per_device_train_batch_size × {count(processes, 'process')})"
        )
    return batch_size // at_once


def plan(rows: int, tokens: int, arguments: Mapping[str, Any], processes: int) -> Plan:
    """Count the steps as transformers' trainer does. Raises DataError for fewer rows than one batch.

    transformers would silently run a single small step, or none.
    """
    each = int(arguments.get("per_device_train_batch_size", 8))
    accumulated = int(arguments.get("gradient_accumulation_steps", 1))
    batch = each * processes * accumulated
    if rows < batch:
        verb = "is" if rows == 1 else "are"
        raise DataError(
            f"{count(rows, 'row')} to train on {verb} fewer than one batch of {batch}; add data or lower batch_size"
        )
    passes = rows / (each * processes)
    passes = math.floor(passes) if arguments.get("dataloader_drop_last") else math.ceil(passes)
    steps_per_epoch = max(math.ceil(passes / accumulated), 1)
    epochs = float(arguments.get("num_train_epochs", 3.0))
    limit = int(arguments.get("max_steps", -1))
    steps = limit if limit > 0 else math.ceil(epochs * steps_per_epoch)
    return Plan(rows, batch, accumulated, processes, steps, round(tokens * steps / steps_per_epoch))


def notes(arguments: Mapping[str, Any], steps: int) -> list[str]:
    """Return a note if the stage ends before its learning rate has risen."""
    warmup = arguments.get("warmup_steps") or 0
    if warmup < 1 or warmup < steps:
        return []
    return [
        f"note: the {steps} steps end within trainer.warmup_steps {warmup}: the learning rate does not reach its value"
    ]
