"""A backend that sends only requests whose responses are not cached."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from olmes_suite.errors import StorageError
from olmes_suite.models.base import Backend, Sent
from olmes_suite.models.cache.store import GREEDY, Address, Entry, ResponseCache
from olmes_suite.records import Request, Response

COMMIT_SECONDS, COMMIT_ENTRIES = 2.0, 500
"""Limits of a transaction: seconds since the last commit, number of responses."""

Answered = tuple[int, int, Response]


class CachedBackend(Backend):
    """Answers from `cache`, otherwise from `inner`. `display` is the model's name for `olmes cache show`.

    Greedy answers and log-likelihoods are cached; samples only if the engine draws them by seed, each under its seed.
    """

    def __init__(self, inner: Backend, cache: ResponseCache, display: str) -> None:
        super().__init__()
        self.inner, self.cache, self.display = inner, cache, display
        self.name, self.chat, self.max_length = inner.name, inner.chat, inner.max_length
        self.at_once, self.seeded, self.together = inner.at_once, inner.seeded, inner.together
        self.unused_arguments = inner.unused_arguments
        self.found = self.asked = 0
        self._pending: list[Entry] = []
        self._committed = time.monotonic()
        self._broken: str | None = None

    @property
    def stop_requested(self) -> bool:
        """The inner backend's flag."""
        return self.inner.stop_requested

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        self.inner.stop_requested = value

    @property
    def fingerprint(self) -> str:
        """The inner backend's value."""
        return self.inner.fingerprint

    @property
    def tokenizer_name(self) -> str:
        """The inner backend's value."""
        return self.inner.tokenizer_name

    def settings(self) -> dict[str, Any]:
        """Return the inner backend's settings, with the numbers of cached and new answers."""
        counts = {"folder": str(self.cache.path.parent), "found": self.found, "asked": self.asked}
        broken = self._broken or self.cache.fault
        return self.inner.settings() | {"cache": counts | ({"broken": broken} if broken else {})}

    def notes(self) -> list[str]:
        """Return the inner backend's notes, with a warning that the cache cannot see changes behind a server."""
        lines = self.inner.notes()
        if self.name == "openai":
            lines.append(
                "cached answers are identified by the server's address and the model's name: run `olmes cache prune` "
                "after the served model has changed"
            )
        return lines

    def sent(self, requests: Sequence[Request]) -> list[Sent | None]:
        """Return the inner backend's value."""
        return self.inner.sent(requests)

    def alternatives(self, requests: Sequence[Request], top: int) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        """Return the inner backend's alternatives, which are not cached."""
        return self.inner.alternatives(requests, top)

    def close(self) -> None:
        """Store the pending responses, then close the cache and the inner backend."""
        self._commit()
        self.cache.close()
        self.inner.close()

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Yield the cached answers first, then the others in order of arrival."""
        keys = [request.key(self.fingerprint) for request in requests]
        requested = [key for key, row in zip(keys, seeds, strict=True) if any(seed is not None for seed in row)]
        cached = self.cache.find(self.name, requested)
        remaining: list[list[int | None]] = [list(row) for row in seeds]
        for position, request in enumerate(requests):
            for sample, seed in enumerate(remaining[position]):
                place = self._address(request, keys[position], seed)
                if place is not None and place in cached:
                    remaining[position][sample] = None
                    self.found += 1
                    yield position, sample, cached[place]
        if not any(seed is not None for row in remaining for seed in row):
            return
        try:
            for position, sample, response in self.inner.run(requests, remaining):
                self.asked += 1
                place = self._address(requests[position], keys[position], remaining[position][sample])
                if place is not None:
                    self._keep(Entry(*place, requests[position].task, response))
                yield position, sample, response
        finally:
            self._commit()

    def _address(self, request: Request, key: str, seed: int | None) -> Address | None:
        """Return the cache address of an answer; None if it is not requested or not determined by the request."""
        if seed is None:
            return None
        if not request.temperature:
            return key, GREEDY
        return (key, seed) if self.seeded else None

    def _keep(self, entry: Entry) -> None:
        self._pending.append(entry)
        if len(self._pending) >= COMMIT_ENTRIES or time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        """Store the pending responses. If that fails, the run continues without the cache, and the manifest says so."""
        entries, self._pending, self._committed = self._pending, [], time.monotonic()
        if entries and self._broken is None:
            try:
                self.cache.add(self.name, self.fingerprint, self.display, entries)
            except StorageError as error:
                self._broken = str(error)
