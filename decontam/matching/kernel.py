"""The single pass over the bytes of training text: tokens, n-gram hashes, look-up. Compiled by Numba.

The pass is a filter. The rows that it selects are compared token by token in `decontam.matching.exact`; the other rows
have too few equal hashes to have enough equal n-grams.

Layout of the index arrays (`decontam.matching.index.Index` holds them): a *gram* is a run of tokens of an
evaluation item, `n` long or, in items shorter than that, a whole field. Its *postings* are the places of its first
token among all tokens of the evaluation.

Wherever an n-gram begins, it contains one run of m = n - q + 1 tokens that begins at a multiple of q. So only every
q-th m-gram of a text is looked up, and the n-grams around it only where the evaluation has that m-gram
(`decontam.matching.gram_arrays.step`).

Compiled functions take arrays and tuples of arrays, because Numba passes no objects; so some have many parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.text.ascii_blocks import Buffers
from decontam.text.characters import CANDIDATE, NOTHING, SLACK, Chars, hash_tokens
from decontam.text.hashing import BASE, SEED, Hashes, Integer, compiled, find, has, power, run_hash

Numbers = NDArray[np.int64]
Matches = list[tuple[Integer, Integer]]
"""(last token, gram), in order."""
Segments = tuple[NDArray[np.uint8], Numbers, Numbers, Numbers]
"""(text of a batch, where each segment starts, where it ends, its row, ascending)."""
Grams = tuple[int, int, Hashes, np.uint64, Hashes, np.uint64, Hashes, NDArray[np.int32], np.uint64]
"""(n, step, bits of m-grams, their shift, bits of n-grams, their shift, keys, buckets, their shift)."""
Short = tuple[Hashes, np.uint64, Hashes, np.uint64, Numbers]
"""(bits of tails, their shift, bits of short grams, their shift, lengths)."""
Tables = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
"""(postings' ends, postings, lengths of the grams, item of a token, tokens that an item needs)."""
State = tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], Numbers, Hashes, Numbers, Buffers
]  # fmt: skip
"""Scratch that one process uses again and again: (row of a gram, row of an item, matched tokens of an item, its last
gram, number of the first row int64[1], prefix, places, scratch of `decontam.text.ascii_blocks`)."""
TAIL = 2
"""Tokens at the end of a short item that are looked up first."""


@compiled
def _find_grams(prefix: Hashes, count: Integer, grams: Grams, places: Numbers, matches: Matches) -> None:
    """Append (last token, gram) to `matches` for the n-grams among `count` tokens that the index has, in order."""
    n, step, part_bits, part_shift, bits, bits_shift, keys, buckets, shift = grams
    part = n - step + 1
    leave, part_leave = power(n), power(part)
    likely = np.int64(0)
    for p in range(0, count - part + 1, step):
        places[likely] = p
        likely += np.int64(has(part_bits, part_shift, run_hash(prefix, p, part, part_leave)))
    for k in range(likely):
        p = places[k]
        for start in range(max(p - step + 1, 0), min(p, count - n) + 1):
            key = run_hash(prefix, start, n, leave)
            if has(bits, bits_shift, key):
                gram = find(keys, buckets, shift, key)
                if gram >= 0:
                    matches.append((start + n - 1, gram))


@compiled
def find_tails(prefix: Hashes, begin: Integer, count: Integer, short: Short, places: Numbers) -> Any:
    """Fill `places` with those of the tokens begin, …, count - 1 that may end a short gram; return their number.

    Grams are looked up by their last two tokens, grams of one token by that token.
    """
    bits, shift, _, _, lengths = short
    likely = np.int64(0)
    if len(lengths) and lengths[0] >= TAIL:
        leave = power(TAIL)
        for k in range(max(begin, TAIL - 1), count):
            places[likely] = k
            likely += np.int64(has(bits, shift, run_hash(prefix, k - 1, TAIL, leave)))
    elif len(lengths):
        for k in range(begin, count):
            hit = has(bits, shift, run_hash(prefix, k, 1, BASE))
            if k and lengths[-1] >= TAIL:
                hit |= has(bits, shift, run_hash(prefix, k - 1, TAIL, power(TAIL)))
            places[likely] = k
            likely += np.int64(hit)
    return likely


@compiled
def powers(lengths: Numbers) -> Any:
    """Compute `power` of each length."""
    out = np.empty(len(lengths), dtype=np.uint64)
    for k in range(len(lengths)):
        out[k] = power(lengths[k])
    return out


