"""The interface between the runner and an engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import RequestFailed, UsageError
from olmes_suite.lm_eval_api import LM, Instance
from olmes_suite.records import Message, Request, Response

DEFAULT_MAX_TOKENS = 256
"""The token limit of an answer to a request without a limit, as in lm-eval."""


def fit(prompt: int, max_tokens: int, max_length: int) -> tuple[int, int]:
    """Return (prompt tokens to keep, new tokens to allow) within a context of `max_length` tokens.

    The answer is shortened first. A prompt that leaves no room for an answer is cut to leave
    min(max_tokens, max_length // 2) tokens.
    """
    if prompt < max_length - 1:
        return prompt, min(max_tokens, max_length - prompt)
    room = max(1, min(max_tokens, max_length // 2))
    return max_length - room, room


@dataclass(frozen=True, slots=True)
class Sent:
    """A request as the model receives it."""

    rendered: str | None = None
    """The text after the chat template, with the assistant prefix; None where a server renders the messages."""
    prompt_tokens: int | None = None
    """The number of token ids of the prompt, as in the response: after a cut to the context; None if unknown."""
    truncated: bool = False
    """Whether the prompt does not fit the context and is cut on the left."""
    continuation_tokens: int | None = None
    """The number of token ids of the continuation of a log-likelihood request."""
    messages: tuple[Message, ...] | None = None
    """The messages as sent to a server."""


class Backend(LM):
    """An lm-eval `LM` that also answers the runner's requests, in any order, as answers become ready.

    A backend implements `run`. lm-eval's methods are built on it, so that every backend also works under lm-eval's
    evaluator.
    """

    chat = True
    """Whether the model has a chat template; without one it receives plain text."""
    name = ""
    max_length: int | None = None
    at_once = 32
    """The smallest number of requests that uses the engine fully."""
    seeded = True
    """Whether a sample depends only on request and seed; False for a server that ignores seeds."""
    together = False
    """Whether the engine receives the requests of all tasks of a run in one call."""
    fields: frozenset[str] = frozenset()
    """Fields of `olmes_suite.records.OPTIONAL` that the engine honours, and `unset` if it can leave fields out."""
    unused_arguments: tuple[str, ...] = ()
    """Names of the given arguments of the chat template that make no difference to prompts."""
    stop_requested = False
    """Set by the runner on Ctrl-C: `run` ends after the current batch."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """The SHA-256 of everything that determines the answers (see `olmes_suite.models.local.fingerprint`)."""

    @abstractmethod
    def run(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]
    ) -> Iterator[tuple[int, int, Response]]:
        """Yield (position in `requests`, sample index, response) as answers become ready.

        `seeds[i][s]` is the seed of sample `s` of request `i`, or None where that sample is already on disk and is not
        generated again. Raises RequestFailed where the engine cannot answer a request.
        """

    def attempt(
        self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]
    ) -> Iterator[tuple[int, int, Response | RequestFailed]]:
        """Like `run`, but where an engine gives up on one request, yield the error and go on with the others.

        Engines in this process give up on all requests or none.
        """
        yield from self.run(requests, seeds)

    def settings(self) -> dict[str, Any]:
        """Return the engine's settings for the manifest: device, dtype, batch size, versions."""
        return {}

    def notes(self) -> list[str]:
        """Return lines for the user about this model: no chat template, double BOS, …"""
        return []

    def sent(self, requests: Sequence[Request]) -> list[Sent | None]:
        """Return what the model receives for each request; None where that is unknown, or the request is refused."""
        return [None] * len(requests)

    def alternatives(self, requests: Sequence[Request], top: int) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        """Yield (position, the `top` likeliest first tokens of the answer as (text, natural-log probability)).

        Raises UsageError for an engine without log-probabilities.
        """
        raise UsageError(f"backend {self.name} does not return log-probabilities of tokens; use hf, or an endpoint")

    def close(self) -> None:
        """Free the model's memory for other models. The backend cannot answer requests afterwards."""

    # lm-eval's interface -------------------------------------------------------------------------------------------

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
        """Return the messages unrendered, since `run` renders them. lm-eval passes the result on unchanged."""
        return tuple((message["role"], message["content"]) for message in chat_history)

    @property
    def tokenizer_name(self) -> str:
        """The tokenizer's part of lm-eval's cache keys."""
        return self.name

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Generate texts for lm-eval."""
        from olmes_suite.tasks.task import request_of

        converted = [request_of(instance, position) for position, instance in enumerate(requests)]
        texts: list[str] = [""] * len(converted)
        for position, _, response in self.run(converted, [[0]] * len(converted)):
            texts[position] = response.text or ""
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """Compute log-likelihoods for lm-eval."""
        from olmes_suite.tasks.task import request_of

        converted = [request_of(instance, position) for position, instance in enumerate(requests)]
        results: list[tuple[float, bool]] = [(0.0, False)] * len(converted)
        for position, _, response in self.run(converted, [[0]] * len(converted)):
            results[position] = (response.loglikelihood or 0.0, bool(response.is_greedy))
        return results

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Not implemented: no task of this package uses it."""
        raise NotImplementedError("olmes backends answer generate_until and loglikelihood requests only")
