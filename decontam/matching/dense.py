"""Rows that contain a run of symbols without letters, such as brackets or an expression. Compiled by Numba."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from decontam.text import tokens
from decontam.text.hashing import compiled
from decontam.training_data.batches import Batch

LEAST = 6
"""Symbols of a run. Digits, spaces and punctuation do not end it, letters do."""
_OTHER, _SYMBOL, _LETTER = range(3)


def dense_rows(batch: Batch) -> NDArray[np.int64]:
    """Return the rows of a batch that have such a run."""
    rows = np.zeros(batch.rows, np.bool_)
    _find(batch.data, batch.starts, batch.ends, batch.owners, _kinds(), rows)
    return np.flatnonzero(rows)


@lru_cache(maxsize=1)
def _kinds() -> NDArray[np.uint8]:
    """Return the kind of each byte; of other characters than ASCII, the first byte decides.

    Symbols begin with E2 (U+2000 to U+2FFF) or F0 (from U+10000). A row too many costs a comparison, no more.
    """
    kinds = np.full(256, _OTHER, np.uint8)
    for code in range(128):
        char = chr(code)
        kinds[code] = _SYMBOL if tokens.is_symbol(char) else _LETTER if char.isalpha() else _OTHER
    kinds[0xC2:0xF5] = _LETTER
    kinds[[0xE2, 0xF0]] = _SYMBOL
    return kinds


@compiled
def _find(
    data: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64], owners: NDArray[np.int64],
    kinds: NDArray[np.uint8], rows: NDArray[np.bool_],
) -> None:  # fmt: skip
    for s in range(len(starts)):
        run = 0
        if rows[owners[s]]:
            continue
        for i in range(starts[s], ends[s]):
            kind = kinds[data[i]]
            if kind == 2:
                run = 0
            elif kind == 1:
                run += 1
                if run >= LEAST:
                    rows[owners[s]] = True
                    break
