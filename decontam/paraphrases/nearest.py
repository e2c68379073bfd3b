"""The k training rows nearest to every evaluation item, collected over a stream of training text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCHEMA = pa.schema([
    ("item", pa.int64()), ("train_row", pa.int64()), ("score", pa.float64()), ("train_part", pa.string()),
    ("train_text", pa.string()),
])  # fmt: skip
_SLICE = 4096
"""Item windows whose similarities are in memory at once."""
_SPARE = 50_000
"""Unused texts that may be in memory before they are dropped."""


@dataclass(frozen=True, slots=True)
class Items:
    """The vectors of the evaluation items. An item may have several, and has none without text."""

    vectors: NDArray[np.float32]
    """[windows, size], unit length."""
    owners: NDArray[np.int64]
    """Item of each window, ascending."""
    count: int
    """Number of items, including those without a window."""

    def slices(self) -> Iterator[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
        """Iterate over (windows, first window of each item in them, items), cut between items."""
        firsts = np.flatnonzero(np.diff(self.owners, prepend=-1))
        start = 0
        while start < len(firsts):
            end = int(np.searchsorted(firsts, firsts[start] + _SLICE, side="left"))
            end = max(end, start + 1)
            last = int(firsts[end]) if end < len(firsts) else len(self.owners)
            begin = int(firsts[start])
            yield slice(begin, last), firsts[start:end] - begin, self.owners[firsts[start:end]]
            start = end


@dataclass(frozen=True, slots=True)
class Texts:
    """Windows of training text: their vectors, rows and excerpts."""

    vectors: NDArray[np.float32]
    rows: NDArray[np.int64]
    """Row of each window, ascending."""
    excerpts: list[tuple[str, str]]
    """(part, text to show) of each window."""


class Nearest:
    """The `k` nearest rows of every item with a cosine of `least` or more; of equal scores the earlier row stays.

    Memory: items times k entries and their texts, independent of the amount of training text.
    """

    def __init__(self, items: Items, k: int, least: float) -> None:
        self._items, self.k, self.least = items, k, least
        self.scores = np.full((items.count, k), -np.inf)
        self.rows = np.full((items.count, k), -1, np.int64)
        self._numbers = np.full((items.count, k), -1, np.int64)
        self._excerpts: dict[int, tuple[str, str]] = {}
        self._next = 0

    def add(self, texts: Texts, known: Mapping[int, NDArray[np.int64]]) -> None:
        """Consider windows of training rows; `known`: row to the items that it is known to match, which are skipped.

        Rows are in order; a row may continue in the next call.
        """
        if not len(texts.rows):
            return
        apart = [(column, known[row]) for column, row in enumerate(texts.rows.tolist()) if row in known]
        for windows, firsts, items in self._items.slices():
            similar = self._items.vectors[windows] @ texts.vectors.T
            similar = np.maximum.reduceat(similar, firsts, axis=0).astype(np.float64).round(4)
            for column, matched in apart:
                similar[np.isin(items, matched), column] = -np.inf
            best = similar.max(axis=1)
            better = np.flatnonzero((best >= self.least) & (best > self.scores[items, -1]))
            if len(better):
                self._merge(items[better], similar[better], texts)
        self._next += len(texts.rows)
        self._forget()

    def _merge(self, items: NDArray[np.int64], similar: NDArray[np.float64], texts: Texts) -> None:
        """Sort the windows of a chunk into the lists of some items, with the best window of each row."""
        for place, item in enumerate(items.tolist()):
            rows = dict(zip(self.rows[item].tolist(), zip(self.scores[item], self._numbers[item], strict=True),
                             strict=True))  # fmt: skip
            rows.pop(-1, None)
            bar = max(self.least, float(self.scores[item, -1]))
            for column in np.flatnonzero(similar[place] >= bar).tolist():
                row, score = int(texts.rows[column]), similar[place, column]
                if row not in rows or score > rows[row][0]:
                    rows[row] = (score, self._next + column)
                    self._excerpts[self._next + column] = texts.excerpts[column]
            best = sorted(rows.items(), key=lambda entry: (-entry[1][0], entry[0]))[: self.k]
            for rank, (row, (score, number)) in enumerate(best):
                self.rows[item, rank], self.scores[item, rank], self._numbers[item, rank] = row, score, number

    def _forget(self) -> None:
        if len(self._excerpts) > self._numbers.size + _SPARE:
            used = set(self._numbers.ravel().tolist())
            self._excerpts = {number: excerpt for number, excerpt in self._excerpts.items() if number in used}

    def table(self) -> pa.Table:
        """Return all entries, item by item, the nearest first."""
        items, ranks = np.nonzero(self.rows >= 0)
        texts = [self._excerpts[number] for number in self._numbers[items, ranks].tolist()]
        columns = [
            items, self.rows[items, ranks], self.scores[items, ranks],
            [part for part, _ in texts], [text for _, text in texts],
        ]  # fmt: skip
        return pa.table(
            [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
        )


def merged(tables: Iterator[pa.Table], k: int) -> pa.Table:
    """Merge tables, in the order of their rows, to the nearest `k` entries of each item."""
    whole = SCHEMA.empty_table()
    for table in tables:
        both = pa.concat_tables([whole, table]).sort_by(
            [("item", "ascending"), ("score", "descending"), ("train_row", "ascending")]
        )
        items = np.asarray(both["item"])
        firsts = np.flatnonzero(np.diff(items, prepend=-1))
        ranks = np.arange(len(items)) - np.repeat(firsts, np.diff(firsts, append=len(items)))
        whole = both.take(pa.array(np.flatnonzero(ranks < k))).combine_chunks()
    return whole
