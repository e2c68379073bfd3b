"""The exact comparison of a batch's candidates with the index, and its result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice

import numpy as np
from numpy.typing import NDArray

from decontam.matching import exact
from decontam.matching.filter import bits, shift
from decontam.matching.index import Index
from decontam.text import tokens, vocabulary
from decontam.training_data.batches import Batch

Span = tuple[int, int]
NGRAM, SHORT, SHARED, NEAR = range(4)
KINDS = ("ngram", "short", "shared", "near")
"""What a pair is. `ngram`: a hit. `short`: the row contains the whole of an item that is shorter than an n-gram.
`shared`: the paper's rule matches, but too little of it is the item's own text. `near`: the item's own text matches in
part, and the rest of it (by the rule `strict`, its words or numbers) is missing. The last two decide nothing."""
_PIECES = 256
"""Pieces of a text that are tokenised together."""


@dataclass(frozen=True, slots=True)
class Side:
    """The matching stretches of one text: for each, the part (field or turn) and [start, end) in its code points."""

    parts: tuple[str, ...]
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """One training row and one item that it hits."""

    item: int
    kind: str
    """One of KINDS."""
    coverage: float
    """Matched tokens divided by the tokens of the item."""
    eval: Side
    train: Side


@dataclass(frozen=True)
class Spans:
    """One side of many pairs: the spans of pair k are those from ends[k - 1] to ends[k]."""

    ends: NDArray[np.int64]
    parts: NDArray[np.int64]
    """The part of each span: a field of the index, or a segment of the batch."""
    places: NDArray[np.int64]
    """[spans, 2]: start and end in the part's code points."""
    name: Callable[[int], str]
    """Maps a part to its name."""

    def side(self, k: int) -> Side:
        """Return the spans of pair k."""
        span_range = slice(int(self.ends[k - 1]) if k else 0, int(self.ends[k]))
        places = tuple((start, end) for start, end in self.places[span_range].tolist())
        return Side(tuple(map(self.name, self.parts[span_range].tolist())), places)

    @cached_property
    def _sizes(self) -> NDArray[np.int64]:
        return np.diff(self.ends, prepend=0)

    def of(self, k: int) -> list[tuple[int, int, int]]:
        """List (part, start, end) of pair k."""
        chosen = slice(int(self.ends[k - 1]) if k else 0, int(self.ends[k]))
        return [
            (part, start, end)
            for part, (start, end) in zip(self.parts[chosen].tolist(), self.places[chosen].tolist(), strict=True)
        ]

    def take(self, chosen: NDArray[np.bool_]) -> Spans:
        """Keep the spans of the chosen pairs."""
        inside = np.repeat(chosen, self._sizes)
        return Spans(np.cumsum(self._sizes[chosen]), self.parts[inside], self.places[inside], self.name)


@dataclass(frozen=True, slots=True)
class Matches:
    """The pairs of a batch, by row and then by item."""

    rows: NDArray[np.int64]
    items: NDArray[np.int64]
    kinds: NDArray[np.int8]
    """Places in KINDS."""
    coverage: NDArray[np.float64]
    own_coverage: NDArray[np.float64]
    """Matched own tokens divided by the item's own tokens."""
    paper: NDArray[np.bool_]
    """Whether the paper's rule makes a hit of the pair."""
    eval: Spans
    train: Spans

    def __len__(self) -> int:
        """The number of pairs."""
        return len(self.rows)

    def take(self, chosen: NDArray[np.bool_]) -> Matches:
        """Keep the chosen pairs."""
        return Matches(
            self.rows[chosen], self.items[chosen], self.kinds[chosen], self.coverage[chosen],
            self.own_coverage[chosen], self.paper[chosen], self.eval.take(chosen), self.train.take(chosen),
        )  # fmt: skip

    def pair(self, k: int) -> Pair:
        """Return pair k."""
        kind = KINDS[self.kinds[k]]
        return Pair(int(self.items[k]), kind, float(self.coverage[k]), self.eval.side(k), self.train.side(k))

    def pairs(self) -> Iterator[tuple[int, Pair]]:
        """Iterate over (row of the batch, pair)."""
        return ((int(row), self.pair(k)) for k, row in enumerate(self.rows.tolist()))


Arrays = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


