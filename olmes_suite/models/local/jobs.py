"""What an engine on this machine does for requests: texts to generate, continuations to score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import RequestFailed
from olmes_suite.models.base import DEFAULT_MAX_TOKENS, fit
from olmes_suite.models.local.encoding import Encoder
from olmes_suite.models.stops import cut_at_stop
from olmes_suite.records import Request, Response

Wanted = tuple[int, int, int]
"""(position of the request, sample, seed)"""


def no_number(request: Request) -> RequestFailed:
    """What to raise where a model's output for a request is NaN or infinite: an error, never a score."""
    return RequestFailed(
        f"{request.task}: the model's output for document {request.doc_id} is not a number: its weights are damaged, "
        "or too large for this dtype; check the checkpoint, or try --dtype float32"
    )


def limit_of(request: Request) -> int:
    """Tokens of an answer at most."""
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def wanted_of(seeds: Sequence[Sequence[int | None]]) -> list[Wanted]:
    """The samples that are asked for."""
    return [(i, sample, seed) for i, row in enumerate(seeds) for sample, seed in enumerate(row) if seed is not None]


@dataclass(frozen=True, slots=True)
class Ends:
    """Where an answer ends, whatever its request says."""

    ids: tuple[int, ...]
    """Tokens that end it."""
    text: str | None
    """The EOS token's text, which ends it too when it is spelled out."""

    @classmethod
    def of(cls, tokenizer: Any, eos: int | Sequence[int] | None) -> Ends:
        """`eos`: what the model's generation_config names."""
        own = [eos] if eos is None or isinstance(eos, int) else eos
        ids = {*own, tokenizer.eos_token_id}
        return cls(tuple(sorted(token for token in ids if token is not None)), tokenizer.eos_token)

    def stops(self, request: Request) -> list[str]:
        """The request's stop strings and the model's own."""
        return [stop for stop in (*request.stop, self.text) if stop]


@dataclass(frozen=True, slots=True)
class Generation:
    """One sample to generate."""

    position: int
    sample: int
    request: Request
    seed: int
    prompt: tuple[int, ...]
    budget: int
    """New tokens at most."""
    truncated: bool

    @property
    def order(self) -> tuple[int, int, int, int]:
        """Rows that may run equally long together, the longest prompts first: what does not fit shows at once."""
        return -limit_of(self.request), -len(self.prompt), self.position, self.sample

    def response(self, tokens: Sequence[int], reason: str, tokenizer: Any, ends: Ends) -> Response:
        """The answer made of these tokens, cut at the first stop string; `reason`: stop or length."""
        said = tokens[:-1] if tokens and tokens[-1] in ends.ids else tokens
        raw = tokenizer.decode(said, skip_special_tokens=True)
        text = cut_at_stop(raw, ends.stops(self.request))
        return Response(
            text=text,
            finish_reason=reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=len(tokens),
            truncated=self.truncated,
            raw=raw if raw != text else None,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """One continuation to score."""

    position: int
    sample: int
    request: Request
    context: tuple[int, ...]
    tokens: tuple[int, ...]
    """The continuation's."""
    truncated: bool

    @property
    def inputs(self) -> tuple[int, ...]:
        """What goes into the model: the last token is only looked for in what comes out."""
        return self.context + self.tokens[:-1]

    def response(self, value: float, greedy: bool) -> Response:
        """The response with this log-likelihood; `greedy`: the model itself would go on like this.

        Raises RequestFailed for NaN and for infinity. Minus infinity is no exception: a log-softmax in float32 gives
        it only where the logit is infinite itself, and no JSON file could hold it.
        """
        if not math.isfinite(value):
            raise no_number(self.request)
        return Response(
            loglikelihood=value,
            is_greedy=greedy,
            prompt_tokens=len(self.context),
            completion_tokens=len(self.tokens),
            truncated=self.truncated,
        )


@dataclass(frozen=True, slots=True)
class Row:
    """One forward pass, shared by all continuations that differ in their last token only."""

    inputs: tuple[int, ...]
    choices: tuple[Choice, ...]

    @property
    def width(self) -> int:
        """Positions whose logits are needed, counted from the end."""
        return max(len(choice.tokens) for choice in self.choices)


def rows_of(choices: list[Choice]) -> list[Row]:
    """The choices by forward pass, the longest first."""
    rows: dict[tuple[int, ...], list[Choice]] = {}
    for choice in choices:
        rows.setdefault(choice.inputs, []).append(choice)
    made = [Row(inputs, tuple(found)) for inputs, found in rows.items()]
    return sorted(made, key=lambda row: (-len(row.inputs), row.inputs))


def generations(
    encoder: Encoder, requests: Sequence[Request], wanted: Sequence[Wanted], max_length: int
) -> list[Generation]:
    """The texts to generate; a prompt that leaves the answer no room is cut on the left and marked."""
    positions = list(dict.fromkeys(position for position, _, _ in wanted))
    prompts = dict(zip(positions, encoder.prompts([requests[i] for i in positions]), strict=True))
    jobs = []
    for position, sample, seed in wanted:
        request = requests[position]
        prompt = prompts[position] or [encoder.prefix_id]
        kept, budget = fit(len(prompt), limit_of(request), max_length)
        jobs.append(Generation(position, sample, request, seed, tuple(prompt[-kept:]), budget, kept < len(prompt)))
    return sorted(jobs, key=lambda job: job.order)


def choices(encoder: Encoder, requests: Sequence[Request], wanted: Sequence[Wanted], max_length: int) -> list[Choice]:
    """The continuations to score; a context that is too long is cut on the left and marked.

    Raises RequestFailed for a continuation that does not fit by itself.
    """
    pairs = encoder.pairs([requests[position] for position, _, _ in wanted])
    found = []
    for (position, sample, _), (context, continuation) in zip(wanted, pairs, strict=True):
        if len(continuation) > max_length:
            request = requests[position]
            what = f"choice {request.index} of document {request.doc_id} has {len(continuation)} tokens"
            raise RequestFailed(f"{request.task}: {what}, more than the context of {max_length}; raise --max-length")
        kept = min(len(context), max_length + 1 - len(continuation))
        cut = tuple(context[len(context) - kept :])
        found.append(Choice(position, sample, requests[position], cut, tuple(continuation), kept < len(context)))
    return found
