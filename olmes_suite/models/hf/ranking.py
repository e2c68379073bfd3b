"""Log-likelihoods with each context encoded once, followed in the same row by its choices, which are masked apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from olmes_suite.models.hf.prefix_tree import Node, Tokens
from olmes_suite.models.hf.reuse import SharedModel
from olmes_suite.models.hf.shared_attention import Pass

LOGITS = 2**26
"""The largest number of logits in memory at one time."""


@dataclass(slots=True)
class Ranked:
    """A context and the tokens of its choices; `node` is the shared prefix of the context."""

    context: Tokens
    choices: tuple[Tokens, ...]
    node: Node | None = None

    @property
    def rest(self) -> Tokens:
        """The part of the context after the shared prefix."""
        return self.context[self.node.end if self.node else 0 :]

    @property
    def tokens(self) -> list[int]:
        """The row: the rest of the context, and all tokens of each choice except its last."""
        return [*self.rest, *(token for choice in self.choices for token in choice[:-1])]

    @property
    def picks(self) -> list[int]:
        """The indices in the row whose logits predict the choices' tokens, choice by choice."""
        last, at, indices = len(self.rest) - 1, len(self.rest), []
        for choice in self.choices:
            indices += [last, *range(at, at + len(choice) - 1)]
            at += len(choice) - 1
        return indices

    def layout(self) -> tuple[list[int], list[int]]:
        """Return, for the tokens of the row, the positions in their sequences and the numbers of their choices.

        The number of the context is 0.
        """
        end = len(self.context)
        positions, parts = list(range(end - len(self.rest), end)), [0] * len(self.rest)
        for number, choice in enumerate(self.choices, 1):
            positions += range(end, end + len(choice) - 1)
            parts += [number] * (len(choice) - 1)
        return positions, parts


def score(model: SharedModel, rows: Sequence[Ranked]) -> list[list[tuple[float, bool]]]:
    """Return (log-likelihood, whether the tokens are the likeliest) of each choice of each row, from one pass."""
    device = model.device
    length = max(len(row.tokens) for row in rows)
    width = max(len(row.picks) for row in rows)
    layouts = [row.layout() for row in rows]
    ids = _padded([row.tokens for row in rows], length, device)
    parts = _padded([part for _, part in layouts], length, device, -1)
    picks = _padded([row.picks for row in rows], width, device)
    visible = None
    if bool((parts > 0).any()):
        line = torch.arange(length, device=device)
        same = (parts[:, None, :] == 0) | (parts[:, None, :] == parts[:, :, None])
        visible = same & (line[None, None, :] <= line[None, :, None])
    positions = _padded([place for place, _ in layouts], length, device)
    state = Pass(positions, model.prefixes([row.node for row in rows]), visible)
    logits = model.logits(ids, state, picks)
    targets = _padded([[token for choice in row.choices for token in choice] for row in rows], width, device)
    values = torch.stack(
        [_log_probs(row.float(), target) for row, target in zip(logits, targets, strict=True)]
    ).tolist()
    greedy = (logits.argmax(dim=-1) == targets).tolist()
    return [list(_by_choice(*columns)) for columns in zip(rows, values, greedy, strict=True)]


def _log_probs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the log-probabilities (W) of targets (W) under logits (W, vocabulary)."""
    return logits.log_softmax(dim=-1).gather(1, targets[:, None])[:, 0]


def _by_choice(row: Ranked, values: Sequence[float], greedy: Sequence[bool]) -> Iterator[tuple[float, bool]]:
    at = 0
    for choice in row.choices:
        span = slice(at, at + len(choice))
        yield float(sum(values[span])), all(greedy[span])
        at += len(choice)


def _padded(rows: Sequence[Sequence[int]], width: int, device: torch.device, pad: int = 0) -> torch.Tensor:
    return torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)


def batches(rows: Sequence[Ranked], most_rows: int, most_tokens: int, vocabulary: int) -> Iterator[list[Ranked]]:
    """Yield the rows in order, in batches limited by rows, tokens (padding included) and logits."""
    batch: list[Ranked] = []
    length = width = 0
    for row in rows:
        longer, wider = max(length, len(row.tokens)), max(width, len(row.picks))
        number = len(batch) + 1
        full = number > most_rows or number * longer > most_tokens or number * wider * vocabulary > LOGITS
        if batch and full:
            yield batch
            batch, longer, wider = [], len(row.tokens), len(row.picks)
        batch.append(row)
        length, width = longer, wider
    if batch:
        yield batch
