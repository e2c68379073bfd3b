"""The processes that a stage trains in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from olmes_suite.errors import UsageError

if TYPE_CHECKING:
    from accelerate import Accelerator


def world_size() -> int:
    """Return the number of processes that train together, as set by the launchers of torch and accelerate."""
    return int(os.environ.get("WORLD_SIZE", "1") or 1)


def is_main() -> bool:
    """Return whether this is the process that prints, writes and evaluates."""
    return int(os.environ.get("RANK", "0") or 0) == 0


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process run the block alone, and the others after it."""
    if world_size() == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def check_world(accelerator: Accelerator) -> None:
    """Raise UsageError if launched processes would train separately, or if accelerate would not use the requested FSDP.

    accelerate reports neither.
    """
    kind = getattr(accelerator.distributed_type, "value", accelerator.distributed_type)
    if accelerator.num_processes != world_size():
        raise UsageError(f"{world_size()} processes were started, but accelerate sees {accelerator.num_processes}")
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true") and kind != "FSDP":
        raise UsageError(f"--launch-config asks for FSDP, but accelerate would run {kind} here: FSDP needs GPUs")


def is_sharded() -> bool:
    """Return whether FSDP or DeepSpeed is on, so that a process may not hold the whole model."""
    flags = (os.environ.get(f"ACCELERATE_USE_{kind}", "") for kind in ("FSDP", "DEEPSPEED"))
    return any(value.lower() in ("1", "true") for value in flags)


def is_deepspeed() -> bool:
    """Return whether DeepSpeed is on, whose engine holds gradients and takes the steps."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() in ("1", "true")
