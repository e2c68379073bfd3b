"""The jobs of an engine on this machine: texts to generate and continuations to score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from olmes_suite.errors import RequestFailed
from olmes_suite.models.base import DEFAULT_MAX_TOKENS, fit
from olmes_suite.models.local.encoding import Encoder
from olmes_suite.models.local.thoughts import LocalThoughts
from olmes_suite.models.local.tokenizer import Tokenizer
from olmes_suite.models.stops import cut_at_stop
from olmes_suite.records import Request, Response, canonical_json

Sample = tuple[int, int, int]
"""(position of the request, sample, seed)"""


def not_a_number(request: Request) -> RequestFailed:
    """Return the error for a model's output that is NaN or infinite, which is never scored."""
    return RequestFailed(
        f"{request.task}: the model's output for document {request.doc_id} is not a number: its weights are damaged, "
        "or too large for this dtype; check the checkpoint, or try --dtype float32"
    )


def limit_of(request: Request) -> int:
    """Return the token limit of an answer."""
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def open_samples(seeds: Sequence[Sequence[int | None]]) -> list[Sample]:
    """Return the samples that have a seed, so that they are still to be generated."""
    return [(i, sample, seed) for i, row in enumerate(seeds) for sample, seed in enumerate(row) if seed is not None]


@dataclass(frozen=True, slots=True)
class Ends:
    """The model's ends of an answer, in addition to those of the request."""

    ids: tuple[int, ...]
    """Tokens that end an answer."""
    text: str | None
    """The text of the EOS token, which also ends an answer when the model spells it out."""

    turn: int | None = None
    """The token after an assistant's turn, where only the chat template names it; it is among `ids`."""

    strings: tuple[str, ...] = ()
    """The stop strings of the model's generation_config."""

    @classmethod
    def of(cls, encoder: Encoder, eos: int | Sequence[int] | None, strings: Sequence[str] = ()) -> Ends:
        """Collect the ends of a tokenizer, its chat template, and `eos` and `strings` of the generation_config.

        A model that was trained on a chat template stops in the token after its turn. Where neither the tokenizer nor
        generation_config names that token, it would go on through turns of its own invention.
        """
        tokenizer = encoder.tokenizer
        eos_ids = [eos] if eos is None or isinstance(eos, int) else eos
        ids = {token for token in (*eos_ids, tokenizer.eos_token_id) if token is not None}
        turn = encoder.turn_end if encoder.turn_end is not None and encoder.turn_end not in ids else None
        all_ids = ids | ({turn} if turn is not None else set())
        return cls(tuple(sorted(all_ids)), tokenizer.eos_token, turn, tuple(strings))

    def notes(self, tokenizer: Tokenizer, name: str) -> list[str]:
        """Return lines where the chat template alone names an end, and for the stop strings of the checkpoint."""
        lines = []
        if self.turn is not None:
            token = tokenizer.decode([self.turn])
            lines.append(
                f"{name}: answers also end at {token}, which the chat template writes after a turn; "
                "its eos_token does not"
            )
        if self.strings:
            lines.append(f"{name}: answers also end at {', '.join(map(repr, self.strings))}, as generation_config says")
        return lines

    def settings(self, tokenizer: Tokenizer) -> dict[str, str]:
        """Return what the model's fingerprint holds of ends beside the end-of-text tokens."""
        turn = {} if self.turn is None else {"ends_at": tokenizer.decode([self.turn])}
        return turn | ({"stop_strings": canonical_json(self.strings)} if self.strings else {})

    def stops(self, request: Request) -> list[str]:
        """Return the stop strings of the request and the model."""
        return [stop for stop in (*request.stop, *self.strings, self.text) if stop]


