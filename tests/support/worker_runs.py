"""Watching the processes and the run of a command that runs workers."""

from __future__ import annotations

import time
from pathlib import Path


def only_run(runs: Path) -> Path:
    (found,) = (path.parent for path in runs.glob("*/results.json"))
    return found


def wait_for(condition, seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """Processes that this one started."""
    return [
        int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in (task / "children").read_text().split()
    ]
