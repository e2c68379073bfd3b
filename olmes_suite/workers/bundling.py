"""Answers sent several at a time, none of them held back for longer than a moment."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from olmes_suite.workers.scheduler import Answered

BUNDLE = 0.2
"""Seconds for which an answer is held back at most, to be sent together with others."""


class Bundles:
    """Takes answers, and gives them to `send` in lists, from a thread of its own: an engine at work on its next batch
    holds back none of those it has finished. On leaving, what is left is sent.

    An error of `send` is raised on leaving; from then on nothing is sent.
    """

    def __init__(self, send: Callable[[list[Answered]], None], seconds: float = BUNDLE) -> None:
        self._send, self._seconds = send, seconds
        self._held: list[Answered] = []
        self._over = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="bundles", daemon=True)

    def __enter__(self) -> Bundles:
        self._thread.start()
        return self

    def __exit__(self, *args: object) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def put(self, answer: Answered) -> None:
        """Send an answer soon."""
        with self._changed:
            self._held.append(answer)
            if len(self._held) == 1:
                self._changed.notify()

    def _work(self) -> None:
        sent = -self._seconds
        while bundle := self._next(sent):
            try:
                self._send(bundle)
            except BaseException as error:  # raised where the answers come from
                self._error = error
                return
            sent = time.monotonic()

    def _next(self, sent: float) -> list[Answered]:
        """What is held, `seconds` after the last were sent; empty when all is over."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._over)
            self._changed.wait_for(lambda: self._over, max(0.0, sent + self._seconds - time.monotonic()))
            bundle, self._held = self._held, []
            return bundle
