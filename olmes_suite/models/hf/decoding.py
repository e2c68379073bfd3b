"""The end of each row of a batch, and the next token of a sampled row, independent of the other rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import LogitsProcessor, StoppingCriteria

from olmes_suite.models.local.tokenizer import Tokenizer
from olmes_suite.records import Request

BROKEN = -1
"""Replaces a token whose logit is NaN or infinite, which argmax takes for the largest."""
LOOK_BACK = 2
"""Tokens decoded before the part that may hold a stop string, since some tokenizers strip a text's first space."""


class RowStop:
    """The end of one row: an end-of-text token, one of its stop strings, or its token limit.

    `tokens` holds the row's answer until then. `reason` is stop, length, or broken where no next token could be chosen.
    """

    def __init__(
        self, tokenizer: Tokenizer, stops: Sequence[str], budget: int, end_ids: Sequence[int], pieces: dict[int, str]
    ) -> None:
        """Prepare the end of a row. `pieces` caches the texts of single tokens for all rows."""
        self.tokenizer, self.pieces = tokenizer, pieces
        self.stops = [stop for stop in stops if stop]
        self.budget = budget
        self.end_ids = frozenset(end_ids)
        # a token has at least one byte, so that a stop string has at most as many tokens as bytes
        self.window = max((len(stop.encode()) for stop in self.stops), default=0) + LOOK_BACK
        ends = {stop[-1] for stop in self.stops}
        # the text of a single token shows its ASCII characters, but may lack a space at its start and parts of others
        self.ends = ends if all(end.isascii() and end != " " for end in ends) else None
        self.tokens: list[int] = []
        self.reason: str | None = None

    def add(self, token: int) -> None:
        """Add the next token; tokens after the end are ignored."""
        if self.reason is None and token == BROKEN:
            self.reason = "broken"
        elif self.reason is None:
            self.tokens.append(token)
            self.reason = self._reason(token)

    def _reason(self, token: int) -> str | None:
        if token in self.end_ids:
            return "stop"
        if self.stops and self._may_end(token):
            tail = self.tokenizer.decode(self.tokens[-self.window :], skip_special_tokens=False)
            if any(stop in tail for stop in self.stops):
                return "stop"
        return "length" if len(self.tokens) >= self.budget else None

    def _may_end(self, token: int) -> bool:
        """Return whether a stop string can end in this token."""
        if self.ends is None:
            return True
        piece = self.pieces.get(token)
        if piece is None:
            piece = self.pieces[token] = self.tokenizer.decode([token], skip_special_tokens=False)
        return any(end in piece for end in self.ends)


