"""The exact comparison, token by token, of training rows with the items whose hashes they share. Compiled by Numba.

Compiled functions take arrays and tuples of arrays, because Numba passes no objects; so some have many parameters.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.matching.kernel import Numbers, Segments, Short, find_tails, powers
from decontam.text.characters import FULL, Chars, exact_tokens
from decontam.text.hashing import Hashes, Integer, compiled, find, has, power, prefixes, run_hash, token_hashes

Codes = NDArray[np.uint32]
TokenSpans = NDArray[np.int32]
Grams = tuple[int, Hashes, np.uint64, Hashes, NDArray[np.int32], np.uint64, Short]
"""(n, bits of n-grams, their shift, keys, buckets, their shift, short as in `kernel.scan_rows`)."""
Items = tuple[
    NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.bool_], Numbers,
    NDArray[np.int32], Numbers, Numbers, NDArray[np.int32], NDArray[np.int32], Codes, Numbers, NDArray[np.bool_],
    NDArray[np.bool_], Numbers, Numbers, NDArray[np.bool_], NDArray[np.int32],
]  # fmt: skip
"""Arrays of the index: (offsets, postings, item_of, tokens, short, item_tokens, needed, part_items, part_tokens,
token_starts, token_ends, codes, code_ends); then scratch, which the functions here leave as they find it but for the
last: marks bool[tokens] and done bool[keys], all False, the last run of an item int64[items], all -1, and int64[1], the
number of postings compared; then own bool[tokens] of the index, and how many own tokens an item needs int32[items]."""
Triples = list[tuple[Integer, Integer, Integer]]
Run = tuple[Integer, Integer, Integer, Integer, Integer, Integer]
"""(item, first token of the row, token after the last, part, start, end)."""
Hits = tuple[list[tuple[Integer, Integer, Integer, Integer, Integer, Integer]], Triples, Triples]
"""Hits, evaluation spans and training spans, as lists."""
Place = tuple[Integer, Integer, Integer]
"""(part, tokens of the row before these, how many of these were compared before)."""
WINDOW = 8192
"""Tokens of a row that are in memory at once."""


@compiled
def compare_rows(segments: Segments, rows: Numbers, chars: Chars, grams: Grams, items: Items) -> Any:
    """Find the items that some rows hit.

    rows int64[r] are ascending, and none of them needs normalising.

    Returns (hits int64[p, 6], evaluation spans int64[e, 3], training spans int64[t, 3]). A hit is row, item, number of
    matched tokens, number of its evaluation spans, number of its training spans, number of matched own tokens; a span
    is its part (field of the index, segment of the batch) and [start, end) in the part's code points. A row's tokens
    pass through a window, so a long row needs no more memory than its matches.
    """
    data, starts, ends, owner = segments
    longest: Any = max(grams[0], grams[6][4][-1] if len(grams[6][4]) else 0)
    codes, spans = np.empty(4 * WINDOW, dtype=np.uint32), np.empty((max(WINDOW, 4 * longest), 3), dtype=np.int32)
    out = no_hits()
    for row in rows:
        runs, finished = no_runs()
        passed = np.int64(0)
        for s in range(np.searchsorted(owner, row), np.searchsorted(owner, row + 1)):
            i, point, count, seen, wrong = starts[s], np.int64(0), np.int64(0), np.int64(0), FULL
            while wrong == FULL:
                i, point, count, wrong = exact_tokens(data, i, ends[s], point, chars, codes, spans, count)
                if wrong == FULL and count == seen:
                    codes, spans = _larger(codes, spans)
                    continue
                _look((s, passed, seen), codes, spans[:count], grams, items, runs, finished)
                seen = min(count, longest - 1) if wrong == FULL else count
                passed += count - seen if wrong == FULL else count
                if wrong == FULL:
                    _keep(codes, spans, count, seen)
                    count = seen
        _judge(row, runs, finished, items, out)
    return as_arrays(out)


@compiled
def compare_tokens(row: int, codes: Codes, spans: TokenSpans, parts: Numbers, grams: Grams, items: Items) -> Any:
    """Find the items that one row hits, from its tokens: codes uint32[c] and spans int32[t, 3] of `exact_tokens`.

    parts int64[k, 2]: segment, and where its tokens end. Returns the arrays of `compare_rows`.
    """
    out = no_hits()
    runs, finished = no_runs()
    longest: Any = max(grams[0], grams[6][4][-1] if len(grams[6][4]) else 0)
    begin: Any = np.int64(0)
    for k in range(len(parts)):
        for at in range(begin, parts[k, 1], WINDOW):
            first: Any = max(begin, at - longest + 1)
            before = np.int64(spans[first - 1, 0]) if first else np.int64(0)
            window = spans[first : min(at + WINDOW, parts[k, 1])].copy()
            window[:, 0] -= before
            _look((parts[k, 0], first, at - first), codes[before:], window, grams, items, runs, finished)
        begin = parts[k, 1]
    _judge(row, runs, finished, items, out)
    return as_arrays(out)


@compiled
def _larger(codes: Codes, spans: TokenSpans) -> Any:
    """Double the buffers, for a token that is longer than the window."""
    more, places = np.empty(2 * len(codes), codes.dtype), np.empty((2 * len(spans), 3), spans.dtype)
    more[: len(codes)], places[: len(spans)] = codes, spans
    return more, places


@compiled
def _keep(codes: Codes, spans: TokenSpans, count: Integer, size: Integer) -> None:
    """Move the last `size` of `count` tokens to the beginning of the buffers."""
    first = spans[count - size - 1, 0] if size < count else 0
    for k in range(spans[count - 1, 0] - first if size else 0):
        codes[k] = codes[first + k]
    for k in range(size):
        spans[k, 0] = spans[count - size + k, 0] - first
        spans[k, 1:] = spans[count - size + k, 1:]


@compiled
def no_runs() -> Any:
    """Make an empty list of runs and an empty list of grams."""
    zero = np.int64(0)
    return [(zero, zero, zero, zero, zero, zero) for _ in range(0)], [zero for _ in range(0)]


@compiled
def no_hits() -> Any:
    """Make empty lists of hits, evaluation spans and training spans."""
    zero = np.int64(0)
    return (
        [(zero, zero, zero, zero, zero, zero) for _ in range(0)],
        [(zero, zero, zero) for _ in range(0)],
        [(zero, zero, zero) for _ in range(0)],
    )


@compiled
def as_arrays(out: Hits) -> Any:
    """Convert the lists to arrays of int64."""
    hits, evals, trains = np.empty((len(out[0]), 6), np.int64), _triples(out[1]), _triples(out[2])
    for k in range(len(out[0])):
        hits[k, 0], hits[k, 1], hits[k, 2], hits[k, 3], hits[k, 4], hits[k, 5] = out[0][k]
    return hits, evals, trains


@compiled
def _triples(triples: Triples) -> Any:
    out = np.empty((len(triples), 3), np.int64)
    for k in range(len(triples)):
        out[k, 0], out[k, 1], out[k, 2] = triples[k]
    return out


@compiled
def _judge(row: Integer, runs: list[Run], finished: list[int], items: Items, out: Hits) -> None:
    """Append the items that a row hits to `out`, in the order of the index; `runs` and `finished` are from `_look`."""
    item_tokens, needed, part_items, part_tokens, token_starts, token_ends = items[5:11]
    marks, done, last_run = items[13:16]
    own, needed_own = items[17:]
    hits, evals, trains = out
    owners = np.empty(len(runs), dtype=np.int64)
    for k in range(len(runs)):
        owners[k] = runs[k][0]
    order = np.argsort(owners, kind="mergesort")
    at = 0
    while at < len(order):
        item, begin = owners[order[at]], at
        while at < len(order) and owners[order[at]] == item:
            at += 1
        origin, end = item_tokens[item], item_tokens[item + 1]
        matched, own_matched = np.sum(marks[origin:end]), np.sum(marks[origin:end] & own[origin:end])
        if matched >= needed[item] or own_matched >= needed_own[item]:
            known = len(evals), len(trains)
            for part in range(part_items[item], part_items[item + 1]):
                _runs(marks, part_tokens[part], part_tokens[part + 1], part, token_starts, token_ends, evals)
            _joined(runs, order[begin:at], trains)
            seen = len(evals) - known[0], len(trains) - known[1]
            hits.append((np.int64(row), item, np.int64(matched), seen[0], seen[1], np.int64(own_matched)))
        marks[origin:end] = False
        last_run[item] = -1
    for gram in finished:
        done[gram] = False


@compiled
def _joined(runs: list[Run], chosen: Numbers, out: Triples) -> None:
    """Append (part, start, end) of the chosen runs of a row's tokens, joining those that touch within a part."""
    places = np.empty(len(chosen), dtype=np.int64)
    for k in range(len(chosen)):
        places[k] = runs[chosen[k]][1]
    order = np.argsort(places, kind="mergesort")
    at = 0
    while at < len(order):
        _, _, end, part, start, stop = runs[chosen[order[at]]]
        at += 1
        while at < len(order):
            _, first, after, other, _, point = runs[chosen[order[at]]]
            if first > end or other != part:
                break
            end, stop = max(end, after), max(stop, point)
            at += 1
        out.append((part, start, stop))


