"""Processes and devices that a stage trains on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from olmes_suite.errors import UsageError


def world_size() -> int:
    """Processes that train together, as torch's and accelerate's launchers say."""
    return int(os.environ.get("WORLD_SIZE", "1") or 1)


def is_main() -> bool:
    """This is the process that speaks, writes and evaluates."""
    return int(os.environ.get("RANK", "0") or 0) == 0


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process goes through the block alone, then the others do."""
    if world_size() == 1:
        yield
        return
    from accelerate import PartialState

    with PartialState().main_process_first():
        yield


def check_world(accelerator: Any) -> None:
    """Raise UsageError where processes that were started together would train each alone, or FSDP was asked for and
    accelerate runs something else: it says nothing of either."""
    kind = getattr(accelerator.distributed_type, "value", accelerator.distributed_type)
    if accelerator.num_processes != world_size():
        raise UsageError(f"{world_size()} processes were started, and accelerate knows of {accelerator.num_processes}")
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() in ("1", "true") and kind != "FSDP":
        raise UsageError(f"--launch-config asks for FSDP, and accelerate would run {kind} here: FSDP needs GPUs")


def is_sharded() -> bool:
    """FSDP or DeepSpeed were asked for: no process need hold the whole model."""
    asked = (os.environ.get(f"ACCELERATE_USE_{kind}", "") for kind in ("FSDP", "DEEPSPEED"))
    return any(value.lower() in ("1", "true") for value in asked)
