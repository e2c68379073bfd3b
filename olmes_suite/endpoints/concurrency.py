"""Concurrent requests, as many as speed up the server."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import requests

GAIN = 1.1
"""The factor by which answers a second must rise before the limit is raised again."""
HOLD = 8
"""Rounds without a change after a raise that did not help, or after a sign that the server is overloaded."""
ROUNDS = 2
"""Answers per concurrent request over which a rate is measured."""

Job = TypeVar("Job")
Result = TypeVar("Result")


class Limit:
    """The number of concurrent requests, doubled while answers a second rise and halved where the server is overloaded.

    Times are in seconds of any monotonic clock. Thread-safe.
    """

    def __init__(self, start: int, most: int) -> None:
        self.value, self.most = min(start, most), most
        self._lock = threading.Lock()
        self._answers, self._since = 0, 0.0
        self._lower, self._rate = self.value, 0.0
        self._hold = 0
        self._changed = 0.0

    def begin(self, now: float) -> None:
        """Start measuring after a pause, so that no rate includes the pause."""
        with self._lock:
            self._answers, self._since = 0, now

    def answered(self, now: float) -> None:
        """Count an answer."""
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
        """Lower the limit after the server rejected a request sent at `sent`. Rejections of one round count once."""
        with self._lock:
            if sent < self._changed:
                return
            self.value = self._lower = max(1, self.value // 2)
            self._changed, self._hold = now, HOLD
            self._answers, self._since = 0, now


class Crowd(Generic[Job, Result]):
    """Threads that work on a list of jobs, as many as a Limit allows.

    The threads are daemons, so that Ctrl-C does not wait for a slow server.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        work: Callable[[requests.Session, Job, threading.Event], Iterable[Result]],
        limit: Limit,
    ) -> None:
        """Prepare the jobs. `work` yields the results of a job as they come, and ends early when its event is set."""
        self.stop = threading.Event()
        self._work, self._limit = work, limit
        self._jobs = deque(jobs)
        self._events: queue.SimpleQueue[tuple[Result] | BaseException | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0

    def results(self, leave: Callable[[], bool] = lambda: False) -> Iterator[Result]:
        """Yield results in order of arrival. No new job starts once `leave` returns True, or after a failure.

        A failure is raised after the running jobs have ended.
        """
        failure: BaseException | None = None
        try:
            self._limit.begin(time.monotonic())
            with self._lock:
                running = self._add_threads()
            while running:
                if leave():
                    self.stop.set()
                try:
                    event = self._events.get(timeout=0.2)
                except queue.Empty:
                    continue
                if event is None:
                    running = False
                elif isinstance(event, BaseException):
                    failure = failure or event
                else:
                    yield event[0]
        finally:
            self.stop.set()
        if failure is not None:
            raise failure

    def _add_threads(self) -> bool:
        """Start threads up to the limit. Returns whether there are any."""
        while self._threads < min(self._limit.value, self._threads + len(self._jobs)):
            self._threads += 1
            threading.Thread(target=self._serve, daemon=True).start()
        return self._threads > 0

    def _next(self) -> Job | None:
        """Return the next job, or None where there are more threads than the limit or no jobs left."""
        with self._lock:
            if self.stop.is_set() or not self._jobs or self._threads > self._limit.value:
                self._threads -= 1
                if not self._threads:
                    self._events.put(None)
                return None
            job = self._jobs.popleft()
            self._add_threads()
            return job

    def _serve(self) -> None:
        with requests.Session() as session:
            while (job := self._next()) is not None:
                try:
                    for result in self._work(session, job, self.stop):
                        self._events.put((result,))
                except BaseException as error:  # raised by `results`
                    self.stop.set()
                    self._events.put(error)
