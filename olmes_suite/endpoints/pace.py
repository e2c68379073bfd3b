"""A limit on the number of requests a minute."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Pace:
    """Spreads requests evenly, at most `per_minute`. Thread-safe."""

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap = 60.0 / per_minute
        self._clock = clock
        self._next = clock()
        self._lock = threading.Lock()

    def wait(self, stop: threading.Event) -> bool:
        """Wait for the next free moment. Returns True where `stop` was set meanwhile."""
        with self._lock:
            now = self._clock()
            start = max(self._next, now)
            self._next = start + self._gap
        return stop.wait(start - now) if start > now else stop.is_set()
