"""Exact and near duplicates among texts.

Two texts are near duplicates where the Jaccard similarity of their sets of word n-grams reaches a threshold. Candidates
come from MinHash sketches in bands (Broder 1997; Leskovec, Rajaraman & Ullman, "Mining of Massive Datasets", 3.4), and
each candidate is verified on the n-grams themselves, so that no pair below the threshold is merged. A text is compared
with the earlier texts that are kept, never with one that is dropped: similarity is not transitive.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np

from olmes_suite.errors import UsageError
from olmes_suite.records import sha256

PERMUTATIONS = 128
RECALL = 0.99
"""The least expected share of pairs at the threshold that become candidates; decides rows and bands."""
MARGIN = 0.18
"""A candidate is verified where the sketches' estimate is at most this below the threshold: over four standard errors
of 128 permutations at any similarity."""
_CHARACTERS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORDS = re.compile(rf"[{_CHARACTERS}]|[^\W{_CHARACTERS}]+")
"""Words; in scripts without spaces, single characters."""


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A text that repeats an earlier one, which is kept."""

    of: int
    """Position of the earlier text."""
    similarity: float
    """Jaccard similarity of the n-grams, from the threshold to 1; exactly 1 for equal texts."""


def normalised(text: str) -> str:
    """Return a text without differences in white space at its ends and inside, for comparing exactly."""
    return " ".join(text.split())


def digest(text: str) -> str:
    """Return the SHA-256 of a normalised text; equal digests are exact duplicates."""
    return sha256(normalised(text))


def shingles(text: str, length: int) -> frozenset[str]:
    """Return the n-grams of `length` words of a text, in lower case and without punctuation.

    A text of fewer words is one n-gram, and a text without words is itself one.
    """
    words = _WORDS.findall(text.lower()) or [text.strip()]
    if len(words) <= length:
        return frozenset([" ".join(words)])
    return frozenset(map(" ".join, zip(*(words[start:] for start in range(length)), strict=False)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the size of the intersection over that of the union."""
    common = len(one & other)
    return common / (len(one) + len(other) - common)


def rows_and_bands(threshold: float, permutations: int = PERMUTATIONS) -> tuple[int, int]:
    """Return the most rows a band may have, and the number of bands, so that the expected recall reaches `RECALL`."""
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= RECALL:
            return rows, bands
    return 1, permutations


class NearDuplicates:
    """Sketches of texts, added in order, and the duplicates among them. About 520 bytes are held for each text.

    Equal texts and settings give equal results.
    """

    def __init__(self, threshold: float = 0.8, shingle: int = 5, seed: int = 0) -> None:
        """`threshold`: Jaccard similarity from which texts are duplicates; `shingle`: words of an n-gram.

        Raises UsageError for impossible values, or where the package rensa is not installed.
        """
        if not 0 < threshold <= 1 or shingle < 1:
            raise UsageError(
                f"near duplicates need a similarity above 0 and at most 1, and n-grams of at least one word, "
                f"not {threshold} and {shingle}"
            )
        self.threshold, self.shingle, self.seed = threshold, shingle, seed
        self._sketch = _rensa().RMinHash.digest_matrix_from_token_sets
        self._parts: list[Any] = []

    def add(self, texts: Iterable[str], at_once: int = 2048) -> None:
        """Add texts; their positions go on from those added before."""
        for batch in _batches(texts, at_once):
            sets = [list(shingles(text, self.shingle)) for text in batch]
            rows = self._sketch(sets, num_perm=PERMUTATIONS, seed=self.seed).to_rows()
            self._parts.append(np.asarray(rows, dtype=np.uint32).reshape(len(sets), PERMUTATIONS))

    @property
    def sketches(self) -> Any:
        """The sketches of the texts so far, uint32[texts, PERMUTATIONS]; they depend on `shingle` and `seed` only."""
        return np.concatenate(self._parts) if self._parts else np.zeros((0, PERMUTATIONS), np.uint32)

    def add_sketches(self, sketches: Any) -> None:
        """Add texts of which another object with the same `shingle` and `seed` has made the sketches."""
        self._parts.append(sketches)

    def find(self, text_of: Callable[[int], str]) -> dict[int, Duplicate]:
        """Return the duplicates by position. `text_of` returns the text at a position again."""
        if not self._parts:
            return {}
        sketches = np.concatenate(self._parts)
        self._parts = [sketches]
        grams = lru_cache(maxsize=8192)(lambda row: shingles(text_of(row), self.shingle))
        kept: dict[int, list[int]] = {}
        """The kept texts of each bucket."""
        found: dict[int, Duplicate] = {}
        for row, buckets in _shared_buckets(sketches, *rows_and_bands(self.threshold)):
            earlier = np.array(sorted({one for bucket in buckets for one in kept.get(bucket, ())}), dtype=np.int64)
            if len(earlier):
                estimates = (sketches[earlier] == sketches[row]).mean(axis=1)
                for candidate in earlier[estimates >= self.threshold - MARGIN].tolist():
                    similarity = jaccard(grams(candidate), grams(row))
                    if similarity >= self.threshold:
                        found[row] = Duplicate(candidate, similarity)
                        break
            if row not in found:
                for bucket in buckets:
                    kept.setdefault(bucket, []).append(row)
        return found


def duplicates(texts: Sequence[str], threshold: float | None = 0.8, shingle: int = 5) -> dict[int, Duplicate]:
    """Return the exact and, unless `threshold` is None, near duplicates of texts by position; the first one is kept."""
    first: dict[str, int] = {}
    found: dict[int, Duplicate] = {}
    single: list[int] = []
    for position, text in enumerate(texts):
        earlier = first.setdefault(digest(text), position)
        if earlier == position:
            single.append(position)
        else:
            found[position] = Duplicate(earlier, 1.0)
    if threshold is not None and len(single) > 1:
        near = NearDuplicates(threshold, shingle)
        near.add(texts[position] for position in single)
        for row, duplicate in near.find(lambda row: texts[single[row]]).items():
            found[single[row]] = Duplicate(single[duplicate.of], duplicate.similarity)
    return dict(sorted(found.items()))


def _shared_buckets(sketches: Any, rows: int, bands: int) -> Iterator[tuple[int, list[int]]]:
    """Yield, in order, each text that shares a bucket with another, and the numbers of such buckets."""
    pairs, total = [], 0
    factors = np.random.default_rng(0).integers(1 << 63, size=rows, dtype=np.uint64) * 2 + 1  # of a hash of the band
    for band in range(bands):
        keys = (sketches[:, band * rows : (band + 1) * rows] * factors).sum(axis=1, dtype=np.uint64)
        _, bucket, sizes = np.unique(keys ^ (keys >> np.uint64(32)), return_inverse=True, return_counts=True)
        shared = np.flatnonzero(sizes[bucket] > 1)
        pairs.append(np.stack([shared, bucket[shared] + total], axis=1))
        total += len(sizes)
    ordered = np.concatenate(pairs)
    ordered = ordered[np.lexsort((ordered[:, 1], ordered[:, 0]))]
    for row, entries in groupby(ordered.tolist(), key=lambda pair: pair[0]):
        yield row, [bucket for _, bucket in entries]


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _rensa() -> Any:
    try:
        import rensa
    except ModuleNotFoundError:
        raise UsageError("near duplicates need the package rensa: pip install 'olmes-suite[curate]'") from None
    return rensa
