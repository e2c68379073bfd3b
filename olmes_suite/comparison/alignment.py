"""Two runs of a task brought together by document: which documents both have, and how their scores weigh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from olmes_suite.comparison.clusters import Pairs
from olmes_suite.runs.scores import PARTS, LeafScores, TaskScores
from olmes_suite.stats import Floats
from olmes_suite.tasks.index import NESTED, nested_shares

UNNAMED = {"unclosed": "reference"}
"""Settings that are recorded only where they differ from these values."""


@dataclass(frozen=True, slots=True)
class Aligned:
    """The documents of one task that both runs have."""

    leaves: tuple[str, ...]
    leaf: npt.NDArray[np.int64]
    """The leaf task of each document, as a position in `leaves`."""
    doc_ids: npt.NDArray[Any]
    baseline: Floats
    candidate: Floats
    pairs: Pairs
    only_baseline: int
    only_candidate: int
    flagged: npt.NDArray[np.bool_]
    """Whether the training data of either checkpoint is known to contain each document."""
    tokens: tuple[float, float] | None = None
    """Mean generated tokens per answer of baseline and candidate; None if either run does not count them."""

    def clean(self) -> Pairs | None:
        """Return the documents that are not flagged, with the strata's weights unchanged, or None without any."""
        pairs, clean = self.pairs, ~self.flagged
        if not clean.any():
            return None
        before = np.bincount(pairs.stratum, weights=pairs.weight)
        left = np.bincount(pairs.stratum[clean], weights=pairs.weight[clean], minlength=len(before))
        weight = pairs.weight[clean] * (before / np.where(left > 0, left, 1))[pairs.stratum[clean]]
        weight = weight / weight.sum()
        return Pairs(pairs.difference[clean], weight, pairs.stratum[clean], pairs.cluster[clean], pairs.binary)

    @property
    def values(self) -> tuple[float, float]:
        """The scores of baseline and candidate over the shared documents."""
        part, weight = self.pairs.stratum, self.pairs.weight
        size, share = np.bincount(part), np.bincount(part, weights=weight)
        means = [share @ (np.bincount(part, weights=scores) / size) for scores in (self.baseline, self.candidate)]
        return float(means[0]), float(means[1])


def differing_parts(a: TaskScores, b: TaskScores) -> tuple[str, ...]:
    """Return the parts of the fingerprints that differ on the shared leaf tasks.

    Different metrics and aggregates count as "scorer". Scores without fingerprints are comparable only with each other,
    and differ from other scores in "fingerprint".
    """
    parts = set()
    for name in a.leaves.keys() & b.leaves.keys():
        one, other = a.leaves[name].fingerprint, b.leaves[name].fingerprint
        if one is None and other is None:
            continue
        if one is None or other is None:
            parts.add("fingerprint")
        else:
            parts |= {part for part in PARTS if one.get(part) != other.get(part)}
    if (a.primary, weighting(a)) != (b.primary, weighting(b)):
        parts.add("scorer")
    return tuple(part for part in (*PARTS, "fingerprint") if part in parts)


def differing_settings(a: TaskScores, b: TaskScores) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ on shared leaf tasks, each with the values of both runs, as far as recorded."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in a.leaves.keys() & b.leaves.keys():
        one, other = a.leaves[name].settings, b.leaves[name].settings
        if one is None or other is None:
            continue
        for setting in dict.fromkeys([*one, *other]):
            values = tuple(side.get(setting, UNNAMED.get(setting)) for side in (one, other))
            if values[0] != values[1]:
                found.setdefault(setting, (values[0], values[1]))
    return found


def weighting(task: TaskScores) -> str:
    """Return how leaf tasks weigh in the score: macro, alike; nested, by data sets; micro, by their documents."""
    if len(task.leaves) == 1 or task.aggregate in ("macro", "mean"):
        return "macro"
    return NESTED if task.aggregate == NESTED else "micro"


