"""How much fits into memory: rows and tokens at a time, halved where that was too much."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import TypeVar

import torch

OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")
SHARE = 0.3
"""Of the free memory that keys and values may take."""

Found = TypeVar("Found")


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device; 2 GiB where the machine does not tell."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own reserve
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            lines = dict(line.split(":", 1) for line in file)
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 2 * 1024**3


class Budget:
    """Rows in a batch, and new tokens in one forward pass."""

    def __init__(self, rows: int, tokens: int) -> None:
        self.rows, self.tokens = rows, tokens

    def rows_for(self, width: int, each: int, device: torch.device) -> int:
        """Rows of at most `width` tokens, `each` bytes a token, that fit."""
        return max(1, min(self.rows, int(SHARE * free_memory(device)) // max(1, width * each)))

    def halve(self, rows: int, device: torch.device) -> bool:
        """Remember that `rows` were too many; False where there is nothing left to halve."""
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if rows <= 1 and self.tokens <= 256:
            return False
        self.rows, self.tokens = max(1, (rows + 1) // 2), max(256, self.tokens // 2)
        return True


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out.

    torch's CPU allocator, and CUDA without room for its context, raise a RuntimeError that only its text tells apart.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in OUT_OF_MEMORY)


def unless_out_of_memory(work: Callable[[], Found]) -> Found | None:
    """What `work` gives; None where memory ran out."""
    try:
        return work()
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    return None
