"""The tokens of many texts as numbers of a vocabulary. Compiled by Numba but for text that Python must normalise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.text import tokens
from decontam.text.characters import FULL, NOTHING, SLACK, exact_tokens
from decontam.text.hashing import compiled, token_hash


@dataclass(frozen=True, slots=True)
class Words:
    """The tokens of some texts."""

    numbers: NDArray[np.int32]
    """Number of each token in the vocabulary."""
    places: NDArray[np.int32]
    """[tokens, 2]: first and last (exclusive) code point of each token in its text."""
    borders: NDArray[np.int64]
    """[texts, 2]: first and last (exclusive) token of each text."""
    codes: NDArray[np.uint32]
    """Code points of the vocabulary."""
    code_ends: NDArray[np.int64]
    """Where each word of the vocabulary ends among them."""


def read(texts: Sequence[str], chars: tuple[NDArray[np.uint32], NDArray[np.uint32]]) -> Words:
    """The tokens of texts; `chars` is `tokens.character_table(normalized=False)`."""
    codes, spans, borders = tokenized(texts, chars)
    numbers, firsts = _numbered(codes, spans[:, 0])
    starts = np.where(firsts > 0, spans[firsts - 1, 0], 0)
    lengths = spans[firsts, 0] - starts
    code_ends = np.cumsum(lengths, dtype=np.int64)
    places_of = np.repeat(starts - (code_ends - lengths), lengths) + np.arange(lengths.sum())
    return Words(numbers, spans[:, 1:], borders, codes[places_of], code_ends)


def tokenized(
    texts: Sequence[str], chars: tuple[NDArray[np.uint32], NDArray[np.uint32]]
) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int64]]:
    """(code points uint32[c], spans int32[t, 3], borders int64[texts, 2]) of the tokens of texts.

    Spans are those of `exact_tokens`, places counted in each text; borders are the first and last (exclusive) token of
    each text. Those that Python had to normalise stand behind the others.
    """
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(text) for text in raw], dtype=np.int64)
    codes, spans, borders, hard = _easy(np.frombuffer(b"".join(raw), dtype=np.uint8), ends, chars)
    all_codes, all_spans, used, count = [codes], [spans], len(codes), len(spans)
    for k in np.flatnonzero(hard).tolist():
        own, own_ends = tokens.code_points(tokens.tokenize(texts[k]))
        places = np.array(tokens.spans(texts[k]), dtype=np.int32).reshape(-1, 2)
        all_codes.append(own)
        all_spans.append(np.column_stack([own_ends + used, places]).astype(np.int32))
        borders[k] = count, count + len(places)
        used, count = used + len(own), count + len(places)
    return np.concatenate(all_codes), np.concatenate(all_spans), borders


def _easy(data: NDArray[np.uint8], ends: NDArray[np.int64], chars: Any) -> tuple[NDArray[Any], ...]:
    """(code points, spans as of `exact_tokens`, [first, last token) of each text, is it one for Python)."""
    room = len(data) + SLACK
    while True:
        codes, spans = np.empty(room, np.uint32), np.empty((room // 2 + SLACK, 3), np.int32)
        borders, hard = np.zeros((len(ends), 2), np.int64), np.zeros(len(ends), np.bool_)
        count = _tokens(data, ends, chars, codes, spans, borders, hard)
        if count >= 0:
            spans = spans[:count].copy()
            return codes[: spans[-1, 0] if count else 0], spans, borders, hard
        room *= 2


@compiled
def _tokens(data: Any, ends: Any, chars: Any, codes: Any, spans: Any, borders: Any, hard: Any) -> int:
    """Fill the arrays; returns the number of tokens, -1 where they have too little room."""
    count = 0
    for k in range(len(ends)):
        _, _, after, wrong = exact_tokens(data, ends[k - 1] if k else 0, ends[k], 0, chars, codes, spans, count)
        if wrong == FULL:
            return -1
        hard[k] = wrong != NOTHING
        borders[k, 0] = count
        if wrong == NOTHING:
            count = after
        borders[k, 1] = count
    return count


@compiled
def _numbered(codes: Any, ends: Any) -> Any:
    """(number of each token, first token of each number); equal tokens have one number, in order of appearance."""
    size = 1024
    while size < 2 * len(ends):
        size *= 2
    slots = np.full(size, -1, dtype=np.int32)
    numbers = np.empty(len(ends), dtype=np.int32)
    firsts = np.empty(len(ends), dtype=np.int64)
    known = 0
    for k in range(len(ends)):
        start = ends[k - 1] if k else 0
        at = np.int64(token_hash(codes, start, ends[k]) & np.uint64(size - 1))
        while slots[at] >= 0 and not _equal(codes, start, ends[k], firsts[slots[at]], ends):
            at = (at + 1) & (size - 1)
        if slots[at] < 0:
            slots[at] = known
            firsts[known] = k
            known += 1
        numbers[k] = slots[at]
    return numbers, firsts[:known].copy()


@compiled
def _equal(codes: Any, start: int, end: int, other: int, ends: Any) -> bool:
    """Is the token of codes[start:end] that of number `other`?"""
    begin = ends[other - 1] if other else 0
    return ends[other] - begin == end - start and np.array_equal(codes[begin : ends[other]], codes[start:end])
