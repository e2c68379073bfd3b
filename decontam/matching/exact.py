"""The exact comparison of training rows with the items whose hashes they share: token by token. Compiled by Numba."""

from __future__ import annotations

from typing import Any

import numpy as np

from decontam.matching.kernel import find_tails, powers
from decontam.text.characters import FULL, exact_tokens
from decontam.text.hashing import compiled, find, has, power, prefixes, run_hash, token_hashes

WINDOW = 8192
"""Tokens of a row that are held at once."""


@compiled
def compare_rows(segments: Any, rows: Any, chars: Any, grams: Any, items: Any) -> Any:
    """The items that some rows hit.

    `segments` as in `decontam.matching.kernel.scan_rows`; rows int64[r], ascending, none that needs normalising;
    `grams` is (n, bits of n-grams, their shift, keys, buckets, their shift, short as in `scan_rows`); `items` are
    arrays of the index: (offsets, postings, item_of, tokens, short, item_tokens, needed, part_items, part_tokens,
    token_starts, token_ends, codes, code_ends), and scratch that is left as it was found but for the last: marks
    bool[tokens] and done bool[keys], all False, the last run of an item int64[items], all -1, and int64[1], the
    postings looked at.

    Returns (hits int64[p, 5], evaluation spans int64[e, 3], training spans int64[t, 3]): a hit is row, item, its
    matched tokens, and how many spans of either side are its own; a span is its part (field of the index, segment of
    the batch) and [start, end) in the part's code points. A row's tokens pass through a window, so a long row needs
    no more memory than what it matches.
    """
    data, starts, ends, owner = segments
    longest = max(grams[0], grams[6][4][-1] if len(grams[6][4]) else 0)
    codes, spans = np.empty(4 * WINDOW, dtype=np.uint32), np.empty((max(WINDOW, 4 * longest), 3), dtype=np.int32)
    out = no_hits()
    for row in rows:
        found, gone = no_runs()
        passed = np.int64(0)
        for s in range(np.searchsorted(owner, row), np.searchsorted(owner, row + 1)):
            i, point, count, seen, wrong = starts[s], np.int64(0), np.int64(0), np.int64(0), FULL
            while wrong == FULL:
                i, point, count, wrong = exact_tokens(data, i, ends[s], point, chars, codes, spans, count)
                if wrong == FULL and count == seen:
                    codes, spans = _larger(codes, spans)
                    continue
                _look((s, passed, seen), codes, spans[:count], grams, items, found, gone)
                seen = min(count, longest - 1) if wrong == FULL else count
                passed += count - seen if wrong == FULL else count
                if wrong == FULL:
                    _keep(codes, spans, count, seen)
                    count = seen
        _judge(row, found, gone, items, out)
    return as_arrays(out)


@compiled
def compare_tokens(row: int, codes: Any, spans: Any, parts: Any, grams: Any, items: Any) -> Any:
    """The same for one row whose tokens are known: codes uint32[c] and spans int32[t, 3] as `exact_tokens` gives them.

    parts int64[k, 2]: segment, and where its tokens end.
    """
    out = no_hits()
    found, gone = no_runs()
    longest = max(grams[0], grams[6][4][-1] if len(grams[6][4]) else 0)
    begin = np.int64(0)
    for k in range(len(parts)):
        for at in range(begin, parts[k, 1], WINDOW):
            first = max(begin, at - longest + 1)
            before = np.int64(spans[first - 1, 0]) if first else np.int64(0)
            own = spans[first : min(at + WINDOW, parts[k, 1])].copy()
            own[:, 0] -= before
            _look((parts[k, 0], first, at - first), codes[before:], own, grams, items, found, gone)
        begin = parts[k, 1]
    _judge(row, found, gone, items, out)
    return as_arrays(out)


@compiled
def _larger(codes: Any, spans: Any) -> Any:
    """Room for twice as much: one token is longer than the window."""
    more, places = np.empty(2 * len(codes), codes.dtype), np.empty((2 * len(spans), 3), spans.dtype)
    more[: len(codes)], places[: len(spans)] = codes, spans
    return more, places


@compiled
def _keep(codes: Any, spans: Any, count: Any, kept: Any) -> None:
    """Move the last `kept` of `count` tokens to the front."""
    first = spans[count - kept - 1, 0] if kept < count else 0
    for k in range(spans[count - 1, 0] - first if kept else 0):
        codes[k] = codes[first + k]
    for k in range(kept):
        spans[k, 0] = spans[count - kept + k, 0] - first
        spans[k, 1:] = spans[count - kept + k, 1:]


@compiled
def no_runs() -> Any:
    """An empty list of runs (item, first token of the row, token after the last, part, start, end), one of grams."""
    zero = np.int64(0)
    return [(zero, zero, zero, zero, zero, zero) for _ in range(0)], [zero for _ in range(0)]


