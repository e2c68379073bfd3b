"""Tokens of ASCII text, a block of 64 bytes at a time. Compiled by Numba.

The loops over bytes have no branches, so that the compiler turns them into vector instructions. The kinds of a block's
bytes are packed into the bits of one number, in which the borders of tokens are the bits that differ from the bit
before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.text.hashing import SEED, Integer, add_word, compiled, finish, inlined

BLOCK = 64
"""Bytes whose kinds fit into the bits of one number."""
BLOCKS = 64
"""Blocks that are read before their tokens are hashed: few enough for the first cache."""
TOKENS = BLOCK // 2
"""Tokens that may end in a block."""
_PIECE = 256
"""Bytes that are tested together for characters that are not ASCII."""
_FIRST_NOT_ASCII = np.uint8(128)
_GATHER = np.uint64(0x0102040810204080)
"""Times a number whose bytes are 0 or 1: its highest byte holds those eight bits, the first byte's lowest."""
_EVERY_BYTE = np.uint64(0x0101010101010101)
_PAIRS, _FOURS, _EIGHTS = np.uint64(0x5555555555555555), np.uint64(0x3333333333333333), np.uint64(0x0F0F0F0F0F0F0F0F)

Buffers = tuple[NDArray[np.uint8], NDArray[np.uint64], NDArray[np.int32]]


def buffers() -> Buffers:
    """Scratch of `edges`: folded text uint8[…], kinds of bytes (eight in a uint64), borders of tokens int32[…]."""
    size = BLOCKS * BLOCK
    return np.zeros(size + BLOCK, np.uint8), np.zeros(size // 8, np.uint64), np.zeros(size + 2, np.int32)


@inlined
def _all_ascii(text: NDArray[np.uint8], size: int) -> Any:
    bits = np.uint8(0)
    for k in range(size):
        bits |= text[k]
    return bits < _FIRST_NOT_ASCII


@compiled
def _ascii_bytes(data: NDArray[np.uint8], i: Integer, size: int) -> int:
    """Bytes of data[i:i + size] before the first that is not ASCII."""
    for start in range(0, size, _PIECE):
        piece = data[i + start : i + min(start + _PIECE, size)]
        if not _all_ascii(piece, len(piece)):
            for k in range(len(piece)):
                if piece[k] >= _FIRST_NOT_ASCII:
                    return start + k
    return size


@compiled
def _fold(data: NDArray[np.uint8], i: Integer, size: int, folded: NDArray[np.uint8], kinds: NDArray[np.uint8]) -> None:
    """Write data[i:i + size] to `folded` in lower case, and to `kinds` 1 for every ASCII word character, else 0.

    The comparisons are of uint8 that wrap around: with wider numbers the loops run at a tenth of the speed.
    """
    text = data[i : i + size]
    for k in range(size):
        upper = np.uint8(np.uint8(text[k] - np.uint8(65)) < np.uint8(26))
        folded[k] = text[k] | np.uint8(upper << np.uint8(5))
    for k in range(size):
        letter = np.uint8(np.uint8(folded[k] - np.uint8(97)) < np.uint8(26))
        digit = np.uint8(np.uint8(folded[k] - np.uint8(48)) < np.uint8(10))
        kinds[k] = letter | digit | np.uint8(folded[k] == np.uint8(95))


@inlined
def _zeros_below(word: np.uint64) -> Any:
    """Count the zero bits below the lowest one; 64 where there is none.

    The number of ones in (the lowest one of `word`) - 1. Compilers recognise this sum by pairs, fours and eights and
    make one instruction of it.
    """
    ones = (word & (~word + np.uint64(1))) - np.uint64(1)
    ones = ones - (ones >> np.uint64(1) & _PAIRS)
    ones = (ones & _FOURS) + (ones >> np.uint64(2) & _FOURS)
    ones = ones + (ones >> np.uint64(4)) & _EIGHTS
    return np.int64(ones * _EVERY_BYTE >> np.uint64(56))


@compiled
def edges(data: NDArray[np.uint8], i: Integer, end: Integer, blocks: Integer, buffers: Buffers) -> Any:
    """Find the tokens at the beginning of data[i:end], which begins with a token or between two.

    Stops after that many blocks, or before the first byte that is not ASCII; a token that may go on there is left out.
    Returns (how many numbers of `buffers`' borders are filled: first and last byte (exclusive) of each token, counted
    from i; the next byte). folded[k] is data[i + k] in lower case.
    """
    folded, kinds, borders = buffers
    size = min(end - i, blocks * BLOCK)
    # Whole blocks where `data` has them: a loop over a part of one is slower.
    whole = min((size + BLOCK - 1) // BLOCK * BLOCK, len(data) - i)
    size = min(size, _ascii_bytes(data, i, whole))
    _fold(data, i, min((size + BLOCK - 1) // BLOCK * BLOCK, whole), folded, kinds.view(np.uint8))
    count, before = 0, np.uint64(0)
    for at in range(0, size, BLOCK):
        word = np.uint64(0)
        for k in range(8):
            word |= kinds[at // 8 + k] * _GATHER >> np.uint64(56) << np.uint64(8 * k)
        if size - at < BLOCK:
            word &= (np.uint64(1) << np.uint64(size - at)) - np.uint64(1)
        change = word ^ (word << np.uint64(1) | before)
        before = word >> np.uint64(BLOCK - 1)
        while change:
            borders[count] = at + _zeros_below(change)
            count += 1
            change &= change - np.uint64(1)
    if count & 1:
        borders[count] = size
        count += 1
    if count and borders[count - 1] == size and i + size < end:
        count -= 2
        size = borders[count]
    return count, i + size


@inlined
def _byte(text: NDArray[np.uint8], k: np.uint64, n: int) -> Any:
    return np.uint64(text[k + np.uint64(n)]) << np.uint64(8 * n)


@inlined
def _load(text: NDArray[np.uint8], k: np.uint64) -> Any:
    """Read text[k:k + 8] as one number. Compilers make one instruction of it, where k is unsigned."""
    low = _byte(text, k, 0) | _byte(text, k, 1) | _byte(text, k, 2) | _byte(text, k, 3)
    return low | _byte(text, k, 4) | _byte(text, k, 5) | _byte(text, k, 6) | _byte(text, k, 7)


@inlined
def hashed(folded: NDArray[np.uint8], begin: Integer, end: Integer) -> Any:
    """Hash the ASCII token folded[begin:end]; eight bytes after it may be read."""
    h, k, remaining = SEED, np.uint64(begin), np.int64(end - begin)
    while remaining > 8:
        h = add_word(h, _load(folded, k))
        k += np.uint64(8)
        remaining -= 8
    unused = np.uint64(64 - 8 * remaining)
    return finish(add_word(h, _load(folded, k) << unused >> unused))
