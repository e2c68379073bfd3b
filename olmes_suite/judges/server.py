"""A judge on an OpenAI-compatible server: concurrent questions, each retried until it is answered."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import requests

from olmes_suite.endpoints.client import TRIES, Endpoint
from olmes_suite.endpoints.concurrency import Crowd, Limit
from olmes_suite.endpoints.pace import Pace
from olmes_suite.endpoints.usage import cost
from olmes_suite.files import cache_folder
from olmes_suite.judges.base import Answer, Question
from olmes_suite.judges.bodies import answer_of, body_of, path_of
from olmes_suite.judges.cache import AnswerCache
from olmes_suite.judges.cached_judge import CachedJudge
from olmes_suite.records import canonical_json, sha256

Ask = tuple[str, Question]


class ServerJudge(CachedJudge):
    """Asks a served model through /chat/completions or /completions; the key is `$OPENAI_API_KEY`, if any.

    Sends only the questions. A request without a valid answer is retried, up to `tries` attempts in all (see
    `olmes_suite.endpoints.client`); then the question fails.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        concurrency: int = 16,
        tries: int = TRIES,
        delay: float = 0.5,
        timeout: float | None = None,
        cache: Path | None = None,
        per_minute: float | None = None,
    ) -> None:
        """`delay`: seconds before the second attempt, doubled each time; `timeout`: seconds without data in a request,
        by default 60 plus a quarter of a second for each token of the limit; `per_minute`: most requests a minute."""
        self.base_url = base_url.rstrip("/")
        self._fingerprint = sha256(canonical_json({"served": name}))
        super().__init__(name, AnswerCache(cache or cache_folder(), f"{self._fingerprint} {self.base_url}", name))
        self.timeout = timeout
        self._abandoned = threading.Event()
        self.limit = Limit(concurrency, concurrency)
        pace = Pace(per_minute) if per_minute else None
        self.endpoint = Endpoint(name, self.base_url, self.usage, self.limit, tries=tries, delay=delay, pace=pace)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the served name. The address is not included, because it does not decide the answers."""
        return self._fingerprint

    def cost(self) -> float | None:
        """Return the cost by OpenAI's published prices; None for other addresses."""
        return cost(self.name, str(self.base_url), self.usage)

    def answers(self, asks: Sequence[Ask]) -> Iterator[tuple[str, Answer]]:
        """Yield (key, answer) in order of arrival.

        If a question fails permanently, no further one is sent, the answers to open requests are awaited and cached,
        and RequestFailed is raised. Raises RuntimeError once the judge is abandoned.
        """
        return Crowd(asks, self._answer, self.limit).results(self._leave)

    def abandon(self) -> None:
        """Wait for no more answers, in whatever thread they are awaited."""
        self._abandoned.set()

    def _leave(self) -> bool:
        if self._abandoned.is_set():
            raise RuntimeError("the judge was closed while it was asked")
        return False

    def _answer(self, session: requests.Session, ask: Ask, stop: threading.Event) -> Iterator[tuple[str, Answer]]:
        key, question = ask
        timeout = self.timeout or 60.0 + 0.25 * question.max_tokens
        answer = self.endpoint.post(
            session,
            path_of(question),
            body_of(question, self.name),
            lambda raw: answer_of(raw, question),
            timeout=timeout,
            stop=stop,
        )
        if answer is not None:
            self.cache.put(key, answer)
            yield key, answer