class Verifier:
    """The comparison of rows with an index, with its scratch memory; one for each process.

    `symbols`: the index is the one of items that their symbols tell apart.
    """

    def __init__(self, index: Index, threshold: float, *, symbols: bool = False) -> None:
        self.index = index
        self._symbols = symbols
        self._needed, self._needed_own = index.needed(threshold), index.needed_own(threshold)
        if symbols:  # the paper's rule knows no symbols
            self._needed = np.where(index.arrays["short"], self._needed, np.iinfo(np.int32).max).astype(np.int32)
        arrays = index.arrays
        self._chars = (arrays["table"], arrays["expansions"])
        self._grams = (
            index.n, *bits(arrays["bits"]), arrays["keys"], arrays["buckets"], shift(len(arrays["buckets"]) - 1),
            (*bits(arrays["short_tails"]), *bits(arrays["short_bits"]), arrays["short_lengths"]),
        )  # fmt: skip
        self._items = (
            arrays["offsets"], arrays["postings"], arrays["item_of"], arrays["tokens"], arrays["short"],
            arrays["item_tokens"], self._needed, arrays["part_items"], arrays["part_tokens"],
            arrays["token_starts"], arrays["token_ends"], arrays["codes"], arrays["code_ends"],
            np.zeros(len(arrays["tokens"]), np.bool_), np.zeros(len(arrays["keys"]), np.bool_),
            np.full(index.items, -1, np.int64), np.zeros(1, np.int64), arrays["own"], self._needed_own,
        )  # fmt: skip

    @property
    def compared(self) -> int:
        """The number of item places compared with a row so far, which measures the cost of matches."""
        return int(self._items[-3][0])

    def __call__(self, batch: Batch, rows: Iterable[int], normalized: frozenset[int]) -> Matches:
        """Find the pairs of these rows; rows in `normalized` have text that must be brought to NFKC."""
        none = np.zeros((0, 6), np.int64), np.zeros((0, 3), np.int64), np.zeros((0, 3), np.int64)
        hits, evals, trains = (
            np.concatenate(kind) for kind in zip(none, *self._compared(batch, rows, normalized), strict=True)
        )
        items, index = hits[:, 1], self.index
        short = index.arrays["short"][items]
        own = hits[:, 5] >= self._needed_own[items]
        return Matches(
            hits[:, 0], items, np.where(short, SHORT, np.where(own, NGRAM, SHARED)).astype(np.int8),
            hits[:, 2] / index.lengths[items], hits[:, 5] / np.maximum(index.own_lengths[items], 1),
            ~short & (hits[:, 2] >= self._needed[items]),
            Spans(np.cumsum(hits[:, 3]), evals[:, 0], evals[:, 1:], self._field),
            Spans(np.cumsum(hits[:, 4]), trains[:, 0], trains[:, 1:], batch.name),
        )  # fmt: skip

    def _compared(self, batch: Batch, rows: Iterable[int], normalized: frozenset[int]) -> Iterator[Arrays]:
        for unnormalized, group in groupby(rows, normalized.__contains__):
            if unnormalized:
                for row in group:
                    segment = batch.segments(row)
                    words = _tokens([text for _, text in batch.parts(row)], segment, self._chars, self._symbols)
                    yield exact.compare_tokens(row, *words, self._grams, self._items)
            else:
                numbers = np.array(list(group), dtype=np.int64)
                yield exact.compare_rows(batch.arrays, numbers, self._chars, self._grams, self._items)

    def _field(self, part: int) -> str:
        return self.index.fields[self.index.arrays["part_fields"][part]]


def _groups(places: Iterator[Span]) -> Iterator[list[Span]]:
    """Group the pieces of a text."""
    while group := list(islice(places, _PIECES)):
        yield group


def _tokens(
    texts: Sequence[str], names: Sequence[int], chars: tuple[NDArray[np.uint32], NDArray[np.uint32]], symbols: bool
) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int64]]:
    """Tokenise texts for `exact.compare_tokens`; Python normalises only the pieces that need it."""
    codes, spans, parts = [np.zeros(0, np.uint32)], [np.zeros((0, 3), np.int32)], []
    used = count = 0
    for text, name in zip(texts, names, strict=True):
        for places in _groups(tokens.pieces(text)):
            codes_read, ends, borders = vocabulary.tokenized(
                [text[start:end] for start, end in places], chars, symbols=symbols
            )
            for (start, _), (first, last) in zip(places, borders.tolist(), strict=True):
                begin = int(ends[first - 1, 0]) if first else 0
                piece_spans = ends[first:last] + np.array([used - begin, start, start], np.int32)
                codes.append(codes_read[begin : int(ends[last - 1, 0]) if last > first else begin])
                spans.append(piece_spans)
                used, count = used + len(codes[-1]), count + len(piece_spans)
        parts.append((name, count))
    return np.concatenate(codes), np.concatenate(spans), np.array(parts, np.int64).reshape(-1, 2)
