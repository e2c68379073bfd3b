"""The base class of judges: it asks equal questions once, answers from the cache, and counts usage."""

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
"""Seconds between two lines of progress."""


class CachedJudge(ABC):
    """A judge with a cache. A subclass answers the questions that are not cached and stores each answer."""

    base_url: str | None = None

    def __init__(self, name: str, cache: AnswerCache) -> None:
        self.name, self.cache = name, cache
        self.usage = Usage()
        self.report_progress: Callable[[str], None] = lambda line: None
        """Called with a line of progress every `EVERY` seconds."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the answers."""

    @abstractmethod
    def answers(self, asks: Sequence[tuple[str, Question]]) -> Iterator[tuple[str, Answer]]:
        """Yield (key, answer) of questions that are not cached; each is stored before it is yielded.

        Raises RequestFailed.
        """

    def cost(self) -> float | None:
        """Return the cost of the requests in US dollars; None without known prices."""
        return None

    def record(self) -> dict[str, Any]:
        """Describe the judge for the manifest: model, address, fingerprint, usage and cost."""
        identity = {"model": self.name, "base_url": self.base_url, "fingerprint": self.fingerprint}
        return {**identity, **self.usage.as_json(), "cost_usd": self.cost()}

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield (position, answer) in order of arrival. Raises RequestFailed if a question fails permanently."""
        sharers: dict[str, list[int]] = {}
        for position, question in enumerate(questions):
            sharers.setdefault(self.cache.key(question), []).append(position)
        open_questions = []
        for key, positions in sharers.items():
            if (cached := self.cache.get(key)) is None:
                open_questions.append((key, questions[positions[0]]))
            else:
                yield from self._shared(positions, cached)
        if not open_questions:
            return
        last_report = time.monotonic()
        for number, (key, answer) in enumerate(self.answers(open_questions), 1):
            yield from self._shared(sharers[key], answer)
            if time.monotonic() - last_report > EVERY:
                last_report = time.monotonic()
                self.report_progress(f"{self.name}: {number} of {len(open_questions)} questions answered")

    def close(self) -> None:
        """Close the cache."""
        self.cache.close()

    def _shared(self, positions: Sequence[int], answer: Answer) -> Iterator[tuple[int, Answer]]:
        for number, position in enumerate(positions):
            shared = answer if number == 0 else replace(answer, cached=True)
            self.usage.add(shared.prompt_tokens, shared.completion_tokens, shared.cached)
            yield position, shared
