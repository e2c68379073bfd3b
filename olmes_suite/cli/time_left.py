"""How long a run still takes, from the pace of its last minutes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

WINDOW = 300.0
"""Seconds of the pace that counts; the first documents of a run, which may be on disk already, are soon forgotten."""
LEAST = 5.0
"""Seconds before there is an estimate."""


class TimeLeft:
    """Estimates the time until all documents are finished."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self._clock, self._done = total, clock, 0
        self._marks: deque[tuple[float, int]] = deque()

    def advance(self, documents: int) -> None:
        """Count finished documents."""
        now = self._clock()
        self._done += documents
        if not self._marks or now - self._marks[-1][0] >= 1.0:
            self._marks.append((now, self._done))
        while len(self._marks) > 2 and now - self._marks[0][0] > WINDOW:
            self._marks.popleft()

    @property
    def seconds(self) -> float | None:
        """The estimate; None before there is a pace, and at the end."""
        if not self._marks or self._done >= self.total:
            return None
        started, before = self._marks[0]
        elapsed = self._clock() - started
        if elapsed < LEAST or self._done == before:
            return None
        return (self.total - self._done) * elapsed / (self._done - before)


def duration(seconds: float) -> str:
    """Format a duration as 40 s, 12 min or 3 h 20 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
