"""A tree of the shared prefixes of token sequences that are worth computing once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Tokens = tuple[int, ...]


@dataclass(slots=True, eq=False)
class Node:
    """Tokens `start` to `end`, shared by all sequences below the node, after the tokens of the parent."""

    start: int
    end: int
    tokens: Tokens
    parent: Node | None = None
    users: int = 0
    """The number of unfinished sequences below the node."""
    cache: Any = field(default=None, repr=False)
    """The engine's cache for these tokens."""

    def path(self) -> list[Node]:
        """Return the node's ancestors and the node, from the root down."""
        nodes: list[Node] = [self]
        while (parent := nodes[-1].parent) is not None:
            nodes.append(parent)
        return nodes[::-1]


def common(first: Tokens, last: Tokens, known: int = 0) -> int:
    """Count the tokens that two sequences share at the start, of which the first `known` need no comparison."""
    for place, (one, other) in enumerate(zip(first[known:], last[known:], strict=False), known):
        if one != other:
            return place
    return min(len(first), len(last))


def prefixes(sequences: Sequence[Tokens], *, tokens: int, rows: int) -> list[Node | None]:
    """Return the deepest shared prefix of each sequence, or None for a sequence without one.

    A node has at least `tokens` tokens and `rows` sequences below it, and leaves at least one token of each sequence.
    Equal sequences share all tokens except the last.
    """
    order = sorted(range(len(sequences)), key=lambda i: sequences[i])
    nodes: list[Node | None] = [None] * len(sequences)
    open_: list[tuple[int, int, int, Node | None]] = [(0, len(order), 0, None)]
    while open_:
        low, high, known, parent = open_.pop()
        for i in order[low:high]:
            nodes[i] = parent
        if high - low < rows:
            continue
        shortest = min(len(sequences[i]) for i in order[low:high])
        # the order is sorted, so that all share the common start of the first and the last
        same = min(common(sequences[order[low]], sequences[order[high - 1]], min(known, shortest)), shortest - 1)
        depth = parent.end if parent else 0
        if same - depth >= tokens:
            parent = Node(depth, same, sequences[order[low]][depth:same], parent)
            for i in order[low:high]:
                nodes[i] = parent
        open_.extend((a, b, max(same, 0), parent) for a, b in _parts(sequences, order, low, high, max(same, known)))
    for node in nodes:
        for member in node.path() if node else ():
            member.users += 1
    return nodes


def _parts(sequences: Sequence[Tokens], order: Sequence[int], low: int, high: int, depth: int) -> list[tuple[int, int]]:
    """Return the ranges of `order` with the same token at `depth`, of sequences that continue after it."""
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
    """Return the range without the sequences that end at `depth`, which come first in the order."""
    first = low
    while first < high and len(sequences[order[first]]) <= depth + 1:
        first += 1
    return [(first, high)] if low < first < high else []


def _at(sequence: Tokens, depth: int) -> int | None:
    return sequence[depth] if depth < len(sequence) else None


def by_prefix(sequences: Sequence[Tokens], nodes: Sequence[Node | None]) -> list[int]:
    """Return an order in which sequences with the same prefix are adjacent, the longest first."""
    first: dict[int, int] = {}
    for place in sorted(range(len(sequences)), key=lambda i: sequences[i]):
        first.setdefault(id(nodes[place]), place)
    rank = {key: number for number, key in enumerate(first)}
    return sorted(range(len(sequences)), key=lambda i: (rank[id(nodes[i])], -len(sequences[i]), sequences[i], i))


def release(node: Node | None) -> None:
    """Count one sequence below the node as finished, and free the caches that no other sequence needs."""
    for member in node.path() if node else ():
        member.users -= 1
        if not member.users:
            member.cache = None
