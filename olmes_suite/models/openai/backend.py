"""The engine for OpenAI-compatible servers: `vllm serve`, SGLang, hosted APIs."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import requests
from requests import Session

from olmes_suite.endpoints.client import TRIES, Endpoint, Refused
from olmes_suite.endpoints.concurrency import Crowd, Limit
from olmes_suite.endpoints.usage import Usage, cost
from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.base import Backend, Sent
from olmes_suite.models.openai import bodies, prompt_logprobs
from olmes_suite.models.openai.context_limit import Room, context_in, cut, fitted
from olmes_suite.models.openai.terms import Terms
from olmes_suite.records import OPTIONAL, Request, Response, canonical_json, sha256
from olmes_suite.thinking import AUTO, NONE, Reader, Thoughts, built_in, check_unclosed, choice_of

START = 16
"""Concurrent requests at the start."""
MOST = 256
"""Default of the largest number of concurrent requests."""
TIMEOUT, PER_TOKEN = 120.0, 0.5
"""Seconds without data in one request: TIMEOUT, and PER_TOKEN more for each token of the longest answer."""
LONGEST_TIMEOUT = 3600.0
"""The longest time without data, in seconds."""
TURNS = 12
"""Forms in which a request may be sent: unchanged, with the other name of its limit, to learn its prompt's length, with
a smaller limit, with a cut prompt, without the fields that the server refuses."""

Answered = tuple[int, int, Response]


@dataclass(frozen=True, slots=True)
class Ask:
    """A request and its open samples."""

    position: int
    request: Request
    samples: tuple[tuple[int, int], ...]
    """(sample, seed) pairs"""


class OpenAIBackend(Backend):
    """The model that a server calls `model`, with the key of `$OPENAI_API_KEY` where it is set.

    `prefill`: `send` sends an assistant prefix as the start of the last message; `drop` leaves the prefix out, for
    servers that cannot continue a message. `concurrency` is the largest number of concurrent requests; the backend
    measures how many speed up the server. `delay` and `timeout` are in seconds. `thinking` and `unclosed` are as on the
    command line; `auto` reads thoughts that come apart from the text, and `<think>` where a text has a closing mark.
    `chat_template_args` are sent as `chat_template_kwargs`, which vLLM and SGLang pass to the chat template.
    Raises UsageError for an invalid address, option or name, ModelError where no server answers.
    """

    name = "openai"
    fields = frozenset({*OPTIONAL, "unset"})
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
        chat_template_args: Mapping[str, Any] | None = None,
        thinking: object = None,
        unclosed: str | None = None,
    ) -> None:
        super().__init__()
        choice, policy = choice_of(thinking), check_unclosed(unclosed)
        self.auto = choice == AUTO
        reader = choice if isinstance(choice, Reader) else built_in("think")
        self.reading = None if choice == NONE else Thoughts(reader, policy)
        if not base_url.startswith(("http://", "https://")):
            raise UsageError(f"--base-url {base_url}: not a URL such as http://localhost:8000/v1")
        if prefill not in ("send", "drop"):
            raise UsageError(f"--prefill {prefill}: use send or drop with a server, whose chat template is not known")
        self.model, self.drop_prefix, self.timeout = model, prefill == "drop", timeout
        self.usage = Usage()
        self.limit = Limit(START, concurrency)
        self.endpoint = Endpoint(model, base_url, self.usage, self.limit, tries=tries, delay=delay)
        self._takes_n = True
        self._limit_name = "max_tokens"
        self.terms = Terms(dict(chat_template_args or {}))
        self._lock = threading.Lock()
        self._listed = self._check_name()

    def _check_name(self) -> bool:
        """Return whether the server lists its models. Raises UsageError where the list lacks this model."""
        try:
            listed = self.endpoint.models()
        except Refused as error:
            raise ModelError(str(error)) from None
        if listed is not None and self.model not in listed:
            raise UsageError(
                f"--model {self.model}: {self.endpoint.base_url} serves {bodies.names(listed)}; name one of its models"
            )
        return listed is not None

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of served name, address and settings. The weights behind the name cannot be checked from here."""
        settings: dict[str, Any] = ({"prefill": "drop"} if self.drop_prefix else {}) | self._thinking()
        if self.terms.template_args:
            settings["chat_template_args"] = self.terms.template_args
        return sha256(canonical_json({"served": self.model, "base_url": self.endpoint.base_url, "settings": settings}))

    def _thinking(self) -> dict[str, Any]:
        """Return the reading of thoughts as a setting; empty for the default."""
        if self.reading is None:
            return {"thinking": NONE}
        if not self.auto:
            return {"thinking": self.reading.settings()}
        return {} if self.reading.unclosed == "reference" else {"unclosed": self.reading.unclosed}

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's part of lm-eval's cache keys."""
        return f"{self.endpoint.base_url} {self.model}"

    def settings(self) -> dict[str, Any]:
        """Return address, name and settings, and the usage and cost of this process."""
        paid = cost(self.model, self.endpoint.base_url, self.usage)
        return {
            "base_url": self.endpoint.base_url,
            "served": self.model,
            "prefill": "drop" if self.drop_prefix else "send",
            "concurrency": self.limit.value,
            "several_samples_at_once": self._takes_n,
            "token_limit": self._limit_name,
            **self.terms.settings(),
            "usage": {**self.usage.as_json(), "cost_usd": paid},
        } | self._thinking()

    def notes(self) -> list[str]:
        """Return lines about dropped prefixes and an unchecked name."""
        lines = []
        if self.drop_prefix:
            lines.append("assistant prefixes are dropped from the prompts (--prefill drop): scores may differ")
        if not self._listed:
            lines.append(f"{self.endpoint.base_url} does not list its models: the name {self.model} was not checked")
        return [*lines, *self.terms.notes(self.endpoint.base_url)]

    def sent(self, requests: Sequence[Request]) -> list[Sent | None]:
        """Return the messages as they are sent, or the plain text."""
        return [self._sent(request) for request in requests]

    def _sent(self, request: Request) -> Sent:
        start = "" if self.drop_prefix and request.messages is not None else bodies.start_of(request)
        fields = bodies.prompt_of(request, self.model, start)
        return Sent(fields["prompt"]) if "prompt" in fields else Sent(messages=tuple(fields["messages"]))

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Yield answers as they arrive. A failure is raised after the answers to the running requests."""
        yield from Crowd(_asks(requests, seeds), self._answer, self.limit).results(lambda: self.stop_requested)

    def attempt(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]
    ) -> Iterator[tuple[int, int, Response | RequestFailed]]:
        """Yield answers as they arrive, and the error of a request that fails after its retries; the others go on."""

        def work(
            session: Session, ask: Ask, stop: threading.Event
        ) -> Iterator[tuple[int, int, Response | RequestFailed]]:
            missing = {sample for sample, _ in ask.samples}
            try:
                for position, sample, response in self._answer(session, ask, stop):
                    missing.discard(sample)
                    yield position, sample, response
            except RequestFailed as error:
                yield from ((ask.position, sample, error) for sample in sorted(missing))

        yield from Crowd(_asks(requests, seeds), work, self.limit).results(lambda: self.stop_requested)

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
        """Send all samples in one request, or one by one with their seeds where the server does not take `n`."""
        left = ask.samples
        if len(left) > 1 and self._takes_n:
            try:
                responses = self._send(session, ask.request, left, stop)
            except Refused as error:
                if error.status not in (400, 422):
                    raise
                responses = []
            if responses is None:
                return
            for (sample, _), response in zip(left, responses, strict=False):
                yield ask.position, sample, response
            left = left[len(responses) :]
            self._takes_n = self._takes_n and not left
        for sample_and_seed in left:
            responses = self._send(session, ask.request, (sample_and_seed,), stop)
            if responses is None:
                return
            yield ask.position, sample_and_seed[0], responses[0]

    def _send(
        self, session: requests.Session, request: Request, samples: tuple[tuple[int, int], ...], stop: threading.Event
    ) -> list[Response] | None:
        """Return the responses of the samples, or of the first ones, or None where `stop` was set.

        Raises RequestFailed.
        """
        room, most = Room(), bodies.limit_of(request)
        for _ in range(TURNS):
            limit, number = self._limit_name, 1 if room.context else len(samples)
            body = self.terms.adapted(
                bodies.generation(
                    request, self.model, drop_prefix=self.drop_prefix, samples=number, seed=samples[0][1], room=room
                ),
                request,
                room,
            )
            try:
                batch = self.endpoint.post(
                    session,
                    bodies.path_of(request),
                    bodies.with_limit(body, request, limit),
                    partial(bodies.batch_of, request=request, model=self.model, samples=number),
                    timeout=self.timeout or min(TIMEOUT + PER_TOKEN * most, LONGEST_TIMEOUT),
                    stop=stop,
                )
            except Refused as error:
                if limit != bodies.NEW_LIMIT and bodies.wants_other_limit(error.status, error.reason):
                    self._limit_name = bodies.NEW_LIMIT  # for all later requests
                    continue
                room = self.terms.after(error, request, body, room)
                continue
            if batch is None:
                return None
            self._count(batch.prompt_tokens, batch.completion_tokens)
            if not room.context:
                truncated = room.prompt_tokens is not None
                found = bodies.responses_of(batch, request, truncated, self.reading, auto=self.auto)
                return self.terms.limited(found, request, body.get("max_tokens"))
            if not batch.prompt_tokens:
                break
            room = fitted(batch.prompt_tokens, most, room.context)
        raise RequestFailed(
            f"{request.task}: document {request.doc_id} does not fit the context of {self.model}; leave the task out, "
            "or serve the model with a longer context"
        )

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
                f"{request.task}: needs log-likelihoods, for which the server has to continue a message; "
                "leave out --prefill drop, or the task"
            )
        context, ending = prompt_logprobs.boundary(request)
        prompt = self._tokens(session, request, context + ending, stop)
        if prompt is None:
            return
        choice = prompt_logprobs.tail(prompt.tokens, ending)
        if choice is None and not prompt.truncated:
            # the choice begins inside a token: it gets the tokens beyond the number of tokens of the context alone
            context_alone = self._tokens(session, request, context, stop)
            if context_alone is None:
                return
            choice = prompt_logprobs.beyond(prompt.tokens, context_alone.tokens, ending)
        response = prompt_logprobs.scored(prompt, choice or [], request)
        for sample, _ in ask.samples:
            yield ask.position, sample, response

    def _tokens(
        self, session: requests.Session, request: Request, start: str, stop: threading.Event
    ) -> prompt_logprobs.PromptTokens | None:
        """Return the tokens of the prompt, cut on the left to the server's context, or None where `stop` was set.

        Raises RequestFailed.
        """
        limit: int | None = None
        while True:
            try:
                prompt = self.endpoint.post(
                    session,
                    bodies.path_of(request),
                    prompt_logprobs.body(request, self.model, start) | self.terms.template_fields(request) | cut(limit),
                    partial(
                        prompt_logprobs.prompt_tokens, request=request, model=self.model, truncated=limit is not None
                    ),
                    timeout=self.timeout or TIMEOUT,
                    stop=stop,
                )
            except Refused as error:
                context = context_in(error.reason) if error.status == 400 and limit is None else None
                if context is not None:
                    limit = context - 1  # the server needs room for a generated token
                    continue
                if error.status in (400, 404, 405, 422):
                    raise prompt_logprobs.unsupported(request, error.reason) from None
                raise
            if prompt is not None:
                self._count(len(prompt.tokens), prompt.generated)
            return prompt


def _asks(requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> list[Ask]:
    """Return the requests with open samples."""
    asks = []
    for position, (request, row) in enumerate(zip(requests, seeds, strict=True)):
        if samples := tuple((sample, seed) for sample, seed in enumerate(row) if seed is not None):
            asks.append(Ask(position, request, samples))
    return asks