def checked(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Replace tokens [rows] by BROKEN where their logits [rows, vocabulary] are not finite.

    Every choice takes a NaN or infinite logit for the largest, so that checking the chosen token is enough. Stays on
    the device.
    """
    return torch.where(logits.gather(1, tokens[:, None])[:, 0].isfinite(), tokens, BROKEN)


class RowWatch(LogitsProcessor):
    """A processor that records which rows' logits are finite, before other processors change them."""

    def __init__(self) -> None:
        self.finite: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the [rows, vocabulary] scores unchanged."""
        self.finite = scores.amax(dim=-1).isfinite()
        return scores


class RowPenalty(LogitsProcessor):
    """A processor that applies the penalties of each row, given as None for a row without."""

    def __init__(self, rows: Sequence[RowPenalties | None], width: int) -> None:
        """`width`: the number of columns of the prompts, whose tokens `rows` hold already."""
        self.rows, self.width = rows, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the [rows, vocabulary] scores with penalties for the tokens in [rows, length] `input_ids`."""
        scores = scores.clone()
        last = input_ids[:, -1].tolist() if input_ids.shape[1] > self.width else None
        for place, row in enumerate(self.rows):
            if row is not None:
                if last is not None:
                    row.add(last[place])
                scores[place] = row.apply(scores[place])
        return scores


class RowStopper(StoppingCriteria):
    """A criterion that stops each row of a batch separately; tokens that transformers appends later are ignored."""

    def __init__(self, rows: Sequence[RowStop], watch: RowWatch) -> None:
        self.rows, self.watch = rows, watch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
        """Return [rows] booleans that are True for finished rows, from [rows, length] token ids."""
        assert self.watch.finite is not None
        tokens = torch.where(self.watch.finite, input_ids[:, -1], BROKEN)
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.add(token)
        return torch.tensor([row.reason is not None for row in self.rows], device=input_ids.device)


def generator(source: int | torch.Generator, device: torch.device) -> torch.Generator:
    """Return the random generator of a seed."""
    if isinstance(source, torch.Generator):
        return source
    return torch.Generator(device=device).manual_seed(source % 2**63)


@dataclass(frozen=True, slots=True)
class Choosing:
    """How the tokens of a row are chosen from their logits."""

    temperature: float = 0.0
    """0 for the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0 for all tokens."""
    min_p: float = 0.0
    repetition: float = 1.0
    presence: float = 0.0
    frequency: float = 0.0

    @classmethod
    def of(cls, request: Request, repetition: float = 1.0) -> Choosing:
        """Read a request. `repetition` is the checkpoint's penalty, for a request without its own."""
        return cls(
            request.temperature or 0.0,
            1.0 if request.top_p is None else request.top_p,
            request.top_k or 0,
            request.min_p or 0.0,
            repetition if request.repetition_penalty is None else request.repetition_penalty,
            request.presence_penalty or 0.0,
            request.frequency_penalty or 0.0,
        )

    @property
    def penalised(self) -> bool:
        """Whether logits depend on the tokens before."""
        return self.repetition != 1 or self.presence != 0 or self.frequency != 0

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is taken."""
        return not self.temperature and not self.penalised


class RowPenalties:
    """The penalties of one row for tokens that it has.

    The repetition penalty concerns the prompt and the answer, as in transformers (Keskar et al. 2019); presence and
    frequency penalties concern the answer, as in OpenAI's interface and in vLLM.
    """

    def __init__(self, choosing: Choosing, prompt: Sequence[int]) -> None:
        self.choosing = choosing
        self._new = list(prompt)
        """Tokens that are not yet in `_seen`."""
        self._answer: list[int] = []
        """Tokens that are not yet in `_counts`."""
        self._seen = self._counts = torch.empty(0)

    def add(self, token: int) -> None:
        """Add the next token of the answer."""
        self._new.append(token)
        self._answer.append(token)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the [vocabulary] logits of the row with the penalties of its tokens."""
        size, how = logits.shape[-1], self.choosing
        if not len(self._seen):
            self._seen = torch.zeros(size, dtype=torch.bool, device=logits.device)
            self._counts = torch.zeros(size, device=logits.device)
        new = torch.tensor([token for token in self._new if token < size], dtype=torch.long, device=logits.device)
        answer = torch.tensor([token for token in self._answer if token < size], dtype=torch.long, device=logits.device)
        self._new, self._answer = [], []
        self._seen[new] = True
        self._counts.index_add_(0, answer, torch.ones_like(answer, dtype=self._counts.dtype))
        if how.repetition != 1:
            less_likely = torch.where(logits < 0, logits * how.repetition, logits / how.repetition)
            logits = torch.where(self._seen, less_likely, logits)
        return logits - how.frequency * self._counts - how.presence * (self._counts > 0)


class RowSampler(LogitsProcessor):
    """A processor that samples: temperature, top-k, nucleus (top-p), min-p, and a draw by the Gumbel-max trick.

    The steps have the order of transformers.

    It leaves one token per sampled row for greedy decoding to take. Each row has its own random generator, so that its
    draws depend only on its seed and its logits, whatever the batch. Rows of temperature 0 stay unchanged.
    """

    def __init__(
        self, choosings: Sequence[Choosing], sources: Sequence[int | torch.Generator], device: torch.device
    ) -> None:
        """Prepare the rows. `sources`: the seed of each row's random generator, or the generator itself."""
        self.rows = [row for row, choosing in enumerate(choosings) if choosing.temperature > 0]
        chosen = [choosings[row] for row in self.rows]
        self.generators = [generator(sources[row], device) for row in self.rows]
        self.temperature = torch.tensor([how.temperature for how in chosen], device=device).unsqueeze(1)
        self.top_p = torch.tensor([how.top_p for how in chosen], device=device).unsqueeze(1)
        self.nucleus = any(how.top_p < 1 for how in chosen)
        self.top_ks = [how.top_k for how in chosen]
        self.min_p = torch.tensor([how.min_p for how in chosen], device=device).unsqueeze(1)
        self.least = any(how.min_p > 0 for how in chosen)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the [rows, vocabulary] scores, at minus infinity for all but the drawn token of each sampled row."""
        if not self.rows:
            return scores
        logits = self.filtered(scores[self.rows].float())
        noise = torch.stack([torch.empty_like(logits[0]).exponential_(generator=source) for source in self.generators])
        drawn = (logits - noise.log()).argmax(dim=-1)
        scores = scores.clone()
        scores[self.rows] = -torch.inf
        scores[self.rows, drawn] = 0.0
        return scores

    def filtered(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the [sampled rows, vocabulary] logits that a draw follows, at minus infinity for tokens left out."""
        logits = logits / self.temperature
        if any(self.top_ks):
            logits = self._top_k(logits)
        if self.nucleus:
            logits = self._nucleus(logits)
        if self.least:
            shares = logits.softmax(dim=-1)
            logits = logits.masked_fill(shares < self.min_p * shares.amax(dim=-1, keepdim=True), -torch.inf)
        return logits

    def _top_k(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep the `top_k` likeliest tokens of each row, and tokens as likely as the last of them."""
        size = logits.shape[-1]
        kept = torch.tensor([min(k, size) or size for k in self.top_ks], device=logits.device)
        ordered = logits.topk(int(kept.max()), dim=-1).values
        return logits.masked_fill(logits < ordered.gather(1, kept.unsqueeze(1) - 1), -torch.inf)

    def _nucleus(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep the likeliest tokens, up to the one that reaches top_p (Holtzman et al. 2020, section 3.1)."""
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        share = ordered.softmax(dim=-1)
        outside = share.cumsum(dim=-1) - share >= self.top_p
        outside[:, 0] = False
        return logits.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
