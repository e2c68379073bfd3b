"""A backend that asks only for what the response cache does not hold."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from olmes_suite.errors import StorageError
from olmes_suite.models.base import Backend
from olmes_suite.models.cache.store import GREEDY, Address, Entry, ResponseCache
from olmes_suite.records import Request, Response

COMMIT_SECONDS, COMMIT_ENTRIES = 2.0, 500
"""Responses are kept in transactions of so many, or so long."""

Answered = tuple[int, int, Response]


class CachedBackend(Backend):
    """Answers of `inner`, from `cache` where it has them. `display` is the model's name for `olmes cache show`.

    Greedy answers and log-likelihoods are kept; samples only where the engine draws them by their seeds, each under
    its own.
    """

    def __init__(self, inner: Backend, cache: ResponseCache, display: str) -> None:
        super().__init__()
        self.inner, self.cache, self.display = inner, cache, display
        self.name, self.chat, self.max_length = inner.name, inner.chat, inner.max_length
        self.at_once, self.seeded, self.together = inner.at_once, inner.seeded, inner.together
        self.found = self.asked = 0
        self._held: list[Entry] = []
        self._committed = time.monotonic()
        self._broken: str | None = None

    @property
    def stop_requested(self) -> bool:
        """The inner backend is told at once."""
        return self.inner.stop_requested

    @stop_requested.setter
    def stop_requested(self, value: bool) -> None:
        self.inner.stop_requested = value

    @property
    def fingerprint(self) -> str:
        """The inner backend's."""
        return self.inner.fingerprint

    @property
    def tokenizer_name(self) -> str:
        """The inner backend's."""
        return self.inner.tokenizer_name

    def settings(self) -> dict[str, Any]:
        """The inner backend's, and how many of this session's answers came from the cache."""
        counts = {"folder": str(self.cache.path.parent), "found": self.found, "asked": self.asked}
        broken = self._broken or self.cache.fault
        return self.inner.settings() | {"cache": counts | ({"broken": broken} if broken else {})}

    def notes(self) -> list[str]:
        """The inner backend's, and what a cache cannot know of a server."""
        lines = self.inner.notes()
        if self.name == "openai":
            lines.append(
                "cached answers are told apart by the server's address and the model's name: after the model behind "
                "them has changed, `olmes cache prune`"
            )
        return lines

    def alternatives(self, requests: Sequence[Request], top: int) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        """Not cached."""
        return self.inner.alternatives(requests, top)

    def close(self) -> None:
        """Keep what is held, then close both."""
        self._commit()
        self.cache.close()
        self.inner.close()

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """First what is in the cache, then the rest as it comes."""
        keys = [request.key(self.fingerprint) for request in requests]
        wanted = [key for key, row in zip(keys, seeds, strict=True) if any(seed is not None for seed in row)]
        known = self.cache.find(self.name, wanted)
        left: list[list[int | None]] = [list(row) for row in seeds]
        for position, request in enumerate(requests):
            for sample, seed in enumerate(left[position]):
                place = self._address(request, keys[position], seed)
                if place is not None and place in known:
                    left[position][sample] = None
                    self.found += 1
                    yield position, sample, known[place]
        if not any(seed is not None for row in left for seed in row):
            return
        try:
            for position, sample, response in self.inner.run(requests, left):
                self.asked += 1
                place = self._address(requests[position], keys[position], left[position][sample])
                if place is not None:
                    self._keep(Entry(*place, requests[position].task, response))
                yield position, sample, response
        finally:
            self._commit()

    def _address(self, request: Request, key: str, seed: int | None) -> Address | None:
        """Where an answer is kept; None where it is not wanted, or not a function of what is asked."""
        if seed is None:
            return None
        if not request.temperature:
            return key, GREEDY
        return (key, seed) if self.seeded else None

    def _keep(self, entry: Entry) -> None:
        self._held.append(entry)
        if len(self._held) >= COMMIT_ENTRIES or time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit()

    def _commit(self) -> None:
        """A cache that fails costs time, never answers: the run goes on without, and the manifest says so."""
        held, self._held, self._committed = self._held, [], time.monotonic()
        if held and self._broken is None:
            try:
                self.cache.add(self.name, self.fingerprint, self.display, held)
            except StorageError as error:
                self._broken = str(error)
