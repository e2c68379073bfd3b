"""The plan of a stage, computed before any weights are loaded: processes, batch, steps, tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import DataError, UsageError


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


def accumulation(batch_size: int | None, arguments: Mapping[str, Any], processes: int) -> int:
    """Return the gradient accumulation for `batch_size` rows per step. Raises UsageError if it does not divide."""
    if batch_size is None:
        return int(arguments.get("gradient_accumulation_steps", 1))
    at_once = int(arguments.get("per_device_train_batch_size", 8)) * processes
    if batch_size % at_once:
        raise UsageError(
            f"batch_size {batch_size} is not a multiple of the {at_once} rows of one pass "
            f"(trainer.per_device_train_batch_size × {processes} processes)"
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
        raise DataError(f"{rows} rows to train on are fewer than one batch of {batch}; add data or lower the batch")
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
