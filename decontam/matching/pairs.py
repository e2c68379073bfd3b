"""Pairs on disk: a parquet file for each block, joined into one file; and the worst pairs with their texts."""

from __future__ import annotations

import heapq
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from decontam.matching.index import Index
from decontam.matching.verify import KINDS, Matches, Side, Spans
from decontam.training_data.batches import Batch

_SPANS = pa.list_(pa.list_(pa.int64()))
_NAMES = pa.list_(pa.string())
_BODY = [
    ("kind", pa.string()), ("coverage", pa.float64()), ("eval_spans", _SPANS), ("train_spans", _SPANS),
    ("eval_parts", _NAMES), ("train_parts", _NAMES), ("own_coverage", pa.float64()), ("paper", pa.bool_()),
]  # fmt: skip
BLOCK_SCHEMA = pa.schema([("train_row", pa.int64()), ("item", pa.int64()), *_BODY])
_FLUSH = 20_000


class PairFile:
    """An atomic writer of the pairs of one block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_suffix(f".{os.getpid()}.tmp.parquet")
        self._writer = pq.ParquetWriter(self._partial, BLOCK_SCHEMA)
        self._waiting: list[pa.RecordBatch] = []

    def add(self, first: int, matches: Matches) -> None:
        """Append the pairs of a batch whose first row is row `first` of the block."""
        if len(matches):
            self._waiting.append(_record(first, matches))
        if sum(record.num_rows for record in self._waiting) >= _FLUSH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.Table.from_batches(self._waiting, BLOCK_SCHEMA), _FLUSH)
            self._waiting = []

    def __enter__(self) -> PairFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._flush()
        self._writer.close()
        if kind is None:
            self._partial.replace(self.path)
        else:
            self._partial.unlink(missing_ok=True)


def _record(first: int, matches: Matches) -> pa.RecordBatch:
    kinds = pa.DictionaryArray.from_arrays(matches.kinds, list(KINDS))
    arrays = [
        pa.array(matches.rows + first), pa.array(matches.items), kinds.cast(pa.string()), pa.array(matches.coverage),
        _spans(matches.eval), _spans(matches.train), _names(matches.eval), _names(matches.train),
        pa.array(matches.own_coverage), pa.array(matches.paper),
    ]  # fmt: skip
    return pa.RecordBatch.from_arrays(arrays, schema=BLOCK_SCHEMA)


def _offsets(ends: NDArray[np.int64]) -> pa.Array:
    return pa.array(np.concatenate([np.zeros(1, np.int32), ends.astype(np.int32)]))


def _spans(side: Spans) -> pa.Array:
    both = np.arange(0, 2 * len(side.places) + 1, 2, dtype=np.int32)
    places = pa.ListArray.from_arrays(pa.array(both), pa.array(side.places.ravel()))
    return pa.ListArray.from_arrays(_offsets(side.ends), places)


def _names(side: Spans) -> pa.Array:
    parts, which = np.unique(side.parts, return_inverse=True)
    names = pa.array([side.name(part) for part in parts.tolist()], pa.string())
    return pa.ListArray.from_arrays(_offsets(side.ends), names.take(pa.array(which)))


def read_blocks(parts: Iterable[tuple[int, Path]]) -> Iterator[pa.Table]:
    """Read the pairs of a set's blocks, listed as (rows before the block, file), with rows counted over the set."""
    import pyarrow.compute as pc

    for before, path in parts:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(_FLUSH):
                table = pa.Table.from_batches([batch], BLOCK_SCHEMA)
                yield table.set_column(0, "train_row", pc.add(table["train_row"], before))


def named(table: pa.Table, train: str, index: Index, whole: bool) -> pa.Table:
    """Convert a table of pairs to the report's columns: train, train_row, task, doc_id, …

    `whole`: doc_ids are integers.
    """
    items, which = np.unique(np.asarray(table["item"]), return_inverse=True)
    doc_ids = [index.doc_ids[item] for item in items.tolist()]
    tasks = pa.array([index.task_of(item) for item in items.tolist()], pa.string())
    docs = pa.array(doc_ids, pa.int64()) if whole else pa.array(map(str, doc_ids), pa.string())
    columns = {
        "train": pa.array([train] * len(which), pa.string()), "train_row": table["train_row"],
        "task": tasks.take(pa.array(which)), "doc_id": docs.take(pa.array(which)),
    }  # fmt: skip
    return pa.table({**columns, **{name: table[name] for name, _ in _BODY}})