@compiled
def _find_short(
    prefix: Hashes, count: Integer, done: Integer, grams: Grams, short: Short, places: Numbers, matches: Matches
) -> None:
    """Append (last token, gram) to `matches` for the grams of items shorter than n that end at `done` or later."""
    keys, buckets, shift = grams[6:]
    _, _, bits, bits_shift, lengths = short
    leaves = powers(lengths)
    for at in range(find_tails(prefix, done, count, short, places)):
        k = places[at]
        for which in range(len(lengths)):
            length = lengths[which]
            if length <= k + 1:
                key = run_hash(prefix, k + 1 - length, length, leaves[which])
                if has(bits, bits_shift, key):
                    gram = find(keys, buckets, shift, key)
                    if gram >= 0:
                        matches.append((k, gram))


@compiled
def _share_out(
    matches: Matches,
    row_of: list[Integer],
    firsts: list[Integer],
    count: Integer,
    n: int,
    tables: Tables,
    state: State,
    verdicts: NDArray[np.uint8],
) -> None:
    """Judge rows by the grams among their tokens; token firsts[k] is the first of row row_of[k].

    `state` stores row numbers with the grams, so the grams of one row may be divided between several calls.
    """
    at = 0
    for k in range(len(row_of)):
        end = firsts[k + 1] if k + 1 < len(row_of) else count
        while at < len(matches) and matches[at][0] < end:
            if verdicts[row_of[k]] == NOTHING and enough(matches[at][1], row_of[k], n, tables, state):
                verdicts[row_of[k]] = CANDIDATE
            at += 1


@compiled
def enough(gram: Integer, row: Integer, n: int, tables: Tables, state: State) -> bool:
    """Add a gram to a row's matches, and return whether the row may now match enough tokens of any item.

    Counts too many tokens, never too few: it subtracts only the overlap with the preceding n-gram.
    """
    offsets, postings, gram_lengths, item_of, needed = tables
    gram_rows, item_rows, matched, last, base = state[:5]
    now = base[0] + row
    if gram_rows[gram] == now:
        return False
    gram_rows[gram] = now
    length = np.int64(gram_lengths[gram])
    for p in range(offsets[gram], offsets[gram + 1]):
        first = postings[p]
        item = item_of[first]
        if item_rows[item] != now:
            item_rows[item] = now
            matched[item] = length
        elif length < n:
            matched[item] += length
        else:
            matched[item] += min(abs(first - last[item]), length)
        last[item] = first
        if matched[item] >= needed[item]:
            return True
    return False


@compiled
def scan_rows(
    segments: Segments, rows: int, chars: Chars, grams: Grams, short: Short, tables: Tables, state: State
) -> Any:
    """Judge each row of a batch: uint8[rows], NOTHING, CANDIDATE, NEEDS_NORMALIZING or BROKEN.

    N-grams do not cross the border of a segment; the matches of a row's segments add up. Row numbers in `state` grow
    from call to call, so that it need not be cleared.
    """
    data, starts, ends, owner = segments
    prefix, places, base = state[5], state[6], state[4]
    room, n = len(prefix) - SLACK, grams[0]
    verdicts = np.zeros(rows, dtype=np.uint8)
    done: Any = np.int64(0)  # a plain 0 is a type of its own, for which Numba compiles what it is passed to
    s = 0
    i = starts[0] if len(starts) else 0
    while s < len(starts):
        row_of: list[Integer] = [np.int64(0) for _ in range(0)]
        firsts: list[Integer] = [np.int64(0) for _ in range(0)]
        count = done
        while s < len(starts) and count < room:
            row = owner[s]
            row_of.append(row)
            firsts.append(np.int64(count))
            if verdicts[row] <= CANDIDATE:
                i, count, wrong = hash_tokens(data, i, ends[s], chars, prefix, count, state[7])
                if wrong != NOTHING:
                    verdicts[row] = wrong
            if verdicts[row] > CANDIDATE or i >= ends[s]:
                prefix[count + 1] = prefix[count] * BASE + SEED  # no token's hash: a border that no gram crosses
                count += 1
                s += 1
                i = starts[s] if s < len(starts) else 0
        matches: Matches = [(np.int64(0), np.int64(0)) for _ in range(0)]
        _find_grams(prefix, count, grams, places, matches)
        _share_out(matches, row_of, firsts, count, n, tables, state, verdicts)
        if len(short[4]):
            matches.clear()
            _find_short(prefix, count, done, grams, short, places, matches)
            _share_out(matches, row_of, firsts, count, n, tables, state, verdicts)
        done = min(n - 1, count)
        for k in range(done + 1):
            prefix[k] = prefix[count - done + k]
    base[0] += rows
    return verdicts