@dataclass(frozen=True, slots=True)
class Generation:
    """One sample to generate."""

    position: int
    sample: int
    request: Request
    seed: int
    prompt: tuple[int, ...]
    budget: int
    """The largest number of new tokens."""
    truncated: bool

    @property
    def order(self) -> tuple[int, int, int, int]:
        """The sort key: rows with equal limits together, and the longest first, so that memory runs out at once."""
        return -limit_of(self.request), -len(self.prompt), self.position, self.sample

    def response(
        self, tokens: Sequence[int], reason: str, tokenizer: Tokenizer, ends: Ends,
        thoughts: LocalThoughts | None = None,
    ) -> Response:  # fmt: skip
        """Return the response of these tokens, cut at the first stop string. `reason`: stop or length.

        Like OLMES, the whole text is cut before the thought is read.
        """
        text_tokens = tokens[:-1] if tokens and tokens[-1] in ends.ids else tokens
        if thoughts is not None:
            return self._thoughtful(tokens, text_tokens, reason, tokenizer, ends, thoughts)
        raw = tokenizer.decode(text_tokens, skip_special_tokens=True)
        text = cut_at_stop(raw, ends.stops(self.request))
        return Response(
            text=text,
            finish_reason=reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=len(tokens),
            truncated=self.truncated,
            raw=raw if raw != text else None,
        )

    def limited(self, response: Response) -> Response:
        """Return the response with the token limit in effect, where it is not the request's."""
        return response if self.budget == self.request.max_tokens else replace(response, limit=self.budget)

    def _thoughtful(
        self, tokens: Sequence[int], text_tokens: Sequence[int], reason: str, tokenizer: Tokenizer, ends: Ends,
        thoughts: LocalThoughts,
    ) -> Response:  # fmt: skip
        said, text = thoughts.texts(text_tokens, tokenizer)
        whole = cut_at_stop(text, ends.stops(self.request))
        parts = thoughts.thoughts.read(whole, opened=thoughts.rendering(self.request).opened)
        return Response(
            text=parts.answer,
            finish_reason=reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=len(tokens),
            truncated=self.truncated,
            raw=said if said != parts.answer else None,
            thinking=parts.thinking,
            unclosed=parts.unclosed,
            thinking_tokens=thoughts.count(parts, whole, tokens, tokenizer),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One continuation to score."""

    position: int
    sample: int
    request: Request
    context: tuple[int, ...]
    tokens: tuple[int, ...]
    """The tokens of the continuation."""
    truncated: bool

    @property
    def inputs(self) -> tuple[int, ...]:
        """The model's input: all tokens except the last, which is only looked up in the output."""
        return self.context + self.tokens[:-1]

    def response(self, value: float, greedy: bool) -> Response:
        """Return the response with this log-likelihood. `greedy`: whether the model's likeliest tokens are these.

        Raises RequestFailed for NaN and infinity. That includes minus infinity, which a log-softmax in float32 returns
        only for an infinite logit and which JSON cannot represent.
        """
        if not math.isfinite(value):
            raise not_a_number(self.request)
        return Response(
            loglikelihood=value,
            is_greedy=greedy,
            prompt_tokens=len(self.context),
            completion_tokens=len(self.tokens),
            truncated=self.truncated,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a forward pass, shared by all continuations that differ only in their last token."""

    inputs: tuple[int, ...]
    choices: tuple[Choice, ...]

    @property
    def width(self) -> int:
        """The number of last positions whose logits are needed."""
        return max(len(choice.tokens) for choice in self.choices)


def rows_of(choices: list[Choice]) -> list[Row]:
    """Group the choices by their inputs, the longest first."""
    rows: dict[tuple[int, ...], list[Choice]] = {}
    for choice in choices:
        rows.setdefault(choice.inputs, []).append(choice)
    grouped = [Row(inputs, tuple(members)) for inputs, members in rows.items()]
    return sorted(grouped, key=lambda row: (-len(row.inputs), row.inputs))


def generations(
    encoder: Encoder, requests: Sequence[Request], samples: Sequence[Sample], max_length: int
) -> list[Generation]:
    """Return the texts to generate. A prompt that leaves no room for an answer is cut on the left and marked."""
    positions = list(dict.fromkeys(position for position, _, _ in samples))
    prompts = dict(zip(positions, encoder.prompts([requests[i] for i in positions]), strict=True))
    jobs = []
    for position, sample, seed in samples:
        request = requests[position]
        prompt = prompts[position] or [encoder.prefix_id]
        size, budget = fit(len(prompt), limit_of(request), max_length)
        jobs.append(Generation(position, sample, request, seed, tuple(prompt[-size:]), budget, size < len(prompt)))
    return sorted(jobs, key=lambda job: job.order)


def choices(encoder: Encoder, requests: Sequence[Request], samples: Sequence[Sample], max_length: int) -> list[Choice]:
    """Return the continuations to score. A context that is too long is cut on the left and marked.

    Raises RequestFailed for a continuation that alone exceeds `max_length`.
    """
    pairs = encoder.pairs([requests[position] for position, _, _ in samples])
    jobs = []
    for (position, sample, _), (context, continuation) in zip(samples, pairs, strict=True):
        if len(continuation) > max_length:
            request = requests[position]
            choice = f"choice {request.index} of document {request.doc_id} has {len(continuation)} tokens"
            raise RequestFailed(f"{request.task}: {choice}, more than the context of {max_length}; raise --max-length")
        size = min(len(context), max_length + 1 - len(continuation))
        cut = tuple(context[len(context) - size :])
        jobs.append(Choice(position, sample, requests[position], cut, tuple(continuation), size < len(context)))
    return jobs
