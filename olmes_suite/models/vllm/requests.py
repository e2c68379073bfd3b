"""What a vLLM engine is asked, as token ids and sampling settings, and what its answers mean. Imports no vLLM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from olmes_suite.errors import RequestFailed
from olmes_suite.models.local.jobs import Choice, Ends, Generation, Row, rows_of
from olmes_suite.records import Response

Answered = tuple[int, int, Response]
MOST_TOKENS_ASKED = 128
"""Tokens whose log-probabilities vLLM gives for one request (its `MAX_LOGPROB_TOKEN_IDS`)."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the engine says when a request is done."""

    tokens: Sequence[int]
    reason: str | None
    """"stop" or "length"."""
    prompt: Sequence[Mapping[int, Any] | None] = ()
    """Of each token of the prompt: id to an object with `logprob` (natural) and `rank` (from 1); None for the first."""
    first: Mapping[int, float] | None = None
    """Log-probabilities of tokens in the first place of the answer."""


class Ask(Protocol):
    """One request to the engine."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """Token ids."""

    def settings(self) -> dict[str, Any]:
        """Arguments of vLLM's `SamplingParams`."""


@dataclass(frozen=True, slots=True)
class TextAsk:
    """A text to generate: one sample, with a seed of its own.

    vLLM's `n` derives all seeds from one, so that samples could not be asked for one by one after a killed run. Samples
    are requests of their own instead; the prefix cache computes their prompt once.
    """

    job: Generation
    ends: Ends
    tokenizer: Any
    penalty: float = 1.0
    """The checkpoint's repetition penalty."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """The rendered prompt."""
        return self.job.prompt

    def settings(self) -> dict[str, Any]:
        """Greedy or sampled; ends where `hf` ends: at end-of-text tokens, stop strings, the token limit."""
        request = self.job.request
        found: dict[str, Any] = {
            "temperature": request.temperature or 0.0,
            "max_tokens": self.job.budget,
            "stop": self.ends.stops(request) or None,
            "stop_token_ids": list(self.ends.ids),
            "skip_special_tokens": False,  # a stop string may be a special token's text
        }
        if request.temperature:
            found |= {"seed": self.job.seed, "top_p": 1.0 if request.top_p is None else request.top_p}
        if self.penalty != 1.0:
            found["repetition_penalty"] = self.penalty
        return found

    def read(self, outcome: Outcome) -> Iterator[Answered]:
        """The text, decoded and cut as `hf` does it."""
        job = self.job
        yield (
            job.position,
            job.sample,
            job.response(outcome.tokens, outcome.reason or "length", self.tokenizer, self.ends),
        )


@dataclass(frozen=True, slots=True)
class RankAsk:
    """Choices that differ in their last token only: the prompt holds all but that, which is looked for in what follows.

    Choices of one token need nothing else, and the engine reads their context from its prefix cache. Longer ones need
    the prompt's own log-probabilities, for which vLLM computes the whole prompt.
    """

    row: Row

    @property
    def prompt(self) -> tuple[int, ...]:
        """Context and choice, less the last token."""
        return self.row.inputs

    def settings(self) -> dict[str, Any]:
        """One greedy token, with the log-probabilities of the tokens that might have stood there."""
        last = sorted({choice.tokens[-1] for choice in self.row.choices})
        found = {"temperature": 0.0, "max_tokens": 1, "logprob_token_ids": last, "detokenize": False}
        return found | ({"prompt_logprobs": 0} if self.row.width > 1 else {})

    def read(self, outcome: Outcome) -> Iterator[Answered]:
        """A log-likelihood of each choice."""
        if outcome.first is None:
            raise RequestFailed("vLLM gave no log-probabilities")
        for choice in self.row.choices:
            last = choice.tokens[-1]
            values, greedy = [outcome.first[last]], [outcome.tokens[0] == last]
            for token, told in zip(choice.tokens[:-1], self._told(outcome, choice), strict=True):
                if told is None or token not in told:
                    raise RequestFailed("vLLM gave no log-probabilities of a prompt's tokens")
                values.append(told[token].logprob)
                greedy.append(told[token].rank == 1)
            yield choice.position, choice.sample, choice.response(likelihood(values), all(greedy))

    def _told(self, outcome: Outcome, choice: Choice) -> Sequence[Mapping[int, Any] | None]:
        start = len(self.row.inputs) - len(choice.tokens) + 1
        return outcome.prompt[start : len(self.row.inputs)]


@dataclass(frozen=True, slots=True)
class FirstAsk:
    """A prompt whose likeliest next tokens are wanted."""

    position: int
    prompt: tuple[int, ...]
    top: int

    def settings(self) -> dict[str, Any]:
        """One greedy token with its rivals."""
        return {"temperature": 0.0, "max_tokens": 1, "logprobs": self.top, "detokenize": False}


def likelihood(values: Sequence[float]) -> float:
    """The sum of log-probabilities; -inf is one, of what the model rules out. Raises RequestFailed for others."""
    total = sum(values)
    if math.isnan(total) or total == math.inf:
        raise RequestFailed(
            f"vLLM gave {total} for a log-probability: the model's numbers overflow; try --dtype float32"
        )
    return total


def text_asks(jobs: Sequence[Generation], ends: Ends, tokenizer: Any, penalty: float = 1.0) -> list[TextAsk]:
    """Longest answers first, so that none is left alone at the end; equal beginnings together, for the prefix cache."""
    ordered = sorted(jobs, key=lambda job: (job.order[0], job.prompt, job.position, job.sample))
    return [TextAsk(job, ends, tokenizer, penalty) for job in ordered]


def rank_asks(choices: list[Choice]) -> list[RankAsk]:
    """One request for choices that share all but their last token; equal beginnings together."""
    found = []
    for row in sorted(rows_of(choices), key=lambda row: row.inputs):
        tokens = sorted({choice.tokens[-1] for choice in row.choices})
        for start in range(0, len(tokens), MOST_TOKENS_ASKED):
            part = set(tokens[start : start + MOST_TOKENS_ASKED])
            found.append(RankAsk(Row(row.inputs, tuple(c for c in row.choices if c.tokens[-1] in part))))
    return found
