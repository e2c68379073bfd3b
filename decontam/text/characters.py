"""UTF-8 text to tokens, compiled: hashes for the filter, folded code points and places for the exact comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.text.ascii_blocks import BLOCKS, TOKENS, Buffers, edges, hashed
from decontam.text.hashing import BASE, SEED, Hashes, Integer, add_code, add_word, compiled, finish
from decontam.text.tokens import ALONE, JOINS, SEVERAL, WORD

NOTHING, CANDIDATE, NEEDS_NORMALIZING, BROKEN, FULL = range(5)
"""Results of a pass over a text. NEEDS_NORMALIZING: pass it in NFKC; BROKEN: not UTF-8; FULL: it needs more room."""

Chars = tuple[NDArray[np.uint32], NDArray[np.uint32]]
"""(table, expansions) of `decontam.text.tokens.character_table`."""
_ZERO = np.uint64(0)
SLACK = 2 * TOKENS
"""Free places of a buffer that one character, or one block of text, never exceeds."""


@compiled
def decode(data: NDArray[np.uint8], i: Integer, end: Integer) -> Any:
    """Decode the UTF-8 sequence at i: (code point, bytes); (0, 0) for a broken one."""
    first = np.int64(data[i])
    size, code, least = 0, np.int64(0), np.int64(0)
    if first < 0x80:
        return first, 1
    if first >= 0xF0:
        size, code, least = 4, first & 0x07, np.int64(0x10000)
    elif first >= 0xE0:
        size, code, least = 3, first & 0x0F, np.int64(0x800)
    elif first >= 0xC2:
        size, code, least = 2, first & 0x1F, np.int64(0x80)
    if size == 0 or first > 0xF4 or i + size > end:
        return np.int64(0), 0
    for k in range(i + 1, i + size):
        byte = np.int64(data[k])
        if byte & 0xC0 != 0x80:
            return np.int64(0), 0
        code = code << 6 | (byte & 0x3F)
    if code < least or code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
        return np.int64(0), 0
    return code, size


@compiled
def _hash_some(data: NDArray[np.uint8], i: Integer, end: Integer, chars: Chars, prefix: Hashes, count: Integer) -> Any:
    """Append the tokens of data[i:end], character by character, until `prefix` is almost full.

    Returns (next byte, tokens in `prefix`, NOTHING, NEEDS_NORMALIZING or BROKEN).
    """
    table, expansions = chars
    room = len(prefix) - SLACK
    by_code, by_word, word = SEED, SEED, _ZERO
    length, wide = 0, False
    place, waiting = np.int64(0), np.int64(0)
    while True:
        if waiting:
            entry = expansions[place]
            place += 1
            waiting -= 1
        elif i < end:
            code, size = decode(data, i, end)
            if size == 0:
                return i, count, BROKEN
            i += size
            entry = table[code]
        else:
            entry = np.uint32(0)
        kind, value = entry >> np.uint32(24), np.uint64(entry & np.uint32(0xFFFFFF))
        if kind == WORD:
            by_code = add_code(by_code, value)
            word |= (value & np.uint64(0x7F)) << np.uint64(8 * (length & 7))
            if value >= 128:
                wide = True
            length += 1
            if length & 7 == 0:
                by_word, word = add_word(by_word, word), _ZERO
            continue
        if kind == JOINS:
            return i, count, NEEDS_NORMALIZING
        if kind == SEVERAL:
            place, waiting = np.int64(value) + 1, np.int64(expansions[value])
            continue
        if length:
            if length & 7:
                by_word = add_word(by_word, word)
            prefix[count + 1] = prefix[count] * BASE + finish(by_code if wide else by_word)
            count += 1
            by_code, by_word, word = SEED, SEED, _ZERO
            length, wide = 0, False
        if kind == ALONE:
            prefix[count + 1] = prefix[count] * BASE + finish(add_code(SEED, value))
            count += 1
        if waiting == 0 and (count >= room or i >= end or data[i] < 128):
            return i, count, NOTHING


@compiled
def _hash_ascii(
    data: NDArray[np.uint8], i: Integer, end: Integer, prefix: Hashes, count: Integer, buffers: Buffers
) -> Any:
    """Append the tokens of data[i:end], block by block, until `prefix` is almost full or a character is not ASCII.

    Returns (next byte, which begins a token or lies between two; tokens in `prefix`).
    """
    folded, _, borders = buffers
    room = len(prefix) - SLACK
    while i < end and count < room:
        borders_filled, after = edges(data, i, end, min(BLOCKS, 1 + (room - count) // TOKENS), buffers)
        poly = prefix[count]
        for k in range(0, borders_filled, 2):
            poly = poly * BASE + hashed(folded, borders[k], borders[k + 1])
            count += 1
            prefix[count] = poly
        if after == i or (after < end and data[after] >= 128):
            return after, count
        i = after
    return i, count


@compiled
def hash_tokens(
    data: NDArray[np.uint8], i: Integer, end: Integer, chars: Chars, prefix: Hashes, count: Integer, buffers: Buffers
) -> Any:
    """Append the tokens of data[i:end] to `prefix` (see `decontam.text.hashing`), which holds `count` already.

    Stops between two tokens when `prefix` is almost full. `chars` is (table, expansions) of
    `decontam.text.tokens.character_table`, `buffers` is scratch of `decontam.text.ascii_blocks`. Returns
    (next byte, tokens in `prefix`, NOTHING, NEEDS_NORMALIZING or BROKEN).
    """
    room = len(prefix) - SLACK
    while True:
        i, count = _hash_ascii(data, i, end, prefix, count, buffers)
        if i >= end or count >= room:
            return i, count, NOTHING
        i, count, wrong = _hash_some(data, i, end, chars, prefix, count)
        if wrong != NOTHING or i >= end or count >= room:
            return i, count, wrong


@compiled
def exact_tokens(
    data: NDArray[np.uint8], i: Integer, end: Integer, point: Integer, chars: Chars, codes: NDArray[np.uint32],
    spans: NDArray[np.int32], count: Integer,
) -> Any:  # fmt: skip
    """Append the tokens of data[i:end] themselves to `codes` and `spans`, which hold `count` tokens already.

    `codes` uint32[c]: the folded code points of all tokens; spans int32[t, 3]: where each token's code points end, its
    first and its last (exclusive) code point, data[i] being code point `point`. Returns (next byte, next code point,
    tokens, NOTHING, NEEDS_NORMALIZING, BROKEN or FULL); after FULL, the next call continues from that byte.
    """
    table, expansions = chars
    used = spans[count - 1, 0] if count else 0
    token, first, last = used, point, point
    safe = i, point, count
    while i < end:
        if used == token:
            safe = i, point, count
        code, size = np.int64(data[i]), 1
        if code >= 128:
            code, size = decode(data, i, end)
            if size == 0:
                return i, point, count, BROKEN
        entry = table[code]
        place, several = np.int64(0), np.int64(1)
        if entry >> np.uint32(24) == SEVERAL:
            place = np.int64(entry & np.uint32(0xFFFFFF))
            several = np.int64(expansions[place])
        if used + several > len(codes) or count + several + 1 > len(spans):
            return safe[0], safe[1], safe[2], FULL
        i += size
        for k in range(several):
            if several > 1:
                entry = expansions[place + 1 + k]
            kind, value = entry >> np.uint32(24), entry & np.uint32(0xFFFFFF)
            if kind == JOINS:
                return i, point, count, NEEDS_NORMALIZING
            if kind != WORD and used > token:
                spans[count, 0], spans[count, 1], spans[count, 2] = used, first, last
                count += 1
                token = used
            if kind in (WORD, ALONE):
                if used == token:
                    first = point
                codes[used] = value
                used += 1
                last = point + 1
            if kind == ALONE:
                spans[count, 0], spans[count, 1], spans[count, 2] = used, first, last
                count += 1
                token = used
        point += 1
    if used > token:
        spans[count, 0], spans[count, 1], spans[count, 2] = used, first, last
        count += 1
    return i, point, count, NOTHING
