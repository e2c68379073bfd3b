"""Many requests under way at a time: as many as the server has use for."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import requests

GAIN = 1.1
"""Answers a second must rise by this factor for more requests to have helped."""
HOLD = 8
"""Rounds without a change after one that did not help, or after the server said that it has too much to do."""
ROUNDS = 2
"""Answers per request under way that a rate is measured over."""

Job = TypeVar("Job")
Found = TypeVar("Found")


class Limit:
    """How many requests may be under way: doubled while that brings more answers a second, halved when told off.

    Times are in seconds of any steady clock. Safe from several threads.
    """

    def __init__(self, start: int, most: int) -> None:
        self.value, self.most = min(start, most), most
        self._lock = threading.Lock()
        self._answers, self._since = 0, 0.0
        self._lower, self._rate = self.value, 0.0
        self._hold = 0
        self._changed = 0.0

    def begin(self, now: float) -> None:
        """Work starts after a pause, which no rate is to contain."""
        with self._lock:
            self._answers, self._since = 0, now

    def answered(self, now: float) -> None:
        """A request was answered."""
        with self._lock:
            self._answers += 1
            if self._answers < ROUNDS * self.value or now <= self._since:
                return
            rate = self._answers / (now - self._since)
            self._answers, self._since = 0, now
            if self._hold:
                self._hold -= 1
                if not self._hold:
                    self._rate = 0.0
            elif rate > GAIN * self._rate:
                self._rate, self._lower = rate, self.value
                self.value = min(self.most, 2 * self.value)
            else:
                self.value, self._hold = self._lower, HOLD

    def pushed_back(self, sent: float, now: float) -> None:
        """The server had too much to do, with a request sent at `sent`. One round of such answers counts once."""
        with self._lock:
            if sent < self._changed:
                return
            self.value = self._lower = max(1, self.value // 2)
            self._changed, self._hold = now, HOLD
            self._answers, self._since = 0, now


class Crowd(Generic[Job, Found]):
    """Threads that do a list of jobs, as many as a Limit allows. They are daemons: Ctrl-C waits for no slow server."""

    def __init__(
        self,
        jobs: Sequence[Job],
        work: Callable[[requests.Session, Job, threading.Event], Iterable[Found]],
        limit: Limit,
    ) -> None:
        """`work` gives what it finds as it finds it, and ends early when its event is set."""
        self.stop = threading.Event()
        self._work, self._limit = work, limit
        self._jobs = deque(jobs)
        self._done: queue.SimpleQueue[tuple[Found] | BaseException | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0

    def results(self, leave: Callable[[], bool] = lambda: False) -> Iterator[Found]:
        """What is found, in order of arrival. Once `leave` is true, no new job is begun.

        Nor is one after a failure; it is raised when no job is under way any more.
        """
        failure: BaseException | None = None
        try:
            self._limit.begin(time.monotonic())
            with self._lock:
                running = self._staff()
            while running:
                if leave():
                    self.stop.set()
                try:
                    found = self._done.get(timeout=0.2)
                except queue.Empty:
                    continue
                if found is None:
                    running = False
                elif isinstance(found, BaseException):
                    failure = failure or found
                else:
                    yield found[0]
        finally:
            self.stop.set()
        if failure is not None:
            raise failure

    def _staff(self) -> bool:
        """Start threads up to the limit; True if any are there."""
        while self._threads < min(self._limit.value, self._threads + len(self._jobs)):
            self._threads += 1
            threading.Thread(target=self._serve, daemon=True).start()
        return self._threads > 0

    def _next(self) -> Job | None:
        """The next job; None where the thread is one too many or nothing is left."""
        with self._lock:
            if self.stop.is_set() or not self._jobs or self._threads > self._limit.value:
                self._threads -= 1
                if not self._threads:
                    self._done.put(None)
                return None
            job = self._jobs.popleft()
            self._staff()
            return job

    def _serve(self) -> None:
        with requests.Session() as session:
            while (job := self._next()) is not None:
                try:
                    for found in self._work(session, job, self.stop):
                        self._done.put((found,))
                except BaseException as error:  # handed to the thread that asks
                    self.stop.set()
                    self._done.put(error)
