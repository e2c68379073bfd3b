"""The filter before the exact comparison: it selects the rows of a batch that share enough hashes with any item."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decontam.matching import gram_arrays, kernel
from decontam.matching.index import Index
from decontam.text import ascii_blocks, tokens
from decontam.text.characters import BROKEN, CANDIDATE, NEEDS_NORMALIZING
from decontam.training_data.batches import Batch

_BUFFER = 4096
"""Tokens that are looked up together: enough for memory loads to overlap, few enough for the first-level cache."""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """The rows of a batch to compare exactly, and the rows whose text is not UTF-8."""

    candidates: list[int]
    broken: list[int]
    normalized: frozenset[int]
    """Rows that the kernel cannot bring to NFKC; Python does."""


class Filter:
    """The kernel with its index and scratch memory; one for each process."""

    def __init__(self, index: Index, threshold: float) -> None:
        arrays = index.arrays
        self._chars = (arrays["table"], arrays["expansions"])
        self._normalized = (arrays["normalized_table"], arrays["normalized_expansions"])
        self._grams = (
            index.n, gram_arrays.step(index.n), *bits(arrays["part_bits"]), *bits(arrays["bits"]),
            arrays["keys"], arrays["buckets"], shift(len(arrays["buckets"]) - 1),
        )  # fmt: skip
        self._short = (*bits(arrays["short_tails"]), *bits(arrays["short_bits"]), arrays["short_lengths"])
        self._tables = (
            arrays["offsets"], arrays["postings"], arrays["gram_lengths"], arrays["item_of"],
            np.minimum(index.needed(threshold), index.needed_own(threshold)),
        )  # fmt: skip
        room = _BUFFER + index.n
        self._state = (
            np.zeros(len(arrays["keys"]), np.int32), np.zeros(index.items, np.int32), np.zeros(index.items, np.int32),
            np.zeros(index.items, np.int32), np.ones(1, np.int64), np.zeros(room, np.uint64), np.zeros(room, np.int64),
            ascii_blocks.buffers(),
        )  # fmt: skip

    def __call__(self, batch: Batch) -> Verdicts:
        """Judge every row of a batch."""
        verdicts = self._pass(batch, self._chars)
        unnormalized = np.flatnonzero(verdicts == NEEDS_NORMALIZING)
        if len(unnormalized):
            verdicts[unnormalized] = self._pass(_normalized(batch, unnormalized), self._normalized)
        candidates, broken = (np.flatnonzero(verdicts == verdict).tolist() for verdict in (CANDIDATE, BROKEN))
        return Verdicts(candidates, broken, frozenset(unnormalized.tolist()))

    def _pass(self, batch: Batch, chars: tuple[NDArray[np.uint32], NDArray[np.uint32]]) -> NDArray[np.uint8]:
        gram_rows, item_rows, _, _, base = self._state[:5]
        if base[0] > np.iinfo(np.int32).max - batch.rows:
            gram_rows[:] = item_rows[:] = 0
            base[0] = 1
        verdicts: NDArray[np.uint8] = kernel.scan_rows(
            batch.arrays, batch.rows, chars, self._grams, self._short, self._tables, self._state
        )
        return verdicts


def bits(array: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], np.uint64]:
    """Pair a bit filter of the index with the shift that takes a hash to the number of its bit."""
    return array, shift(len(array) * 64)


def shift(size: int) -> np.uint64:
    """Compute the right shift that leaves as many bits of a hash as select one of `size` (a power of two)."""
    return np.uint64(64 - (size.bit_length() - 1))


def _normalized(batch: Batch, rows: NDArray[np.int64]) -> Batch:
    """Build a batch of the rows with their text in NFKC, numbered from 0; text that is not UTF-8 stays unchanged."""
    numbers = {row: i for i, row in enumerate(rows.tolist())}
    owners, texts = [], []
    for row in rows.tolist():
        for segment in batch.segments(row):
            raw = batch.data[batch.starts[segment] : batch.ends[segment]].tobytes()
            try:
                texts.append(_nfkc(raw.decode("utf-8")))
            except UnicodeDecodeError:
                texts.append(raw)
            owners.append(numbers[row])
    return Batch.of_texts(texts, owners, len(rows))


def _nfkc(text: str) -> bytes:
    """Normalise a text to NFKC piece by piece, so that a long text needs little more memory than its own size."""
    return b"".join(
        unicodedata.normalize("NFKC", text[start:end]).encode("utf-8") for start, end in tokens.pieces(text)
    )
