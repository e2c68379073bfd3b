"""What all judges share: equal questions are asked once, what the cache knows not at all, and everything is counted."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from olmes_suite.endpoints.usage import Usage
from olmes_suite.judges.base import Answer, Question
from olmes_suite.judges.cache import AnswerCache

EVERY = 10.0
"""Seconds between two lines about progress."""


class CachedJudge(ABC):
    """A judge whose answers are kept. A subclass says how open questions are answered, and keeps each answer."""

    base_url: str | None = None

    def __init__(self, name: str, cache: AnswerCache) -> None:
        self.name, self.cache = name, cache
        self.usage = Usage()
        self.told: Callable[[str], None] = lambda line: None
        """Hears now and then how many questions are answered."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of what decides its answers."""

    @abstractmethod
    def answers(self, asks: Sequence[tuple[str, Question]]) -> Iterator[tuple[str, Answer]]:
        """(key, answer) of open questions, each put into the cache before it is given. Raises RequestFailed."""

    def cost(self) -> float | None:
        """US dollars of what was asked; None where that has no price."""
        return None

    def record(self) -> dict[str, Any]:
        """For the manifest."""
        said = {"model": self.name, "base_url": self.base_url, "fingerprint": self.fingerprint}
        return {**said, **self.usage.as_json(), "cost_usd": self.cost()}

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """(position, answer), in order of arrival. Raises RequestFailed for a question that failed for good."""
        sharers: dict[str, list[int]] = {}
        for position, question in enumerate(questions):
            sharers.setdefault(self.cache.key(question), []).append(position)
        asks = []
        for key, positions in sharers.items():
            if (found := self.cache.get(key)) is None:
                asks.append((key, questions[positions[0]]))
            else:
                yield from self._shared(positions, found)
        if not asks:
            return
        told = time.monotonic()
        for number, (key, answer) in enumerate(self.answers(asks), 1):
            yield from self._shared(sharers[key], answer)
            if time.monotonic() - told > EVERY:
                told = time.monotonic()
                self.told(f"{self.name}: {number} of {len(asks)} questions answered")

    def close(self) -> None:
        """Close the cache."""
        self.cache.close()

    def _shared(self, positions: Sequence[int], answer: Answer) -> Iterator[tuple[int, Answer]]:
        for number, position in enumerate(positions):
            given = answer if number == 0 else replace(answer, cached=True)
            self.usage.add(given.prompt_tokens, given.completion_tokens, given.cached)
            yield position, given
