"""The grams of the evaluations, and the arrays in which the kernel looks them up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from decontam.matching import kernel
from decontam.text import hashing

if TYPE_CHECKING:
    from decontam.matching.rule import Rule


def step(n: int) -> int:
    """Return the distance, in tokens of a text, between the m-grams that the kernel looks up."""
    return max(1, n // 2)


def grams(
    begins: NDArray[np.int64], sizes: NDArray[np.int64], short: NDArray[np.bool_], rule: Rule
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List (first tokens, lengths) of all grams: the n-grams of long fields, and the whole fields of short items."""
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
    """Build the sorted hashes of the grams, their postings and their look-up tables.

    `stream`: tokens, codes and code_ends of the index.
    """
    hashes = hashing.token_hashes(stream["codes"], stream["code_ends"])
    numbers = stream["tokens"]
    prefix = hashing.prefixes(hashes[numbers] if len(numbers) else np.zeros(0, np.uint64))
    gram_hashes = hashing.run_hashes(prefix, starts, lengths)
    order = np.argsort(gram_hashes, kind="stable")
    keys, offsets = np.unique(gram_hashes[order], return_index=True)
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
        "short_bits": _filter(gram_hashes[whole], len(tails), 5),
        "short_tails": _filter(hashing.run_hashes(prefix, (starts + lengths)[whole] - tails, tails), len(tails), 6),
        "short_lengths": np.unique(lengths[whole]),
    }  # fmt: skip


def _parts(prefix: NDArray[np.uint64], starts: NDArray[np.int64], n: int) -> NDArray[np.uint64]:
    """Hash all m-grams of the n-grams; the kernel looks up one m-gram of each n-gram."""
    inside = np.zeros(len(prefix), dtype=np.bool_)
    for offset in range(step(n)):
        inside[starts + offset] = True
    places = np.flatnonzero(inside)
    return np.asarray(hashing.run_hashes(prefix, places, np.full(len(places), n - step(n) + 1)))


def _filter(hashes: NDArray[np.uint64], distinct: int, spare: int) -> NDArray[np.uint64]:
    """Build a bit filter: one bit for each hash, among at least 2^spare times as many bits."""
    size = max(10, int(np.ceil(np.log2(max(distinct, 1)))) + spare)
    bits = np.zeros(1 << (size - 6), dtype=np.uint64)
    hashing.set_bits(bits, hashes, 64 - size)
    return bits
