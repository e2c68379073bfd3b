"""Hashes of tokens and of runs of tokens, and their look-up in the index. Compiled by Numba.

Hashes are 64 bits wide and wrap around. They are a filter: runs with equal hashes are then compared token by token.

A run's hash is a polynomial over its tokens' hashes. With the polynomials of all prefixes of a text (`prefix`:
prefix[k + 1] = prefix[k] * base + hash of token k) the hash of any run takes one multiplication.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

from olmes_suite.errors import OlmesError
from olmes_suite.files import cache_folder, changing

Hashes = NDArray[np.uint64]
Integer = int | np.integer[Any]
"""An integer in compiled code, which does not distinguish Python's and NumPy's."""
F = TypeVar("F", bound=Callable[..., Any])

SEED = np.uint64(0x9E3779B97F4A7C15)
STEP = np.uint64(0x100000001B3)
WORD_STEP = np.uint64(0xA0761D6478BD642F)
BASE = np.uint64(0xC2B2AE3D27D4EB4F)
_MIX = np.uint64(0xD6E8FEB86659FD93)
_LENGTH = np.uint64(0xE7037ED1A0B428DB)


SOURCES = (
    "matching/dense", "matching/exact", "matching/kernel", "text/ascii_blocks", "text/characters", "text/hashing",
    "text/tokens", "text/vocabulary",
)  # fmt: skip
"""The modules with compiled functions or with constants that are compiled into them."""


def stamp(folder: Path) -> str:
    """Hash the text of the modules in SOURCES; `folder` is the package."""
    return hashlib.sha256(b"\0".join((folder / f"{name}.py").read_bytes() for name in SOURCES)).hexdigest()[:16]


@lru_cache(maxsize=1)
def _cache() -> str:
    """Return the folder of machine code for these sources: beside them, or in $NUMBA_CACHE_DIR.

    Numba checks only the file of the function that it loads, not the files of functions and constants within it.
    """
    package = Path(__file__).parent.parent
    beside = package / "__pycache__" if os.access(package, os.W_OK) else cache_folder() / "decontam" / "compiled"
    return str(Path(numba.config.CACHE_DIR or beside) / stamp(package))


def compiled(function: F, inline: str = "never") -> F:
    """Compile a function with Numba: cached on disk, and without the interpreter's lock."""
    cache_before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _cache()
    try:
        dispatcher: F = numba.njit(cache=True, nogil=True, inline=inline)(function)
    finally:
        numba.config.CACHE_DIR = cache_before
    if (cache := getattr(dispatcher, "_cache", None)) is not None:  # NUMBA_DISABLE_JIT leaves the function itself
        _save_one_at_a_time(cache)
    return dispatcher


def _save_one_at_a_time(cache: Any) -> None:
    """Let processes that compile at the same time add their machine code one after the other.

    Numba reads the index of a function's signatures, adds one with the next free number and writes the file of that
    number. Two processes could give one number to two signatures, and later ones run the code of the wrong one.
    """
    save = cache.save_overload

    def locked(signature: Any, data: Any) -> None:
        with ExitStack() as stack:
            # a file system without locks, or a holder that is stopped
            with suppress(OlmesError, NotImplementedError):
                stack.enter_context(changing(Path(cache.cache_path) / "index"))
            save(signature, data)

    cache.save_overload = locked


def inlined(function: F) -> F:
    """Compile a short function, which Numba inlines into its callers."""
    return compiled(function, "always")


@inlined
def finish(h: np.uint64) -> Any:
    """Compute a token's hash from the running hash over its characters."""
    h = (h ^ (h >> np.uint64(32))) * _MIX
    return h ^ (h >> np.uint64(29))


@inlined
def add_word(h: np.uint64, word: np.uint64) -> Any:
    """Update the running hash of an ASCII token with up to eight bytes, the first in the lowest bits."""
    h = (h ^ word) * WORD_STEP
    return h ^ (h >> np.uint64(32))


@inlined
def add_code(h: np.uint64, code: Integer) -> Any:
    """Update the running hash of a token that is not ASCII with one code point."""
    return (h ^ np.uint64(code)) * STEP


@inlined
def spread(h: np.uint64) -> Any:
    """Mix a run's hash into its high bits, which select the bit or bucket."""
    h = (h ^ (h >> np.uint64(31))) * _MIX
    return h ^ (h >> np.uint64(32))


@compiled
def power(n: Integer) -> Any:
    """Compute base^n."""
    out = np.uint64(1)
    for _ in range(n):
        out *= BASE
    return out


@inlined
def run_hash(prefix: Hashes, start: Integer, length: Integer, leave: np.uint64) -> Any:
    """Hash the `length` tokens from `start`; `leave` is power(length). The hash depends on the length too."""
    return spread(prefix[start + length] - prefix[start] * leave + np.uint64(length) * _LENGTH)


@compiled
def token_hash(codes: NDArray[np.uint32], start: Integer, end: Integer) -> Any:
    """Hash the token whose folded code points are codes[start:end]."""
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
def token_hashes(codes: NDArray[np.uint32], ends: NDArray[np.integer[Any]]) -> Any:
    """Hash tokens, code points uint32[c] where token i ends at ends[i], to uint64[t]."""
    out = np.empty(len(ends), dtype=np.uint64)
    start = np.int64(0)
    for i in range(len(ends)):
        out[i] = token_hash(codes, start, ends[i])
        start = ends[i]
    return out


@compiled
def prefixes(hashes: Hashes) -> Any:
    """Compute the polynomials uint64[t + 1] of all prefixes of a text from its tokens' hashes."""
    out = np.zeros(len(hashes) + 1, dtype=np.uint64)
    for k in range(len(hashes)):
        out[k + 1] = out[k] * BASE + hashes[k]
    return out


@compiled
def run_hashes(prefix: Hashes, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> Any:
    """Compute `run_hash` for each start and length."""
    out = np.empty(len(starts), dtype=np.uint64)
    length, leave = 0, np.uint64(1)
    for i in range(len(starts)):
        if lengths[i] != length:
            length = lengths[i]
            leave = power(length)
        out[i] = run_hash(prefix, starts[i], length, leave)
    return out


@compiled
def set_bits(bits: Hashes, hashes: Hashes, shift: int) -> None:
    """Set the bits that the hashes select in the filter uint64[2^(58-shift)]."""
    for i in range(len(hashes)):
        at = hashes[i] >> np.uint64(shift)
        bits[at >> np.uint64(6)] |= np.uint64(1) << (at & np.uint64(63))


@inlined
def has(bits: Hashes, shift: np.uint64, h: np.uint64) -> Any:
    """Read the bit that a hash selects: 0 or 1."""
    at = h >> shift
    return (bits[at >> np.uint64(6)] >> (at & np.uint64(63))) & np.uint64(1)


@inlined
def find(keys: Hashes, buckets: NDArray[np.int32], shift: np.uint64, h: np.uint64) -> Any:
    """Find the position of `h` in sorted keys, or -1; buckets[b] is the first key whose high bits are at least b."""
    b = np.int64(h >> shift)
    for k in range(buckets[b], buckets[b + 1]):
        if keys[k] == h:
            return np.int64(k)
    return np.int64(-1)
