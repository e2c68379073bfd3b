"""Ctrl-C while a model answers: the first waits for what is under way, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from olmes_suite.models.base import Backend


@contextmanager
def gentle_interrupt(backend: Backend, report: Callable[[str], None], said: str) -> Iterator[None]:
    """Let the first Ctrl-C ask the backend to stop, and the second raise KeyboardInterrupt.

    `said` is reported at the first one, with what the second does. Outside the main thread, signals are the caller's.
    """

    def handle(number: int, frame: object) -> None:
        if backend.stop_requested:
            raise KeyboardInterrupt
        backend.stop_requested = True
        report(f"{said}; press Ctrl-C again to stop at once")

    try:
        previous = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
