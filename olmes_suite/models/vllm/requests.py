"""Requests to a vLLM engine as token ids and sampling settings, and the reading of outcomes. Does not import vLLM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from olmes_suite.errors import RequestFailed
from olmes_suite.models.local.generation_config import Own
from olmes_suite.models.local.jobs import Choice, Ends, Generation, Row, rows_of
from olmes_suite.models.local.thoughts import LocalThoughts
from olmes_suite.models.local.tokenizer import Tokenizer
from olmes_suite.records import OPTIONAL, Response

Answered = tuple[int, int, Response]
MOST_TOKENS_ASKED = 128
"""The number of tokens whose log-probabilities vLLM returns for one request (its `MAX_LOGPROB_TOKEN_IDS`)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The engine's result of a request."""

    tokens: Sequence[int]
    reason: str | None
    """"stop" or "length"."""
    prompt: Sequence[Mapping[int, Any] | None] = ()
    """For each token of the prompt, ids with `logprob` (natural) and `rank` (from 1); None for the first token."""
    first: Mapping[int, float] | None = None
    """Natural-log probabilities of tokens as the first token of the answer."""


class Ask(Protocol):
    """A request to the engine."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """The token ids of the prompt."""

    def settings(self) -> dict[str, Any]:
        """Return the arguments of vLLM's `SamplingParams`."""


@dataclass(frozen=True, slots=True)
class TextAsk:
    """A text to generate: one sample with its seed.

    vLLM's `n` derives all seeds from one, so that a continued run could not generate the missing samples alone. Each
    sample is therefore a request; the prefix cache computes the shared prompt once.
    """

    job: Generation
    ends: Ends
    tokenizer: Tokenizer
    own: Own = field(default_factory=Own)
    """The checkpoint's generation_config."""
    thoughts: LocalThoughts | None = None

    @property
    def prompt(self) -> tuple[int, ...]:
        """The rendered prompt."""
        return self.job.prompt

    def settings(self) -> dict[str, Any]:
        """Return settings that end where `hf` ends: at end-of-text tokens, stop strings and the token limit."""
        request = self.job.request
        values: dict[str, Any] = {
            "temperature": request.temperature or 0.0,
            "max_tokens": self.job.budget,
            "stop": self.ends.stops(request) or None,
            "stop_token_ids": list(self.ends.ids),
            "skip_special_tokens": False,  # a stop string may be a special token's text
        }
        if request.temperature:
            values |= {"seed": self.job.seed, "top_p": 1.0 if request.top_p is None else request.top_p}
        if self.own.penalty != 1.0:
            values["repetition_penalty"] = self.own.penalty
        if least := self.own.processed.get("min_new_tokens"):
            values["min_tokens"] = min(int(least), self.job.budget)
        return values | {name: getattr(request, name) for name in OPTIONAL if getattr(request, name) is not None}

    def read(self, outcome: Outcome) -> Iterator[Answered]:
        """Yield the text, decoded and cut in the way of `hf`."""
        job = self.job
        yield (
            job.position,
            job.sample,
            job.limited(
                job.response(outcome.tokens, outcome.reason or "length", self.tokenizer, self.ends, self.thoughts)
            ),
        )


@dataclass(frozen=True, slots=True)
class RankAsk:
    """Choices that differ only in their last token, which is looked up in the log-probabilities after the prompt.

    Choices of one token need nothing else, and the engine reads their context from its prefix cache. Longer choices
    need the log-probabilities of the prompt, for which vLLM computes the whole prompt.
    """

    row: Row

    @property
    def prompt(self) -> tuple[int, ...]:
        """The context and the choice without its last token."""
        return self.row.inputs

    def settings(self) -> dict[str, Any]:
        """Return settings for one greedy token, with the log-probabilities of the choices' last tokens."""
        last = sorted({choice.tokens[-1] for choice in self.row.choices})
        values = {"temperature": 0.0, "max_tokens": 1, "logprob_token_ids": last, "detokenize": False}
        return values | ({"prompt_logprobs": 0} if self.row.width > 1 else {})

    def read(self, outcome: Outcome) -> Iterator[Answered]:
        """Yield the log-likelihood of each choice. Raises RequestFailed without log-probabilities."""
        if outcome.first is None:
            raise RequestFailed("vLLM returned no log-probabilities; use --backend hf")
        for choice in self.row.choices:
            last = choice.tokens[-1]
            values, greedy = [outcome.first[last]], [outcome.tokens[0] == last]
            for token, entries in zip(choice.tokens[:-1], self._prompt_entries(outcome, choice), strict=True):
                if entries is None or token not in entries:
                    raise RequestFailed("vLLM returned no log-probabilities of a prompt's tokens; use --backend hf")
                values.append(entries[token].logprob)
                greedy.append(entries[token].rank == 1)
            yield choice.position, choice.sample, choice.response(likelihood(values), all(greedy))

    def _prompt_entries(self, outcome: Outcome, choice: Choice) -> Sequence[Mapping[int, Any] | None]:
        start = len(self.row.inputs) - len(choice.tokens) + 1
        return outcome.prompt[start : len(self.row.inputs)]


@dataclass(frozen=True, slots=True)
class FirstAsk:
    """A prompt whose likeliest next tokens are requested."""

    position: int
    prompt: tuple[int, ...]
    top: int

    def settings(self) -> dict[str, Any]:
        """Return settings for one greedy token, with the log-probabilities of the `top` likeliest."""
        return {"temperature": 0.0, "max_tokens": 1, "logprobs": self.top, "detokenize": False}


def likelihood(values: Sequence[float]) -> float:
    """Return the sum of log-probabilities, which may be -inf. Raises RequestFailed for NaN and infinity."""
    total = sum(values)
    if math.isnan(total) or total == math.inf:
        raise RequestFailed(
            f"vLLM returned {total} as a log-probability: the model's numbers overflow; try --dtype float32"
        )
    return total


def text_asks(
    jobs: Sequence[Generation], ends: Ends, tokenizer: Tokenizer, own: Own | None = None,
    thoughts: LocalThoughts | None = None,
) -> list[TextAsk]:  # fmt: skip
    """Order the texts: longest answers first, so that none runs alone at the end, then by prompt for the cache."""
    ordered = sorted(jobs, key=lambda job: (job.order[0], job.prompt, job.position, job.sample))
    return [TextAsk(job, ends, tokenizer, own or Own(), thoughts) for job in ordered]


def rank_asks(choices: list[Choice]) -> list[RankAsk]:
    """Make one request for choices that share all tokens except the last, ordered by prompt for the prefix cache."""
    asks = []
    for row in sorted(rows_of(choices), key=lambda row: row.inputs):
        tokens = sorted({choice.tokens[-1] for choice in row.choices})
        for start in range(0, len(tokens), MOST_TOKENS_ASKED):
            part = set(tokens[start : start + MOST_TOKENS_ASKED])
            asks.append(RankAsk(Row(row.inputs, tuple(c for c in row.choices if c.tokens[-1] in part))))
    return asks
