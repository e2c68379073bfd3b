"""Limits on the resources of a program."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one program."""

    cpu: float = 3.0
    """Processor seconds. The kernel's limit is rounded up to whole seconds."""
    memory: int = 2 * 2**30
    """Bytes of address space of each process, and of resident memory of all processes together."""
    file_size: int = 64 * 2**20
    """Bytes of one file."""
    scratch: int = 256 * 2**20
    """Bytes in the program's private folders."""
    processes: int = 64
    """Processes and threads at one time."""
    files: int = 256
    """Open files of each process."""
    output: int = 2**20
    """Bytes of stdout, where stdout is read."""

    @property
    def idle(self) -> float:
        """Seconds that a program may wait or sleep; waiting for a busy processor does not count."""
        return 1.5 * self.cpu + 2

    @property
    def wall(self) -> float:
        """Seconds that a program may take from start to end."""
        return 4 * self.cpu + 10

    def as_json(self) -> dict[str, Any]:
        """Return the limits in the form that the jail's server reads."""
        return {**asdict(self), "idle": self.idle, "wall": self.wall}
