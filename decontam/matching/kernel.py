"""The single pass over the bytes of training text: tokens, n-gram hashes, look-up. Compiled by Numba.

Everything here is a filter. What it passes on is compared token by token in `decontam.matching.exact`; what it drops
has too few equal hashes to have enough equal n-grams.

Layout of the index arrays (`decontam.matching.index.Index` holds them): a *gram* is a run of tokens of an
evaluation item, `n` long or, in items shorter than that, a whole field. Its *postings* are the places of its first
token among all tokens of the evaluation.

An n-gram holds, wherever it begins, one run of m = n - q + 1 tokens that begins at a multiple of q. So only every q-th
m-gram of a text is looked up, and the n-grams around it where the evaluation has that m-gram
(`decontam.matching.gram_arrays.step`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from decontam.text.characters import CANDIDATE, NOTHING, SLACK, hash_tokens
from decontam.text.hashing import BASE, SEED, compiled, find, has, power, run_hash

TAIL = 2
"""Tokens at the end of a short item by which it is first looked for."""


@compiled
def _find_grams(prefix: Any, count: int, grams: Any, places: Any, found: Any) -> None:
    """Append (last token, gram) of the n-grams among `count` tokens that stand in the index to `found`, in order."""
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
                    found.append((start + n - 1, gram))


@compiled
def find_tails(prefix: Any, begin: int, count: int, short: Any, places: Any) -> Any:
    """Fill `places` with those of the tokens begin, …, count - 1 with which a short gram may end; returns how many.

    Grams are looked for by their last two tokens, and those of one token by that.
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
def powers(lengths: Any) -> Any:
    """`power` of each."""
    out = np.empty(len(lengths), dtype=np.uint64)
    for k in range(len(lengths)):
        out[k] = power(lengths[k])
    return out


@compiled
def _find_short(prefix: Any, count: int, done: int, grams: Any, short: Any, places: Any, found: Any) -> None:
    """The same for the grams of items shorter than n that end at `done` or later. Their last tokens are looked for."""
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
                        found.append((k, gram))


@compiled
def _share_out(
    found: Any, row_of: Any, firsts: Any, count: int, n: int, tables: Any, state: Any, verdicts: Any
) -> None:
    """Judge rows by what was found among the tokens; token firsts[k] is the first of row row_of[k].

    Whether two grams belong to one row is known by state's row number, so a row may come in several calls.
    """
    at = 0
    for k in range(len(row_of)):
        end = firsts[k + 1] if k + 1 < len(row_of) else count
        while at < len(found) and found[at][0] < end:
            if verdicts[row_of[k]] == NOTHING and enough(found[at][1], row_of[k], n, tables, state):
                verdicts[row_of[k]] = CANDIDATE
            at += 1


@compiled
def enough(gram: int, row: int, n: int, tables: Any, state: Any) -> bool:
    """Add a gram to what a row has of each item. May that be as many tokens as any item needs?

    Counts too many tokens, never too few: of overlaps, only the one with the n-gram before is taken off.
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
def scan_rows(segments: Any, rows: int, chars: Any, grams: Any, short: Any, tables: Any, state: Any) -> Any:
    """One verdict per row, uint8[rows].

    `segments` is (data uint8[…], starts int64[s], ends int64[s], row int64[s] ascending); n-grams do not cross a
    segment's border, and the matches of a row's segments add up. `grams` is (n, step, bits of m-grams, their shift,
    bits of n-grams, their shift, keys, buckets, their shift), `short` (bits of tails, their shift, bits of short grams,
    their shift, lengths int64[k]), `tables` (postings' ends, postings, lengths of the grams, item of a token, tokens
    that an item needs); `state` is scratch, which one process uses again and again: (row of a gram, row of an item,
    matched tokens of an item, its last gram, number of the first row int64[1], prefix uint64[…], places int64[…],
    scratch of `decontam.text.ascii_blocks`).
    Row numbers go up from call to call, so that nothing needs to be cleared.
    """
    data, starts, ends, owner = segments
    prefix, places, base = state[5], state[6], state[4]
    room, n = len(prefix) - SLACK, grams[0]
    verdicts = np.zeros(rows, dtype=np.uint8)
    s, done = 0, 0
    i = starts[0] if len(starts) else 0
    while s < len(starts):
        row_of = [np.int64(0) for _ in range(0)]
        firsts = [np.int64(0) for _ in range(0)]
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
        found = [(np.int64(0), np.int64(0)) for _ in range(0)]
        _find_grams(prefix, count, grams, places, found)
        _share_out(found, row_of, firsts, count, n, tables, state, verdicts)
        if len(short[4]):
            found.clear()
            _find_short(prefix, count, done, grams, short, places, found)
            _share_out(found, row_of, firsts, count, n, tables, state, verdicts)
        done = min(n - 1, count)
        for k in range(done + 1):
            prefix[k] = prefix[count - done + k]
    base[0] += rows
    return verdicts
