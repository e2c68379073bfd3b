"""Hashes of tokens and of runs of tokens, and the ways into the index. Compiled by Numba.

Hashes are 64 bits wide and wrap around. They are a filter: what they pass on is compared token by token.

A run's hash is a polynomial over its tokens' hashes. From the polynomials of all beginnings of a text (`prefix`:
prefix[k + 1] = prefix[k] * base + hash of token k) the hash of any run of it takes one multiplication.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np

from olmes_suite.files import cache_folder

F = TypeVar("F", bound=Callable[..., Any])

SEED = np.uint64(0x9E3779B97F4A7C15)
STEP = np.uint64(0x100000001B3)
WORD_STEP = np.uint64(0xA0761D6478BD642F)
BASE = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_LENGTH = np.uint64(0xE7037ED1A0B428DB)


SOURCES = (
    "matching/exact", "matching/kernel", "text/ascii_blocks", "text/characters", "text/hashing", "text/tokens",
    "text/vocabulary",
)  # fmt: skip
"""The modules with compiled code, or with constants that it holds."""


def stamp(folder: Path) -> str:
    """Changes with any of the modules' text; `folder` is the package."""
    return hashlib.sha256(b"\0".join((folder / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()[:16]


@lru_cache(maxsize=1)
def _cache() -> str:
    """The folder of machine code made from these sources: beside them, or where $NUMBA_CACHE_DIR names one, in there.

    Numba looks at the file of the function that it loads, not at those of the functions and constants within.
    """
    package = Path(__file__).parent.parent
    beside = package / "__pycache__" if os.access(package, os.W_OK) else cache_folder() / "decontam" / "compiled"
    return str(Path(numba.config.CACHE_DIR or beside) / stamp(package))


def compiled(function: F, inline: str = "never") -> F:
    """Numba's compiler, kept on disk, without the interpreter's lock."""
    kept, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _cache()
    try:
        made: F = numba.njit(cache=True, nogil=True, inline=inline)(function)
    finally:
        numba.config.CACHE_DIR = kept
    return made


def inlined(function: F) -> F:
    """The same for a short function, which Numba puts where it is called."""
    return compiled(function, "always")


@inlined
def finish(h: Any) -> Any:
    """A token's hash from the running one over its characters."""
    h = (h ^ (h >> np.uint64(32))) * _MIX
    return h ^ (h >> np.uint64(29))


@inlined
def add_word(h: Any, word: Any) -> Any:
    """The running hash of an ASCII token after up to eight more bytes, the first in the lowest bits."""
    h = (h ^ word) * WORD_STEP
    return h ^ (h >> np.uint64(32))


@inlined
def add_code(h: Any, code: Any) -> Any:
    """The running hash of a token that is not ASCII after one more code point."""
    return (h ^ np.uint64(code)) * STEP


@inlined
def spread(h: Any) -> Any:
    """A run's hash with its high bits well mixed: they choose the bit or bucket."""
    h = (h ^ (h >> np.uint64(31))) * _MIX
    return h ^ (h >> np.uint64(32))


@compiled
def power(n: int) -> Any:
    """base^n."""
    out = np.uint64(1)
    for _ in range(n):
        out *= BASE
    return out


@inlined
def run_hash(prefix: Any, start: int, length: int, leave: Any) -> Any:
    """Hash of the `length` tokens from `start`; `leave` is power(length). Runs of other lengths have other hashes."""
    return spread(prefix[start + length] - prefix[start] * leave + np.uint64(length) * _LENGTH)


@compiled
def token_hash(codes: Any, start: int, end: int) -> Any:
    """Hash of the token whose folded code points are codes[start:end]."""
    h = SEED
    for k in range(start, end):
        if codes[k] >= 128:
            for c in range(start, end):
                h = add_code(h, codes[c])
            return finish(h)
    for k in range(start, end, 8):
        word = np.uint64(0)
        for c in range(k, min(k + 8, end)):
            word |= np.uint64(codes[c]) << np.uint64(8 * (c - k))
        h = add_word(h, word)
    return finish(h)


@compiled
def token_hashes(codes: Any, ends: Any) -> Any:
    """Hashes uint64[t] of tokens given as code points uint32[c], token i ending at ends[i]."""
    out = np.empty(len(ends), dtype=np.uint64)
    start = 0
    for i in range(len(ends)):
        out[i] = token_hash(codes, start, ends[i])
        start = ends[i]
    return out


@compiled
def prefixes(hashes: Any) -> Any:
    """The polynomials uint64[t + 1] of all beginnings of a text, from its tokens' hashes."""
    out = np.zeros(len(hashes) + 1, dtype=np.uint64)
    for k in range(len(hashes)):
        out[k + 1] = out[k] * BASE + hashes[k]
    return out


@compiled
def run_hashes(prefix: Any, starts: Any, lengths: Any) -> Any:
    """`run_hash` of many."""
    out = np.empty(len(starts), dtype=np.uint64)
    length, leave = 0, np.uint64(1)
    for i in range(len(starts)):
        if lengths[i] != length:
            length = lengths[i]
            leave = power(length)
        out[i] = run_hash(prefix, starts[i], length, leave)
    return out


@compiled
def set_bits(bits: Any, hashes: Any, shift: int) -> None:
    """Set, in the filter uint64[2^(58-shift)], the bits that the hashes choose."""
    for i in range(len(hashes)):
        at = hashes[i] >> np.uint64(shift)
        bits[at >> np.uint64(6)] |= np.uint64(1) << (at & np.uint64(63))


@inlined
def has(bits: Any, shift: Any, h: Any) -> Any:
    """The bit that a hash chooses: 0 or 1."""
    at = h >> shift
    return (bits[at >> np.uint64(6)] >> (at & np.uint64(63))) & np.uint64(1)


@inlined
def find(keys: Any, buckets: Any, shift: Any, h: Any) -> Any:
    """Position of `h` in the sorted keys, or -1; buckets[b] is the first key whose high bits are at least b."""
    b = np.int64(h >> shift)
    for k in range(buckets[b], buckets[b + 1]):
        if keys[k] == h:
            return np.int64(k)
    return np.int64(-1)
