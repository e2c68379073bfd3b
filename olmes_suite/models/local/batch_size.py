"""Batch sizes in rows and tokens, halved where memory runs out."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
SHARE = 0.3
"""The share of the free memory that keys and values may take."""

Result = TypeVar("Result")


def free_memory(device: torch.device) -> int:
    """Return the free bytes on the device, 2 GiB where the machine does not report them."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(
            device
        )  # reserved by torch, which can reuse it
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2 * 1024**3


class Budget:
    """The largest number of rows in a batch, and of new tokens in one forward pass."""

    def __init__(self, rows: int, tokens: int) -> None:
        self.rows, self.tokens = rows, tokens

    def rows_for(self, width: int, each: int, device: torch.device) -> int:
        """Return the number of rows that fit, with at most `width` tokens of `each` bytes."""
        return max(1, min(self.rows, int(SHARE * free_memory(device)) // max(1, width * each)))

    def halve(self, rows: int, device: torch.device) -> bool:
        """Halve the batch after `rows` did not fit. Returns False where it cannot be halved further."""
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if rows <= 1 and self.tokens <= 256:
            return False
        self.rows, self.tokens = max(1, (rows + 1) // 2), max(256, self.tokens // 2)
        return True


def out_of_memory(error: BaseException) -> bool:
    """Return whether the error says that memory ran out. torch's CPU allocator raises a plain RuntimeError."""
    return any(sign in str(error) for sign in OUT_OF_MEMORY)


def unless_out_of_memory(work: Callable[[], Result]) -> Result | None:
    """Return the result of `work`, or None where memory ran out."""
    try:
        return work()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return None
