"""The end of each row of a batch, and the next token of a sampled row, independent of the other rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, StoppingCriteria

from olmes_suite.models.local.tokenizer import Tokenizer

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


class RowSampler(LogitsProcessor):
    """A processor that samples: temperature, nucleus (top-p) and a draw by the Gumbel-max trick.

    It leaves one token per sampled row for greedy decoding to take. Each row has its own random generator, so that its
    draws depend only on its seed and its logits, whatever the batch. Rows of temperature 0 stay unchanged.
    """

    def __init__(
        self,
        temperatures: Sequence[float],
        top_ps: Sequence[float],
        sources: Sequence[int | torch.Generator],
        device: torch.device,
    ) -> None:
        """Prepare the rows. `sources`: the seed of each row's random generator, or the generator itself."""
        self.rows = [row for row, temperature in enumerate(temperatures) if temperature > 0]
        self.generators = [generator(sources[row], device) for row in self.rows]
        self.temperature = torch.tensor([temperatures[row] for row in self.rows], device=device).unsqueeze(1)
        self.top_p = torch.tensor([top_ps[row] for row in self.rows], device=device).unsqueeze(1)
        self.nucleus = any(top_ps[row] < 1 for row in self.rows)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the [rows, vocabulary] scores, at minus infinity for all but the drawn token of each sampled row."""
        logits = scores[self.rows].float() / self.temperature
        if self.nucleus:
            logits = self._nucleus(logits)
        noise = torch.stack([torch.empty_like(logits[0]).exponential_(generator=source) for source in self.generators])
        drawn = (logits - noise.log()).argmax(dim=-1)
        scores = scores.clone()
        scores[self.rows] = -torch.inf
        scores[self.rows, drawn] = 0.0
        return scores

    def _nucleus(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep the likeliest tokens, up to the one that reaches top_p (Holtzman et al. 2020, section 3.1)."""
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        share = ordered.softmax(dim=-1)
        outside = share.cumsum(dim=-1) - share >= self.top_p
        outside[:, 0] = False
        return logits.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