@compiled
def no_hits() -> Any:
    """Empty lists of hits, evaluation spans and training spans."""
    zero = np.int64(0)
    return (
        [(zero, zero, zero, zero, zero) for _ in range(0)],
        [(zero, zero, zero) for _ in range(0)],
        [(zero, zero, zero) for _ in range(0)],
    )


@compiled
def as_arrays(out: Any) -> Any:
    """The lists as arrays of whole numbers."""
    hits, evals, trains = np.empty((len(out[0]), 5), np.int64), _triples(out[1]), _triples(out[2])
    for k in range(len(out[0])):
        hits[k, 0], hits[k, 1], hits[k, 2], hits[k, 3], hits[k, 4] = out[0][k]
    return hits, evals, trains


@compiled
def _triples(found: Any) -> Any:
    out = np.empty((len(found), 3), np.int64)
    for k in range(len(found)):
        out[k, 0], out[k, 1], out[k, 2] = found[k]
    return out


@compiled
def _judge(row: int, runs: Any, gone: Any, items: Any, out: Any) -> None:
    """Append the items that a row hits to `out`, in the index' order; `runs` and `gone` are what `_look` found."""
    item_tokens, needed, part_items, part_tokens, token_starts, token_ends = items[5:11]
    marks, done, last_run = items[13:16]
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
        matched = np.sum(marks[origin:end])
        if matched >= needed[item]:
            known = len(evals), len(trains)
            for part in range(part_items[item], part_items[item + 1]):
                _runs(marks, part_tokens[part], part_tokens[part + 1], part, token_starts, token_ends, evals)
            _joined(runs, order[begin:at], trains)
            hits.append((np.int64(row), item, np.int64(matched), len(evals) - known[0], len(trains) - known[1]))
        marks[origin:end] = False
        last_run[item] = -1
    for gram in gone:
        done[gram] = False


@compiled
def _joined(runs: Any, chosen: Any, out: Any) -> None:
    """Append (part, start, end) of the chosen runs of a row's tokens, those that touch within a part as one."""
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
def _runs(marks: Any, begin: int, end: int, part: int, starts: Any, ends: Any, out: Any) -> None:
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
def _look(place: Any, codes: Any, spans: Any, grams: Any, items: Any, found: Any, gone: Any) -> None:
    """Add every gram that tokens of one part share with the items, as runs of the row's tokens, to `found`.

    `place` is (part, tokens of the row before these, how many of these have been looked at). What is matched of the
    items is marked. A gram counts where it first stands in the row; it then is `done`, and in `gone`. So a row costs
    no more than its own tokens and what the index has of each of its distinct grams.
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
            _equal(key, at, n, place, codes, spans, ids, grams, items, found, gone)
    places, leaves = np.empty(count, dtype=np.int64), powers(lengths)
    for k in range(find_tails(prefix, seen, count, short, places)):
        for which in range(len(lengths)):
            length = lengths[which]
            at = places[k] + 1 - length
            if at >= 0:
                key = run_hash(prefix, at, length, leaves[which])
                if has(short_bits, short_shift, key):
                    _equal(key, at, length, place, codes, spans, ids, grams, items, found, gone)


@compiled
def _equal(
    key: Any, at: int, length: int, place: Any, codes: Any, spans: Any, ids: Any, grams: Any, items: Any, found: Any,
    gone: Any,
) -> None:  # fmt: skip
    """Add the items' places whose gram has this hash and is the row's, token by token.

    `ids` keeps what is known of the row's tokens: the number in the vocabulary, or -1.
    """
    part, passed, _ = place
    n, _, _, keys, buckets, shift, _ = grams
    offsets, postings, item_of, stream, short = items[:5]
    marks, done, last_run, compared = items[13:]
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
        if run >= 0 and found[run][3] == part and found[run][1] <= begin < found[run][2]:
            found[run] = (item, found[run][1], max(end, found[run][2]), part, found[run][4], max(stop, found[run][5]))
        else:
            last_run[item] = len(found)
            found.append((item, begin, end, np.int64(part), start, stop))
    if every:  # else two grams of the index have one hash, and another place of the row may hold the other
        done[gram] = True
        gone.append(gram)


@compiled
def _same(first: Any, at: int, length: int, codes: Any, spans: Any, ids: Any, stream: Any, items: Any) -> bool:
    """Are the `length` tokens of the index from `first` those of the row from `at`?"""
    words, word_ends = items[11:13]
    if first + length > len(stream):
        return False
    for t in range(length):
        word = stream[first + t]
        if ids[at + t] < 0:
            begin, own = (word_ends[word - 1] if word else 0), (spans[at + t - 1, 0] if at + t else 0)
            if _same_codes(codes, own, spans[at + t, 0], words, begin, word_ends[word]):
                ids[at + t] = word
        if ids[at + t] != word:
            return False
    return True


@compiled
def _same_codes(a: Any, a_start: int, a_end: int, b: Any, b_start: int, b_end: int) -> bool:
    return a_end - a_start == b_end - b_start and np.array_equal(a[a_start:a_end], b[b_start:b_end])