def schema(whole: bool) -> pa.Schema:
    """Return the schema of pairs.parquet; `whole`: doc_ids are integers."""
    doc_id = pa.int64() if whole else pa.string()
    head = [("train", pa.string()), ("train_row", pa.int64()), ("task", pa.string()), ("doc_id", doc_id)]
    return pa.schema([*head, *_BODY])


class Worst:
    """The pairs of each evaluation with the highest coverage, with the stretches of text around the matches."""

    def __init__(self, index: Index, keep: int, excerpt: int) -> None:
        self._index, self._keep, self._excerpt = index, keep, excerpt
        self._firsts = np.array([e["first"] for e in index.evaluations], dtype=np.int64)
        self._heaps: dict[str, list[tuple[tuple[int, float, int, int], int, dict[str, Any]]]] = {}

    def add(self, first: int, batch: Batch, matches: Matches) -> None:
        """Consider the pairs of a batch whose first row is row `first` of the block."""
        text_row, parts = -1, [("", "")]
        for k in self._worst_of(matches):
            row, pair = int(matches.rows[k]), matches.pair(k)
            name = str(self._index.evaluations[self._evaluations(matches.items[k : k + 1])[0]]["name"])
            rank = (-int(matches.kinds[k]), pair.coverage, -(first + row), -pair.item)
            heap = self._heaps.setdefault(name, [])
            if len(heap) == self._keep and rank < heap[0][0]:
                continue
            if row != text_row:  # a row may be long and appear in the worst pairs of many evaluations
                text_row, parts = row, batch.parts(row)
            entry = {
                "evaluation": name, "train_row": first + row, "item": pair.item, "kind": pair.kind,
                "coverage": pair.coverage, "own_coverage": float(matches.own_coverage[k]),
                "eval": excerpt(self._index.parts_of(pair.item), pair.eval, self._excerpt),
                "train": excerpt(parts, pair.train, self._excerpt),
            }  # fmt: skip
            heapq.heappush(heap, (rank, pair.item, entry))
            if len(heap) > self._keep:
                heapq.heappop(heap)

    def _evaluations(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the numbers of the evaluations that items belong to. Every evaluation has items."""
        return np.searchsorted(self._firsts, items, side="right") - 1

    def _worst_of(self, matches: Matches) -> list[int]:
        """Select the pairs of a batch that may be among the worst: for each evaluation, as many as the list holds."""
        evaluations = self._evaluations(matches.items)
        order = np.lexsort((matches.items, matches.rows, -matches.coverage, matches.kinds, evaluations))
        ordered = evaluations[order]
        place = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        return [int(k) for k in order[place < self._keep]]

    def listed(self) -> list[dict[str, Any]]:
        """List the worst pairs of all evaluations."""
        return [
            entry for heap in self._heaps.values() for _, _, entry in sorted(heap, reverse=True, key=lambda h: h[0])
        ]


def excerpt(parts: Sequence[tuple[str, str]], side: Side, around: int) -> list[dict[str, Any]]:
    """Cut the matching parts into pieces [whether it matches, text]; an ellipsis replaces text far from a match."""
    excerpts = []
    for name in dict.fromkeys(side.parts):
        text = next(text for part, text in parts if part == name)
        spans = [span for part, span in zip(side.parts, side.spans, strict=True) if part == name]
        excerpts.append({"part": name, "pieces": _pieces(text, spans, around)})
    return excerpts


def _pieces(text: str, spans: Sequence[tuple[int, int]], around: int) -> list[tuple[bool, str]]:
    pieces: list[tuple[bool, str]] = []
    at = 0
    for start, end in spans:
        pieces += [
            (False, _shortened(text, at, start, around, at > 0)),
            (True, _shortened(text, start, end, 2 * around, True)),
        ]
        at = end
    pieces.append((False, text[at : at + around] + (" …" if len(text) - at > around else "")))
    return [(marked, piece) for marked, piece in pieces if piece]


def _shortened(text: str, start: int, end: int, around: int, between: bool) -> str:
    """Shorten the text before a match to its end and, after an earlier match, its beginning."""
    if end - start <= around * (2 if between else 1):
        return text[start:end]
    return (text[start : start + around] if between else "") + " … " + text[end - around : end]
