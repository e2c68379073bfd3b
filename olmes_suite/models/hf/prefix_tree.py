"""Which token sequences start alike: a tree of the prefixes that are worth computing once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Tokens = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Node:
    """Tokens `start` to `end` that all sequences below have in common, after those of the parent."""

    start: int
    end: int
    tokens: Tokens
    parent: Node | None = None
    users: int = 0
    """Sequences below that are not done."""
    cache: Any = field(default=None, repr=False)
    """What an engine keeps for these tokens."""

    def path(self) -> list[Node]:
        """The node's ancestors and itself, from the root down."""
        found: list[Node] = [self]
        while (parent := found[-1].parent) is not None:
            found.append(parent)
        return found[::-1]


def common(first: Tokens, last: Tokens, known: int = 0) -> int:
    """Number of tokens that two sequences have in common at their start; `known` of them are known to be."""
    for place, (one, other) in enumerate(zip(first[known:], last[known:], strict=False), known):
        if one != other:
            return place
    return min(len(first), len(last))


def prefixes(sequences: Sequence[Tokens], *, tokens: int, rows: int) -> list[Node | None]:
    """The deepest shared prefix of each sequence, or None.

    A node has at least `tokens` tokens and `rows` sequences below it, and leaves each of them at least one token of its
    own. Equal sequences share all but their last token.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    found: list[Node | None] = [None] * len(sequences)
    open_: list[tuple[int, int, int, Node | None]] = [(0, len(order), 0, None)]
    while open_:
        low, high, known, parent = open_.pop()
        for i in order[low:high]:
            found[i] = parent
        if high - low < rows:
            continue
        shortest = min(len(sequences[i]) for i in order[low:high])
        # sorted: what the first and the last have in common, all have
        same = min(common(sequences[order[low]], sequences[order[high - 1]], min(known, shortest)), shortest - 1)
        depth = parent.end if parent else 0
        if same - depth >= tokens:
            parent = Node(depth, same, sequences[order[low]][depth:same], parent)
            for i in order[low:high]:
                found[i] = parent
        open_.extend((a, b, max(same, 0), parent) for a, b in _parts(sequences, order, low, high, max(same, known)))
    for node in found:
        for one in node.path() if node else ():
            one.users += 1
    return found


def _parts(sequences: Sequence[Tokens], order: Sequence[int], low: int, high: int, depth: int) -> list[tuple[int, int]]:
    """Ranges of `order` that have the same token at `depth`, of sequences that go on behind it."""
    ranges = []
    start = low
    for place in range(low, high + 1):
        if place == high or _at(sequences[order[place]], depth) != _at(sequences[order[start]], depth):
            if len(sequences[order[start]]) > depth + 1 or place - start < high - low:
                ranges.append((start, place))
            start = place
    return [part for part in ranges if part != (low, high)] or _shorter(sequences, order, low, high, depth)


def _shorter(
    sequences: Sequence[Tokens], order: Sequence[int], low: int, high: int, depth: int
) -> list[tuple[int, int]]:
    """What is left when the sequences that end at `depth` are taken off; they come first in the order."""
    first = low
    while first < high and len(sequences[order[first]]) <= depth + 1:
        first += 1
    return [(first, high)] if low < first < high else []


def _at(sequence: Tokens, depth: int) -> int | None:
    return sequence[depth] if depth < len(sequence) else None


def by_prefix(sequences: Sequence[Tokens], nodes: Sequence[Node | None]) -> list[int]:
    """An order in which sequences with the same prefix stand together, the longest of them first."""
    first: dict[int, int] = {}
    for place in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        first.setdefault(id(nodes[place]), place)
    rank = {key: number for number, key in enumerate(first)}
    return sorted(range(len(sequences)), key=lambda i: (rank[id(nodes[i])], -len(sequences[i]), sequences[i], i))


def release(node: Node | None) -> None:
    """One sequence below is done: what nobody needs any more is let go."""
    for one in node.path() if node else ():
        one.users -= 1
        if not one.users:
            one.cache = None
