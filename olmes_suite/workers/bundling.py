"""Bundling of answers into messages with a short delay."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from olmes_suite.workers.scheduler import Answered

BUNDLE = 0.2
"""Seconds for which an answer waits at most, to be sent together with others."""


class Bundles:
    """A context manager that collects answers and passes them to `send` in lists, in its own thread.

    Finished answers are sent while the engine computes its next batch; the rest is sent on exit. After an error of
    `send` nothing more is sent, and the error is raised on exit.
    """

    def __init__(self, send: Callable[[list[Answered]], None], seconds: float = BUNDLE) -> None:
        self._send, self._seconds = send, seconds
        self._queued: list[Answered] = []
        self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="bundles", daemon=True)

    def __enter__(self) -> Bundles:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def put(self, answer: Answered) -> None:
        """Queue an answer for the next bundle."""
        with self._changed:
            self._queued.append(answer)
            if len(self._queued) == 1:
                self._changed.notify()

    def _work(self) -> None:
        sent_at = -self._seconds
        while bundle := self._next(sent_at):
            try:
                self._send(bundle)
            except BaseException as error:  # raised on exit, in the thread of the engine
                self._error = error
                return
            sent_at = time.monotonic()

    def _next(self, sent_at: float) -> list[Answered]:
        """Wait until `seconds` after the last bundle and return the queued answers; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queued or self._closed)
            self._changed.wait_for(lambda: self._closed, max(0.0, sent_at + self._seconds - time.monotonic()))
            bundle, self._queued = self._queued, []
            return bundle