@compiled
def _runs(
    marks: NDArray[np.bool_],
    begin: int,
    end: int,
    part: int,
    starts: NDArray[np.int32],
    ends: NDArray[np.int32],
    out: Triples,
) -> None:
    """Append (part, start, end) of the runs of marked tokens among those from begin to end."""
    t = begin
    while t < end:
        if not marks[t]:
            t += 1
            continue
        first = t
        while t < end and marks[t]:
            t += 1
        out.append((np.int64(part), np.int64(starts[first]), np.int64(ends[t - 1])))


@compiled
def _look(
    place: Place, codes: Codes, spans: TokenSpans, grams: Grams, items: Items, runs: list[Run], finished: list[int]
) -> None:
    """Add every gram that tokens of one part share with the items, as runs of the row's tokens, to `runs`.

    Matched tokens of the items are marked. A gram counts at its first position in the row; it is then `done` and listed
    in `finished`. So the cost of a row is bounded by its tokens and the postings of its distinct grams.
    """
    _, _, seen = place
    n, bits, bits_shift, _, _, _, short = grams
    _, _, short_bits, short_shift, lengths = short
    prefix = prefixes(token_hashes(codes, spans[:, 0]))
    count = len(spans)
    ids = np.full(count, -1, dtype=np.int32)
    leave = power(n)
    for at in range(max(seen - n + 1, 0), count - n + 1):
        key = run_hash(prefix, at, n, leave)
        if has(bits, bits_shift, key):
            _equal(key, at, n, place, codes, spans, ids, grams, items, runs, finished)
    places, leaves = np.empty(count, dtype=np.int64), powers(lengths)
    for k in range(find_tails(prefix, seen, count, short, places)):
        for which in range(len(lengths)):
            length = lengths[which]
            at = places[k] + 1 - length
            if at >= 0:
                key = run_hash(prefix, at, length, leaves[which])
                if has(short_bits, short_shift, key):
                    _equal(key, at, length, place, codes, spans, ids, grams, items, runs, finished)


