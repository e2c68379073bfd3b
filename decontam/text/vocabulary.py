"""The tokens of many texts as numbers of a vocabulary. Compiled by Numba, except for text that Python normalises."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.text import tokens
from decontam.text.characters import FULL, NOTHING, SLACK, Chars, exact_tokens
from decontam.text.hashing import Integer, compiled, token_hash


@dataclass(frozen=True, slots=True)
class Words:
    """The tokens of some texts, and their vocabulary."""

    numbers: NDArray[np.int32]
    """The number of each token in the vocabulary."""
    places: NDArray[np.int32]
    """[tokens, 2]: first and last (exclusive) code point of each token in its text."""
    borders: NDArray[np.int64]
    """[texts, 2]: first and last (exclusive) token of each text."""
    codes: NDArray[np.uint32]
    """Code points of the vocabulary."""
    code_ends: NDArray[np.int64]
    """Where each word of the vocabulary ends in `codes`."""


def read(texts: Sequence[str], chars: Chars, *, symbols: bool = False) -> Words:
    """Read the tokens of texts; `chars` is `tokens.character_table(normalized=False, symbols=symbols)`."""
    codes, spans, borders = tokenized(texts, chars, symbols=symbols)
    numbers, firsts = _numbered(codes, spans[:, 0])
    starts = np.where(firsts > 0, spans[firsts - 1, 0], 0)
    lengths = spans[firsts, 0] - starts
    code_ends = np.cumsum(lengths, dtype=np.int64)
    places_of = np.repeat(starts - (code_ends - lengths), lengths) + np.arange(lengths.sum())
    return Words(numbers, spans[:, 1:], borders, codes[places_of], code_ends)


def tokenized(
    texts: Sequence[str], chars: Chars, *, symbols: bool = False
) -> tuple[NDArray[np.uint32], NDArray[np.int32], NDArray[np.int64]]:
    """Tokenise texts to (code points uint32[c], spans int32[t, 3], borders int64[texts, 2]).

    Spans are those of `exact_tokens`, with places counted in each text; borders are the first and last (exclusive)
    token of each text. The tokens of texts that Python normalises follow those of all other texts.
    """
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    ends = np.cumsum([len(text) for text in raw], dtype=np.int64)
    codes, spans, borders, unnormalized = _easy(np.frombuffer(b"".join(raw), dtype=np.uint8), ends, chars)
    all_codes, all_spans, used, count = [codes], [spans], len(codes), len(spans)
    for k in np.flatnonzero(unnormalized).tolist():
        text_codes, text_ends = tokens.code_points(tokens.tokenize(texts[k], symbols=symbols))
        places = np.array(tokens.spans(texts[k], symbols=symbols), dtype=np.int32).reshape(-1, 2)
        all_codes.append(text_codes)
        all_spans.append(np.column_stack([text_ends + used, places]).astype(np.int32))
        borders[k] = count, count + len(places)
        used, count = used + len(text_codes), count + len(places)
    return np.concatenate(all_codes), np.concatenate(all_spans), borders


def _easy(data: NDArray[np.uint8], ends: NDArray[np.int64], chars: Chars) -> tuple[NDArray[Any], ...]:
    """Return (code points, spans of `exact_tokens`, [first, last) token of each text, whether Python must read it)."""
    room = len(data) + SLACK
    while True:
        codes, spans = np.empty(room, np.uint32), np.empty((room // 2 + SLACK, 3), np.int32)
        borders, unnormalized = np.zeros((len(ends), 2), np.int64), np.zeros(len(ends), np.bool_)
        count = _tokens(data, ends, chars, codes, spans, borders, unnormalized)
        if count >= 0:
            spans = spans[:count].copy()
            return codes[: spans[-1, 0] if count else 0], spans, borders, unnormalized
        room *= 2


@compiled
def _tokens(
    data: NDArray[np.uint8],
    ends: NDArray[np.int64],
    chars: Chars,
    codes: NDArray[np.uint32],
    spans: NDArray[np.int32],
    borders: NDArray[np.int64],
    unnormalized: NDArray[np.bool_],
) -> int:
    """Fill the arrays and return the number of tokens, -1 where the arrays are too small."""
    zero = np.int64(0)  # a plain 0 is a type of its own, for which Numba compiles anew
    count: Any = zero
    for k in range(len(ends)):
        _, _, after, wrong = exact_tokens(data, ends[k - 1] if k else 0, ends[k], zero, chars, codes, spans, count)
        if wrong == FULL:
            return -1
        unnormalized[k] = wrong != NOTHING
        borders[k, 0] = count
        if wrong == NOTHING:
            count = after
        borders[k, 1] = count
    return count


@compiled
def _numbered(codes: NDArray[np.uint32], ends: NDArray[np.int32]) -> Any:
    """Number distinct tokens in order of appearance: (number of each token, first token of each number)."""
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
def _equal(codes: NDArray[np.uint32], start: Integer, end: Integer, other: Integer, ends: NDArray[np.int32]) -> bool:
    """Whether the token codes[start:end] equals token `other`."""
    begin = ends[other - 1] if other else 0
    return ends[other] - begin == end - start and np.array_equal(codes[begin : ends[other]], codes[start:end])
