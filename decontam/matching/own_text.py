"""The own text of evaluation items: what an item does not share with other items of its task.

Many items of a task share text: the task's instruction, a template, a passage with several questions. A training row
that contains only such text contains none of the items. What is shared is derived from the items alone:

* runs of `SHORT_RUN` tokens that at least 5 % of the task's distinct items contain, and no fewer than `FEW`;
* n-grams that at least `FEW` distinct items of the task contain;
* whole fields that two distinct items of the task have, where the items have another field (`context`).

Items made of a template have no text of their own in this sense. They are told apart by longer runs: their `rare` runs
of 2n tokens are in fewer than `FEW` distinct items.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decontam.text import hashing

FEW = 3
"""Distinct items of a task that share a text, from which on it is no item's own."""
SHARE = 0.05
"""Share of a task's distinct items that contain a short run, from which on it is the task's wording."""
SHORT_RUN = 4
LEAST = 4
"""Own tokens below which they cannot tell an item from others; then the item must match as a whole."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Masks over the tokens of the items: which are an item's own text, and not its task's. bool[tokens] each."""

    own: NDArray[np.bool_]
    rare: NDArray[np.bool_]
    """Tokens at which a rare run begins."""
    context: NDArray[np.bool_]
    """Tokens of fields that other items have too, such as a passage with several questions."""


@dataclass(frozen=True, slots=True)
class Stream:
    """The tokens of all items, one after the other."""

    hashes: NDArray[np.uint64]
    """The hash of each token."""
    parts: NDArray[np.int64]
    """Where each part (field of an item) begins, and one more at the end."""
    part_items: NDArray[np.int64]
    """Where each item's parts begin, and one more at the end."""
    part_texts: NDArray[np.int64]
    """The number of each part's text; equal texts have equal numbers."""
    leaves: NDArray[np.int64]
    """The leaf task of each item."""
    distinct: NDArray[np.int64]
    """Items with equal numbers are copies of each other: `distinct_items`."""


def distinct_items(leaves: Sequence[int], texts: Sequence[Sequence[str]]) -> NDArray[np.int64]:
    """Number items so that copies within a leaf have one number: equal lines in any order, case and spacing ignored.

    Without this, an item that a benchmark has three times would have no own text. The order of lines is ignored
    because copies often differ in the order of their choices.
    """
    numbers: dict[bytes, int] = {}
    out = []
    for leaf, parts in zip(leaves, texts, strict=True):
        lines = sorted(" ".join(line.casefold().split()) for text in parts for line in text.splitlines())
        key = hashlib.blake2b(f"{leaf}\n{chr(10).join(lines)}".encode("utf-8", "surrogatepass"), digest_size=12)
        out.append(numbers.setdefault(key.digest(), len(numbers)))
    return np.array(out, dtype=np.int64)


def marks(stream: Stream, n: int) -> Marks:
    """Mark the tokens that are an item's own."""
    sizes = np.diff(stream.parts)
    part_of = np.repeat(np.arange(len(sizes)), sizes)
    item_of_part = np.repeat(np.arange(len(stream.leaves)), np.diff(stream.part_items))
    item_of = item_of_part[part_of]
    counts = _distinct_per_leaf(stream)
    prefix = hashing.prefixes(stream.hashes)
    shared = np.zeros(len(stream.hashes), np.bool_)
    common = np.maximum(FEW, np.ceil(SHARE * counts)).astype(np.int64)
    few = np.full_like(common, FEW)
    rare = np.zeros(len(stream.hashes), np.bool_)
    for size, least in ((min(SHORT_RUN, n), common), (n, few), (2 * n, few)):
        starts = np.flatnonzero(np.arange(len(part_of)) + size <= stream.parts[1:][part_of])
        runs = hashing.run_hashes(prefix, starts, np.full(len(starts), size))
        items = item_of[starts]
        # A run that two tasks share is another run in each of them.
        runs ^= (stream.leaves[items].astype(np.uint64) + np.uint64(1)) * hashing.BASE
        many = _in_many(runs, stream.distinct[items], least[stream.leaves[items]])
        if size == 2 * n:
            rare[starts[~many]] = True
            break
        hits = starts[many]
        edges = np.bincount(hits, minlength=len(shared) + 1) - np.bincount(hits + size, minlength=len(shared) + 1)
        shared |= np.cumsum(edges)[: len(shared)] > 0
    context = _shared_parts(stream, item_of_part, sizes)[part_of]
    return Marks(~(shared | context), rare, context)


def settle(marks: Marks, items: NDArray[np.int64]) -> tuple[Marks, NDArray[np.bool_]]:
    """Let all of an item's text but its context count where it has too little text of its own.

    items: where each item's tokens begin, and one more at the end. Returns the marks and the items concerned.
    """
    own = per_item(marks.own, items)
    little = (own < LEAST) & (own < np.diff(items))
    inside = np.repeat(little, np.diff(items))
    no_rest = np.repeat(per_item(~marks.context, items) == 0, np.diff(items))
    return Marks(marks.own | (inside & (~marks.context | no_rest)), marks.rare, marks.context), little


def per_item(marks: NDArray[np.bool_], items: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count the marks of each item; items: where each item's tokens begin, and one more at the end."""
    return np.diff(np.concatenate([[0], np.cumsum(marks, dtype=np.int64)])[items])


def _distinct_per_leaf(stream: Stream) -> NDArray[np.int64]:
    """Count the distinct items of each leaf."""
    _, firsts = np.unique(stream.distinct, return_index=True)
    return np.bincount(stream.leaves[firsts], minlength=int(stream.leaves.max(initial=-1)) + 1)


def _in_many(runs: NDArray[np.uint64], items: NDArray[np.int64], least: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the runs that at least that many distinct items contain."""
    order = np.argsort(runs, kind="stable")
    ordered = runs[order]
    edges = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]) if len(ordered) else [])
    sizes = np.diff(np.append(edges, len(ordered)))
    enough = np.repeat(sizes, sizes) >= least[order]  # few runs occur this often at all; the others are not sorted
    order, ordered = order[enough], ordered[enough]
    by_item = np.lexsort((items[order], ordered))
    order, ordered = order[by_item], ordered[by_item]
    new_run = np.ones(len(order), np.bool_)
    new_run[1:] = ordered[1:] != ordered[:-1]
    new_item = new_run.copy()
    new_item[1:] |= items[order][1:] != items[order][:-1]
    group = np.cumsum(new_run) - 1
    counts = np.bincount(group, weights=new_item).astype(np.int64) if len(order) else np.zeros(0, np.int64)
    out = np.zeros(len(runs), np.bool_)
    out[order] = counts[group] >= least[order]
    return out


def _shared_parts(stream: Stream, item_of_part: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the parts that other distinct items of the leaf have too, but for items that would keep no part."""
    leaf = stream.leaves[item_of_part]
    _, place = np.unique(np.column_stack([leaf, stream.part_texts]), axis=0, return_inverse=True)
    place = place.reshape(-1)
    pairs = np.unique(np.column_stack([place, stream.distinct[item_of_part]]), axis=0)
    shared: NDArray[np.bool_] = (np.bincount(pairs[:, 0], minlength=len(place))[place] > 1) & (sizes > 0)
    kept = np.bincount(item_of_part, weights=~shared & (sizes > 0), minlength=len(stream.leaves))
    return shared & (kept[item_of_part] > 0)