def align(a: TaskScores, b: TaskScores) -> Aligned | None:
    """Align the documents of both runs, with their weights in the score. Returns None without shared documents.

    Leaf tasks have equal weights for macro averages, and weights by their documents for micro averages. The strata of a
    leaf task have equal weights, and so have the documents of a stratum.
    """
    shared = [name for name in a.leaves if name in b.leaves]
    parts, only = [], [0, 0]
    for side, (one, other) in enumerate(((a, b), (b, a))):
        only[side] += sum(len(leaf.doc_ids) for name, leaf in one.leaves.items() if name not in other.leaves)
    for name in shared:
        rows_a, rows_b = shared_rows(a.leaves[name], b.leaves[name])
        only[0] += len(a.leaves[name].doc_ids) - len(rows_a)
        only[1] += len(b.leaves[name].doc_ids) - len(rows_b)
        if len(rows_a):
            parts.append((name, rows_a, rows_b))
    if not parts:
        return None
    sizes = np.array([len(rows) for _, rows, _ in parts])
    leaf = np.repeat(np.arange(len(parts)), sizes)
    share = _shares(a, b, [name for name, _, _ in parts], sizes)
    stratum, weight = _weights([b.leaves[name].strata[rows] for name, _, rows in parts], share)
    baseline = np.concatenate([a.leaves[name].scores[rows] for name, rows, _ in parts])
    candidate = np.concatenate([b.leaves[name].scores[rows] for name, _, rows in parts])
    clusters, alone = _clusters([b.leaves[name].clusters[rows] for name, _, rows in parts])
    whole = bool(np.isin(baseline, (0.0, 1.0)).all() and np.isin(candidate, (0.0, 1.0)).all())
    binary = whole and alone and bool(np.ptp(weight) < 1e-15)
    return Aligned(
        tuple(name for name, _, _ in parts),
        leaf,
        np.concatenate([a.leaves[name].doc_ids[rows] for name, rows, _ in parts]),
        baseline,
        candidate,
        Pairs(candidate - baseline, weight, stratum, clusters, binary),
        only[0],
        only[1],
        np.concatenate(
            [_flagged(a.leaves[name], rows_a) | _flagged(b.leaves[name], rows_b) for name, rows_a, rows_b in parts]
        ),
        _tokens([(a.leaves[name].tokens, b.leaves[name].tokens, one, other) for name, one, other in parts]),
    )


Rows = npt.NDArray[np.intp]


def _tokens(parts: Sequence[tuple[Floats | None, Floats | None, Rows, Rows]]) -> tuple[float, float] | None:
    """Return the mean tokens per answer of both runs over the shared documents of all leaf tasks."""
    sums, documents = np.zeros(2), 0
    for one, other, rows_a, rows_b in parts:
        if one is None or other is None:
            return None
        sums += [one[rows_a].sum(), other[rows_b].sum()]
        documents += len(rows_a)
    return float(sums[0] / documents), float(sums[1] / documents)


def _shares(a: TaskScores, b: TaskScores, names: Sequence[str], sizes: npt.NDArray[np.int64]) -> Floats:
    """Return the weights of leaf tasks; `sizes` are their shared documents.

    A plan may draw the leaves of a micro average unequally: their weights are then those of the whole leaves, so that a
    document stands for as many as its leaf has for each that was asked (Horvitz & Thompson 1952, JASA 47, 663).
    """
    if weighting(a) == "macro":
        return np.full(len(names), 1 / len(names))
    if weighting(a) == NESTED:
        return np.array(nested_shares(names))
    if a.planned or b.planned:
        sizes = np.array([max(a.leaves[name].population, b.leaves[name].population) for name in names])
    return np.asarray(sizes / sizes.sum(), dtype=float)


def _flagged(leaf: LeafScores, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Return which rows of a run are flagged, by the run's ids of documents."""
    return np.isin(leaf.doc_ids[rows], list(leaf.flagged)) if leaf.flagged else np.zeros(len(rows), dtype=bool)


def _weights(strata: Sequence[npt.NDArray[np.int64]], share: Floats) -> tuple[npt.NDArray[np.int64], Floats]:
    """Number the strata over all leaf tasks and weigh the documents; the strata of a leaf task share its weight."""
    numbers, weights, start = [], [], 0
    for leaf_strata, leaf_share in zip(strata, share, strict=True):
        present, inverse, size = np.unique(leaf_strata, return_inverse=True, return_counts=True)
        numbers.append(inverse + start)
        weights.append((leaf_share / (len(present) * size))[inverse])
        start += len(present)
    return np.concatenate(numbers), np.concatenate(weights)


def shared_rows(a: LeafScores, b: LeafScores) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the rows of both runs with a shared doc_id, in the same order."""
    if len(a.doc_ids) == len(b.doc_ids) and np.array_equal(a.doc_ids, b.doc_ids):
        same = np.arange(len(a.doc_ids))
        return same, same
    one, other = (x.doc_ids if a.doc_ids.dtype.kind == b.doc_ids.dtype.kind else x.doc_ids.astype(str) for x in (a, b))
    _, rows_a, rows_b = np.intersect1d(one, other, assume_unique=True, return_indices=True)
    return rows_a, rows_b


def _clusters(parts: Sequence[npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int64], bool]:
    """Number the clusters over all leaf tasks, and return whether every document is its own cluster."""
    shifted, start = [], 0
    for numbers in parts:
        shifted.append(numbers + start)
        start += int(numbers.max()) + 1
    joined = np.concatenate(shifted)
    return joined, len(np.unique(joined)) == len(joined)
