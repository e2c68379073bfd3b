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


AT_LEAST = {
    "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_length": 1, "max_completion_length": 1,
    "save_steps": 0, "logging_steps": 0, "weight_decay": 0, "max_grad_norm": 0, "save_total_limit": 1,
    "warmup_steps": 0, "learning_rate": 0,
}  # fmt: skip
"""Smallest valid values of trainer arguments; below them the libraries fail late, or silently train nothing."""


def check_numbers(arguments: Mapping[str, Any], seed: int) -> None:
    """Raise UsageError for numbers with which the trainer cannot train."""
    for name, least in AT_LEAST.items():
        value = arguments.get(name)
        if isinstance(value, int | float) and not value >= least:
            raise UsageError(f"trainer.{name} must be at least {least}, not {value}")
    epochs, steps = arguments.get("num_train_epochs", 3), arguments.get("max_steps", -1)
    if not steps > 0 and not epochs > 0:
        raise UsageError(f"trainer.num_train_epochs {epochs} trains nothing; it must be above 0")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must lie between 0 and 2^32 - 1, not {seed}")


def plan(rows: int, tokens: int, arguments: Mapping[str, Any], processes: int) -> Plan:
    """Count the steps as transformers' trainer does. Raises DataError for fewer rows than one batch.

    transformers would silently run a single small step, or none.
    """
    each = int(arguments.get("per_device_train_batch_size", 8))
    accumulated = int(arguments.get("gradient_accumulation_steps", 1))
    batch = each * processes * accumulated
    if rows < batch:
        raise DataError(f"{rows} rows to train on are fewer than one batch of {batch}; add data or lower the batch")
    passes = math.ceil(rows / (each * processes))
    steps_per_epoch = max(math.ceil(passes / accumulated), 1)
    epochs = float(arguments.get("num_train_epochs", 3.0))
    limit = int(arguments.get("max_steps", -1))
    steps = limit if limit > 0 else math.ceil(epochs * steps_per_epoch)
    return Plan(rows, batch, accumulated, processes, steps, round(tokens * steps / steps_per_epoch))
