"""Log-likelihoods: a context is encoded once, its choices behind it in the same row, unseen by each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from olmes_suite.models.hf.prefix_tree import Node, Tokens
from olmes_suite.models.hf.reuse import SharedModel
from olmes_suite.models.hf.shared_attention import Pass

LOGITS = 2**26
"""Logits in memory at one time."""


@dataclass(slots=True)
class Ranked:
    """One context and its choices' tokens; `node` is its shared prefix."""

    context: Tokens
    choices: tuple[Tokens, ...]
    node: Node | None = None

    @property
    def own(self) -> Tokens:
        """The context behind the shared prefix."""
        return self.context[self.node.end if self.node else 0 :]

    @property
    def tokens(self) -> list[int]:
        """The row: the context's own part, and of each choice what a later token of it looks at."""
        return [*self.own, *(token for choice in self.choices for token in choice[:-1])]

    @property
    def picks(self) -> list[int]:
        """Places in the row whose logits tell of the choices' tokens, choice by choice."""
        last, at, found = len(self.own) - 1, len(self.own), []
        for choice in self.choices:
            found += [last, *range(at, at + len(choice) - 1)]
            at += len(choice) - 1
        return found

    def layout(self) -> tuple[list[int], list[int]]:
        """(position in its sequence, number of its choice; 0: context) of each token of the row."""
        end = len(self.context)
        positions, parts = list(range(end - len(self.own), end)), [0] * len(self.own)
        for number, choice in enumerate(self.choices, 1):
            positions += range(end, end + len(choice) - 1)
            parts += [number] * (len(choice) - 1)
        return positions, parts


def score(model: SharedModel, rows: Sequence[Ranked]) -> list[list[tuple[float, bool]]]:
    """(log-likelihood, whether it is what the model would say) of each choice of each row, in one pass."""
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
    values = torch.stack([_own(row.float(), target) for row, target in zip(logits, targets, strict=True)]).tolist()
    greedy = (logits.argmax(dim=-1) == targets).tolist()
    return [list(_by_choice(row, *found)) for row, *found in zip(rows, values, greedy, strict=True)]


def _own(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """(W) log-probabilities of targets (W) under logits (W, vocabulary)."""
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
    """The rows in their order, so many at a time as tokens (padding included) and logits allow."""
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
