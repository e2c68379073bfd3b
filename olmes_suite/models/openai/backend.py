"""Any OpenAI-compatible server as an engine: `vllm serve`, SGLang, hosted APIs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests

from olmes_suite.endpoints.client import TRIES, Endpoint, Refused
from olmes_suite.endpoints.concurrency import Crowd, Limit
from olmes_suite.endpoints.usage import Usage, cost
from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.base import Backend
from olmes_suite.models.openai import bodies, prompt_logprobs
from olmes_suite.models.openai.context_limit import Room, context_in, cut, fitted, other_room
from olmes_suite.records import Request, Response, canonical_json, sha256

START = 16
"""Requests under way at first."""
MOST = 256
"""And at most, unless said otherwise."""
TIMEOUT, PER_TOKEN = 120.0, 0.5
"""Seconds of silence in one request: so many, and so many more for each token of the longest answer."""
TURNS = 6
"""A request is sent: as it is, with the other name of its limit, to learn its prompt's length, with room, cut."""

Answered = tuple[int, int, Response]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request and the samples that are wanted of it."""

    position: int
    request: Request
    wanted: tuple[tuple[int, int], ...]
    """(sample, seed)"""


class OpenAIBackend(Backend):
    """The model that a server knows as `model`; the key is `$OPENAI_API_KEY`, if any.

    `prefill`: `send` gives an assistant prefix to the server as the start of the last message; `drop` leaves it out,
    for servers that cannot go on from one. `concurrency` is the most requests under way; how many there are is found
    out. `delay` and `timeout` are in seconds.
    Raises UsageError for a wrong address, option or name, ModelError where no server listens.
    """

    name = "openai"
    seeded = False

    def __init__(
        self,
        model: str,
        base_url: str,
        *,
        prefill: str = "send",
        concurrency: int = MOST,
        tries: int = TRIES,
        delay: float = 0.5,
        timeout: float | None = None,
    ) -> None:
        super().__init__()
        if not base_url.startswith(("http://", "https://")):
            raise UsageError(f"--base-url {base_url}: not a URL such as http://localhost:8000/v1")
        if prefill not in ("send", "drop"):
            raise UsageError(f"--prefill {prefill}: use send or drop")
        self.model, self.drop_prefix, self.timeout = model, prefill == "drop", timeout
        self.usage = Usage()
        self.limit = Limit(START, concurrency)
        self.endpoint = Endpoint(model, base_url, self.usage, self.limit, tries=tries, delay=delay)
        self._takes_n = True
        self._limit_name = "max_tokens"
        self._lock = threading.Lock()
        self._listed = self._check_name()

    def _check_name(self) -> bool:
        """Whether the server lists its models. Raises UsageError where it does and this is none of them."""
        try:
            found = self.endpoint.models()
        except Refused as error:
            raise ModelError(str(error)) from None
        if found is not None and self.model not in found:
            raise UsageError(f"--model {self.model}: {self.endpoint.base_url} serves {bodies.names(found)}")
        return found is not None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of served name, address and settings: what lies behind them is not to be seen from here."""
        return sha256(canonical_json({"served": self.model, "base_url": self.endpoint.base_url, "settings": self._own}))

    @property
    def _own(self) -> dict[str, Any]:
        return {"prefill": "drop"} if self.drop_prefix else {}

    @property
    def tokenizer_name(self) -> str:
        """Part of lm-eval's cache keys."""
        return f"{self.endpoint.base_url} {self.model}"

    def settings(self) -> dict[str, Any]:
        """Address, name, settings, and what this process asked for and paid."""
        paid = cost(self.model, self.endpoint.base_url, self.usage)
        return {
            "base_url": self.endpoint.base_url,
            "served": self.model,
            "prefill": "drop" if self.drop_prefix else "send",
            "concurrency": self.limit.value,
            "several_samples_at_once": self._takes_n,
            "token_limit": self._limit_name,
            "usage": {**self.usage.as_json(), "cost_usd": paid},
        }

    def notes(self) -> list[str]:
        """What of the prompts is left out, and what could not be checked."""
        lines = []
        if self.drop_prefix:
            lines.append("assistant prefixes are left out of the prompts (--prefill drop): scores may differ")
        if not self._listed:
            lines.append(f"{self.endpoint.base_url} lists no models: the name {self.model} was not checked")
        return lines

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Answers as they arrive. After a failure those under way are awaited and given, then it is raised."""
        asks = []
        for position, (request, row) in enumerate(zip(requests, seeds, strict=True)):
            wanted = tuple((sample, seed) for sample, seed in enumerate(row) if seed is not None)
            if wanted:
                asks.append(Ask(position, request, wanted))
        yield from Crowd(asks, self._answer, self.limit).results(lambda: self.stop_requested)

    def _answer(self, session: requests.Session, ask: Ask, stop: threading.Event) -> Iterator[Answered]:
        try:
            if ask.request.kind == "loglikelihood":
                yield from self._score(session, ask, stop)
            else:
                yield from self._generate(session, ask, stop)
        except bodies.OtherModel as error:
            raise RequestFailed(f"{self.endpoint.base_url}: {error}") from None

    # generation ----------------------------------------------------------------------------------------------------

    def _generate(self, session: requests.Session, ask: Ask, stop: threading.Event) -> Iterator[Answered]:
        """All samples in one request; one by one, each with its own seed, where the server does not take `n`."""
        left = ask.wanted
        if len(left) > 1 and self._takes_n:
            try:
                found = self._send(session, ask.request, left, stop)
            except Refused as error:
                if error.status not in (400, 422):
                    raise
                found = []
            if found is None:
                return
            for (sample, _), response in zip(left, found, strict=False):
                yield ask.position, sample, response
            left = left[len(found) :]
            self._takes_n = self._takes_n and not left
        for one in left:
            found = self._send(session, ask.request, (one,), stop)
            if found is None:
                return
            yield ask.position, one[0], found[0]

    def _send(
        self, session: requests.Session, request: Request, wanted: tuple[tuple[int, int], ...], stop: threading.Event
    ) -> list[Response] | None:
        """Responses to the wanted samples, or to the first of them; None if `stop` was set. Raises RequestFailed."""
        room, most = Room(), bodies.limit_of(request)
        for _ in range(TURNS):
            limit, samples = self._limit_name, 1 if room.context else len(wanted)
            body = bodies.generation(
                request, self.model, drop_prefix=self.drop_prefix, samples=samples, seed=wanted[0][1], room=room
            )
            try:
                batch = self.endpoint.post(
                    session,
                    bodies.path_of(request),
                    bodies.with_limit(body, request, limit),
                    partial(bodies.batch_of, request=request, model=self.model, samples=samples),
                    timeout=self.timeout or TIMEOUT + PER_TOKEN * most,
                    stop=stop,
                )
            except Refused as error:
                if limit != bodies.NEW_LIMIT and bodies.wants_other_limit(error.status, error.reason):
                    self._limit_name = bodies.NEW_LIMIT  # for all requests from now on
                    continue
                other = other_room(error.reason, most, room) if error.status == 400 else None
                if other is None:
                    raise
                room = other
                continue
            if batch is None:
                return None
            self._count(batch.prompt_tokens, batch.completion_tokens)
            if not room.context:
                return bodies.responses_of(batch, request, room.kept is not None)
            if not batch.prompt_tokens:
                break
            room = fitted(batch.prompt_tokens, most, room.context)
        raise RequestFailed(f"{request.task}: document {request.doc_id} does not fit the context of {self.model}")

    def _count(self, prompt: int, completion: int) -> None:
        with self._lock:
            self.usage.asked += 1
            self.usage.prompt_tokens += prompt
            self.usage.completion_tokens += completion

    # log-likelihood ------------------------------------------------------------------------------------------------

    def _score(self, session: requests.Session, ask: Ask, stop: threading.Event) -> Iterator[Answered]:
        request = ask.request
        if self.drop_prefix and request.messages is not None:
            raise RequestFailed(
                f"{request.task}: needs log-likelihoods, for which the server goes on from a message; "
                "leave out --prefill drop, or the task"
            )
        context, ending = prompt_logprobs.boundary(request)
        found = self._tokens(session, request, context + ending, stop)
        if found is None:
            return
        own = prompt_logprobs.tail(found.tokens, ending)
        if own is None and not found.truncated:
            # the choice begins within a token: it has those beyond as many as the context alone has
            alone = self._tokens(session, request, context, stop)
            if alone is None:
                return
            own = prompt_logprobs.beyond(found.tokens, alone.tokens, ending)
        response = prompt_logprobs.scored(found, own or [], request)
        for sample, _ in ask.wanted:
            yield ask.position, sample, response

    def _tokens(
        self, session: requests.Session, request: Request, start: str, stop: threading.Event
    ) -> prompt_logprobs.Heard | None:
        """The tokens of the prompt, cut on the left to what the server takes; None if `stop` was set.

        Raises RequestFailed.
        """
        kept: int | None = None
        while True:
            try:
                found = self.endpoint.post(
                    session,
                    bodies.path_of(request),
                    prompt_logprobs.question(request, self.model, start) | cut(kept),
                    partial(prompt_logprobs.heard, request=request, model=self.model, truncated=kept is not None),
                    timeout=self.timeout or TIMEOUT,
                    stop=stop,
                )
            except Refused as error:
                context = context_in(error.reason) if error.status == 400 and kept is None else None
                if context is not None:
                    kept = context - 1  # the server wants room for a token of its own
                    continue
                if error.status in (400, 404, 405, 422):
                    raise prompt_logprobs.silent(request, error.reason) from None
                raise
            if found is not None:
                self._count(len(found.tokens), found.generated)
            return found
