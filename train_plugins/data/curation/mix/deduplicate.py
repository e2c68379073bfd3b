"""Duplicates across the sources of a mix: the first row, in the order of the recipe, is kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from train_plugins.data.curation.duplicates import NearDuplicates
from train_plugins.data.curation.mix.keys import Duplicates
from train_plugins.data.curation.mix.parts import compared_text
from train_plugins.data.curation.mix.pool import EXACT, KEPT, NEAR, Lines, Pool


def mark(pool: Pool, keys: Duplicates, lines: Lines) -> None:
    """Mark exact and near duplicates in the pool."""
    first = _first_of_equals(pool.digest)
    own = np.arange(len(pool))
    if keys.exact:
        repeated = first != own
        pool.state[repeated] = EXACT
        pool.other[repeated] = first[repeated]
    if keys.near is None:
        return
    positions = np.flatnonzero(pool.state == KEPT)
    near = NearDuplicates(keys.near, keys.shingle)
    _add_sketches(near, pool, pool.state == KEPT)

    def text(place: int) -> str:
        return compared_text(lines.row(int(positions[place])), keys.by)

    for place, duplicate in near.find(text).items():
        pool.state[positions[place]] = NEAR
        pool.other[positions[place]] = positions[duplicate.of]


def _first_of_equals(digest: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return, for each row, the position of the first row with the same digest."""
    order = np.lexsort((digest[:, 1], digest[:, 0]))  # stable, so equal rows stay in their order
    ordered = digest[order]
    new = np.ones(len(order), np.bool_)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(order), np.int64)
    first[order] = order[new][np.cumsum(new) - 1] if len(order) else order
    return first


def _add_sketches(near: NearDuplicates, pool: Pool, kept: NDArray[np.bool_]) -> None:
    before = 0
    for part in pool.parts:
        size = len(part.index["number"])
        if size:
            sketches: Any = part.sketches()
            near.add_sketches(sketches[kept[before : before + size]])
        before += size
