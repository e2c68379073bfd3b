"""The grams of the evaluation side and the arrays by which the kernel finds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decontam.matching import kernel
from decontam.text import hashing

if TYPE_CHECKING:
    from decontam.matching.rule import Rule


def step(n: int) -> int:
    """Every how many tokens of a text the kernel looks for a part of an n-gram."""
    return max(1, n // 2)


def grams(
    begins: NDArray[np.int64], sizes: NDArray[np.int64], short: NDArray[np.bool_], rule: Rule
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(first tokens, lengths) of all grams: the n-grams of long fields, and the whole fields of short items."""
    long_parts = np.flatnonzero(sizes >= rule.n)
    counts = (sizes[long_parts] - rule.n) // rule.stride + 1
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(begins[:-1][long_parts], counts) + within * rule.stride
    last = (begins[:-1] + sizes - rule.n)[long_parts][(sizes[long_parts] - rule.n) % rule.stride != 0]
    whole = np.flatnonzero(short & (sizes > 0) & rule.short)
    return (
        np.concatenate([starts, last, begins[:-1][whole]]),
        np.concatenate([np.full(len(starts) + len(last), rule.n), sizes[whole]]).astype(np.int64),
    )


def arrays(
    stream: dict[str, NDArray[Any]], starts: NDArray[np.int64], lengths: NDArray[np.int64], n: int
) -> dict[str, NDArray[Any]]:
    """The sorted hashes of the grams, their postings, and the ways into them; `stream`: tokens, codes and code_ends."""
    hashes = hashing.token_hashes(stream["codes"], stream["code_ends"])
    numbers = stream["tokens"]
    prefix = hashing.prefixes(hashes[numbers] if len(numbers) else np.zeros(0, np.uint64))
    found = hashing.run_hashes(prefix, starts, lengths)
    order = np.argsort(found, kind="stable")
    keys, offsets = np.unique(found[order], return_index=True)
    kinds = np.maximum.reduceat(lengths[order], offsets) if len(keys) else lengths
    size = max(10, int(np.ceil(np.log2(max(len(keys), 1)))))
    edges = np.arange((1 << size) + 1, dtype=np.uint64)
    whole = lengths < n
    tails = np.minimum(lengths[whole], kernel.TAIL)
    long = keys[kinds == n]
    return {
        "keys": keys, "offsets": np.append(offsets, len(order)), "postings": starts[order],
        "gram_lengths": kinds, "buckets": np.searchsorted(keys >> np.uint64(64 - size), edges),
        "bits": _filter(long, len(long), 4), "part_bits": _filter(_parts(prefix, starts[~whole], n), len(long), 4),
        "short_bits": _filter(found[whole], len(tails), 5),
        "short_tails": _filter(hashing.run_hashes(prefix, (starts + lengths)[whole] - tails, tails), len(tails), 6),
        "short_lengths": np.unique(lengths[whole]),
    }  # fmt: skip


def _parts(prefix: NDArray[np.uint64], starts: NDArray[np.int64], n: int) -> NDArray[np.uint64]:
    """Hashes of all the runs of which the kernel looks up one in every n-gram."""
    inside = np.zeros(len(prefix), dtype=np.bool_)
    for offset in range(step(n)):
        inside[starts + offset] = True
    places = np.flatnonzero(inside)
    return np.asarray(hashing.run_hashes(prefix, places, np.full(len(places), n - step(n) + 1)))


def _filter(hashes: NDArray[np.uint64], distinct: int, spare: int) -> NDArray[np.uint64]:
    """A bit for each hash among at least 2^spare times as many."""
    size = max(10, int(np.ceil(np.log2(max(distinct, 1)))) + spare)
    bits = np.zeros(1 << (size - 6), dtype=np.uint64)
    hashing.set_bits(bits, hashes, 64 - size)
    return bits