@compiled
def _equal(
    key: np.uint64, at: int, length: int, place: Place, codes: Codes, spans: TokenSpans, ids: NDArray[np.int32],
    grams: Grams, items: Items, runs: list[Run], finished: list[int],
) -> None:  # fmt: skip
    """Add the places of the items where the gram with this hash equals the row's, token by token.

    `ids` holds the known numbers of the row's tokens in the vocabulary; -1 for the others.
    """
    part, passed, _ = place
    n, _, _, keys, buckets, shift, _ = grams
    offsets, postings, item_of, stream, short = items[:5]
    marks, done, last_run, compared = items[13:17]
    gram = find(keys, buckets, shift, key)
    if gram < 0 or done[gram]:
        return
    compared[0] += offsets[gram + 1] - offsets[gram]
    every = True
    start, stop = np.int64(spans[at, 1]), np.int64(spans[at + length - 1, 2])
    for p in range(offsets[gram], offsets[gram + 1]):
        first = np.int64(postings[p])
        item = np.int64(item_of[first])
        if short[item] != (length < n) or not _same(first, at, length, codes, spans, ids, stream, items):
            every = False
            continue
        marks[first : first + length] = True
        begin, end = passed + at, passed + at + length
        run = last_run[item]
        if run >= 0 and runs[run][3] == part and runs[run][1] <= begin < runs[run][2]:
            runs[run] = (item, runs[run][1], max(end, runs[run][2]), part, runs[run][4], max(stop, runs[run][5]))
        else:
            last_run[item] = len(runs)
            runs.append((item, begin, end, np.int64(part), start, stop))
    if every:  # otherwise two grams of the index share this hash, and another place of the row may match the other
        done[gram] = True
        finished.append(gram)


@compiled
def _same(
    first: Integer,
    at: int,
    length: int,
    codes: Codes,
    spans: TokenSpans,
    ids: NDArray[np.int32],
    stream: NDArray[np.int32],
    items: Items,
) -> bool:
    """Whether the `length` tokens of the index from `first` equal those of the row from `at`."""
    words, word_ends = items[11], items[12]
    if first + length > len(stream):
        return False
    for t in range(length):
        word = stream[first + t]
        if ids[at + t] < 0:
            begin: Any = word_ends[word - 1] if word else 0
            end: Any = word_ends[word]
            token_begin = spans[at + t - 1, 0] if at + t else 0
            if _same_codes(codes, token_begin, spans[at + t, 0], words, begin, end):
                ids[at + t] = word
        if ids[at + t] != word:
            return False
    return True


@compiled
def _same_codes(a: Codes, a_start: Integer, a_end: Integer, b: Codes, b_start: Integer, b_end: Integer) -> bool:
    return a_end - a_start == b_end - b_start and np.array_equal(a[a_start:a_end], b[b_start:b_end])
