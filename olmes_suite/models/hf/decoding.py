"""Token by token: when a row of a batch stops, and which token a sampled row takes. No row sees another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, StoppingCriteria

BROKEN = -1
"""In place of a token whose logit is not a number. What NaN and infinity do: argmax takes them for the largest."""
LOOK_BACK = 2
"""Tokens decoded before the part that a stop string may lie in: some tokenizers strip a text's first space."""


class RowStop:
    """Stops one row: at an end-of-text token, at one of its own stop strings, or at its own token limit.

    Holds what the row has said until then. `reason` is stop, length, or broken: there was no next token.
    """

    def __init__(
        self, tokenizer: Any, stops: Sequence[str], budget: int, end_ids: Sequence[int], pieces: dict[int, str]
    ) -> None:
        """`pieces` keeps the texts of single tokens, for all rows."""
        self.tokenizer, self.pieces = tokenizer, pieces
        self.stops = [stop for stop in stops if stop]
        self.budget = budget
        self.end_ids = frozenset(end_ids)
        # a token is at least one byte, so a stop string lies within as many tokens as it has bytes
        self.window = max((len(stop.encode()) for stop in self.stops), default=0) + LOOK_BACK
        ends = {stop[-1] for stop in self.stops}
        # a token's own text tells of its ASCII characters, but not of a space at its start or of parts of others
        self.ends = ends if all(end.isascii() and end != " " for end in ends) else None
        self.tokens: list[int] = []
        self.reason: str | None = None

    def add(self, token: int) -> None:
        """The next token; what comes after the end is not looked at."""
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
        """Whether a stop string can end in this token."""
        if self.ends is None:
            return True
        piece = self.pieces.get(token)
        if piece is None:
            piece = self.pieces[token] = self.tokenizer.decode([token], skip_special_tokens=False)
        return any(end in piece for end in self.ends)


def checked(tokens: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The tokens (rows), taken by logits (rows, vocabulary), with BROKEN where there was nothing to choose by.

    The largest logit is NaN or infinite if any is, and every way of choosing takes it then. Stays on the device.
    """
    return torch.where(logits.gather(1, tokens[:, None])[:, 0].isfinite(), tokens, BROKEN)


class RowWatch(LogitsProcessor):
    """Sees the logits as they come from the model, and remembers which rows' are numbers."""

    def __init__(self) -> None:
        self.whole: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[rows, vocabulary] scores as they are."""
        self.whole = scores.amax(dim=-1).isfinite()
        return scores


class RowStopper(StoppingCriteria):
    """Stops each row of a batch by itself; what transformers appends afterwards is not looked at."""

    def __init__(self, rows: Sequence[RowStop], watch: RowWatch) -> None:
        self.rows, self.watch = rows, watch

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """[rows] booleans: which rows are done, given [rows, length] token ids."""
        assert self.watch.whole is not None
        tokens = torch.where(self.watch.whole, input_ids[:, -1], BROKEN)
        for row, token in zip(self.rows, tokens.tolist(), strict=True):
            row.add(token)
        return torch.tensor([row.reason is not None for row in self.rows], device=input_ids.device)


def generator(source: int | torch.Generator, device: torch.device) -> torch.Generator:
    """The random generator of a seed."""
    if isinstance(source, torch.Generator):
        return source
    return torch.Generator(device=device).manual_seed(source % 2**63)


class RowSampler(LogitsProcessor):
    """Temperature, nucleus (top-p) and a draw by the Gumbel-max trick, each row with a random generator of its own.

    Leaves one token per sampled row, so that greedy decoding takes it: a row's draws depend on its seed and its own
    logits only, whatever else is in the batch. Rows of temperature 0 are left as they are.
    """

    def __init__(
        self,
        temperatures: Sequence[float],
        top_ps: Sequence[float],
        sources: Sequence[int | torch.Generator],
        device: torch.device,
    ) -> None:
        """`sources`: of each row, the seed of its random generator, or the generator itself."""
        self.rows = [row for row, temperature in enumerate(temperatures) if temperature > 0]
        self.generators = [generator(sources[row], device) for row in self.rows]
        self.temperature = torch.tensor([temperatures[row] for row in self.rows], device=device).unsqueeze(1)
        self.top_p = torch.tensor([top_ps[row] for row in self.rows], device=device).unsqueeze(1)
        self.nucleus = any(top_ps[row] < 1 for row in self.rows)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """[rows, vocabulary] scores with all but the drawn token of each sampled row at minus infinity."""
        logits = scores[self.rows].float() / self.temperature
        if self.nucleus:
            logits = self._cut(logits)
        noise = torch.stack([torch.empty_like(logits[0]).exponential_(generator=source) for source in self.generators])
        drawn = (logits - noise.log()).argmax(dim=-1)
        scores = scores.clone()
        scores[self.rows] = -torch.inf
        scores[self.rows, drawn] = 0.0
        return scores

    def _cut(self, logits: torch.Tensor) -> torch.Tensor:
        """Keep the likeliest tokens up to and with the one that reaches top_p (Holtzman et al. 2020, section 3.1)."""
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        share = ordered.softmax(dim=-1)
        outside = share.cumsum(dim=-1) - share >= self.top_p
        outside[:, 0] = False
        return logits.masked_fill(torch.zeros_like(outside).scatter(1, order, outside), -torch.inf)
