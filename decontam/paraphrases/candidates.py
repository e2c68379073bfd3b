"""Opt-in: training rows that say nearly what an evaluation item says, for a person to judge.

Embeddings do not tell a paraphrase from the same topic (Tülu 3, § 3.2, tried them and kept n-grams). So nothing found
here is a hit: it is not counted, not removed, not flagged, and changes no exit status. Rows that the n-gram rule found
for an item are left out, as they need no judging.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from decontam.matching.index import Index
from decontam.paraphrases.encoder import SentenceEncoder
from decontam.paraphrases.nearest import SCHEMA, Items, Nearest, Texts, merged
from decontam.report import CANDIDATES, Report, places, write_page
from decontam.scan import SetParts, Settings
from decontam.training_data.readers import Reader
from decontam.training_data.sources import Block
from olmes_suite.errors import UsageError
from olmes_suite.files import cache_folder, storage, write_json
from olmes_suite.records import canonical_json, sha256

SHOWN = 5
"""Candidates of each evaluation in the report."""
_CHUNK = 256
"""Windows of training text that are embedded together."""
_EXCERPT = 2000
"""Characters of a window or an item that are shown; a window of 256 tokens is shown whole."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for."""

    model: str
    """Folder or Hub id of a sentence-transformers model."""
    top: int = 3
    """Rows of each item."""
    least: float = 0.75
    """Cosine under which a row is no candidate."""


def search(
    sets: Sequence[SetParts], index: Index, settings: Settings, wanted: Search, found: Report,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Report:  # fmt: skip
    """Look through finished scans' training text; writes candidates.parquet and the report's section.

    What an earlier search left for a block is used. Raises ModelError for an encoder that cannot be loaded.
    """
    encoder = SentenceEncoder(wanted.model)
    try:
        items = _items(index, encoder)
        parts = found.folder / ".candidates"
        key = sha256(canonical_json([_VERSION, index.key, encoder.fingerprint, wanted.top, wanted.least,
                                     settings.roles, settings.fields]))  # fmt: skip
        total, done = sum(len(one.parts) for one in sets), 0
        files: list[list[tuple[int, Path]]] = []
        with storage(parts):
            parts.mkdir(parents=True, exist_ok=True)
            for one in sets:
                files.append([])
                for (before, pairs), (block, _) in zip(places(one), one.parts, strict=True):
                    path = parts / f"{sha256(block.key + key)[:32]}.parquet"
                    if not path.is_file():
                        _look(block, pairs, path, Nearest(items, wanted.top, wanted.least), encoder, settings)
                    files[-1].append((before, path))
                    done += 1
                    watch(done, total)
    finally:
        encoder.close()
    return _write(sets, files, index, wanted, encoder, found)


def _items(index: Index, encoder: SentenceEncoder) -> Items:
    """The items' vectors, from the cache where the texts and the encoder are those of an earlier search."""
    path = cache_folder() / "decontam" / "vectors" / f"{sha256(index.key + encoder.fingerprint)[:32]}.npz"
    try:
        with np.load(path) as kept:
            return Items(kept["vectors"], kept["owners"], index.items)
    except (OSError, ValueError, KeyError):
        pass
    vectors: list[NDArray[np.float32]] = []
    owners: list[int] = []
    for start in range(0, index.items, _CHUNK):
        texts = [_text(index, item) for item in range(start, min(start + _CHUNK, index.items))]
        windows = encoder.windows(texts)
        vectors.append(encoder.vectors(windows))
        owners += [start + window.text for window in windows]
    found = Items(np.concatenate(vectors), np.array(owners, np.int64), index.items)
    partial = path.with_suffix(f".{os.getpid()}.tmp.npz")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(partial, vectors=found.vectors, owners=found.owners)
        partial.replace(path)
    return found


def _text(index: Index, item: int) -> str:
    return "\n".join(text for _, text in index.parts_of(item))


def _look(
    block: Block, pairs: Path, target: Path, nearest: Nearest, encoder: SentenceEncoder, settings: Settings
) -> None:
    """One block; its file appears whole or not at all."""
    known = _known(pairs)
    for texts in _texts(block, encoder, settings):
        nearest.add(texts, known)
    partial = target.with_suffix(f".{os.getpid()}.tmp.parquet")
    pq.write_table(nearest.table(), partial)
    partial.replace(target)


def _known(pairs: Path) -> dict[int, NDArray[np.int64]]:
    """Row of a block to the items that the n-gram rule found in it."""
    table = pq.read_table(pairs, columns=["train_row", "item"])
    out: dict[int, list[int]] = {}
    for row, item in zip(table["train_row"].to_pylist(), table["item"].to_pylist(), strict=True):
        out.setdefault(row, []).append(item)
    return {row: np.array(items, np.int64) for row, items in out.items()}


def _texts(block: Block, encoder: SentenceEncoder, settings: Settings) -> Iterator[Texts]:
    """The windows of a block in groups of about _CHUNK. Rows that cannot be read are the scan's to report."""
    first = 0
    group: list[tuple[int, str, str]] = []
    size = 0
    for batch in Reader(settings.roles, settings.fields).read(block):
        for row in np.unique(batch.owners).tolist():
            try:
                parts = batch.parts(row)
            except UnicodeDecodeError:
                continue
            group += [(first + row, name, text) for name, text in parts if text.strip()]
            size += sum(len(text) for _, text in parts)
            if len(group) >= _CHUNK or size > _CHUNK * 1000:
                yield from _embedded(group, encoder)
                group, size = [], 0
        first += batch.rows
    yield from _embedded(group, encoder)


def _embedded(group: Sequence[tuple[int, str, str]], encoder: SentenceEncoder) -> Iterator[Texts]:
    windows = encoder.windows([text for _, _, text in group])
    for start in range(0, len(windows), _CHUNK):
        chunk = windows[start : start + _CHUNK]
        shown = []
        for window in chunk:
            _, name, text = group[window.text]
            shown.append((name, _excerpt(text[window.start : window.end])))
        rows = np.array([group[window.text][0] for window in chunk], np.int64)
        yield Texts(encoder.vectors(chunk), rows, shown)


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + " …"


def _write(
    sets: Sequence[SetParts], files: Sequence[Sequence[tuple[int, Path]]], index: Index, wanted: Search,
    encoder: SentenceEncoder, found: Report,
) -> Report:  # fmt: skip
    """candidates.parquet, and the section `candidates` of report.json and the page."""
    entries: list[dict[str, Any]] = []
    tables = []
    for one, own in zip(sets, files, strict=True):
        near = merged((_moved(pq.read_table(path), before) for before, path in own), wanted.top)
        named = _named(near, one.train.name, index)
        tables.append(named)
        entries += _entries(near, named, one.train.name, index)
    partial = found.folder / f".{CANDIDATES}.{os.getpid()}.part"
    with storage(partial):
        pq.write_table(pa.concat_tables(tables), partial)
        partial.replace(found.folder / CANDIDATES)
    about = {
        "model": wanted.model, "fingerprint": encoder.fingerprint, "top": wanted.top, "least": wanted.least,
        "sets": entries,
    }  # fmt: skip
    report = Report(found.folder, {**found.data, "candidates": about})
    write_json(found.folder / "report.json", report.data)
    write_page(report)
    return report


def _moved(table: pa.Table, before: int) -> pa.Table:
    """A block's rows counted over the set."""
    return table.set_column(1, SCHEMA.field(1), pc.add(table["train_row"], before))


def _named(table: pa.Table, train: str, index: Index) -> pa.Table:
    """A table as candidates.parquet has it."""
    items = table["item"].to_pylist()
    whole = all(isinstance(doc_id, int) for doc_id in index.doc_ids)
    doc_ids = [index.doc_ids[item] for item in items]
    return pa.table({
        "train": pa.array([train] * len(items), pa.string()),
        "train_row": table["train_row"],
        "task": pa.array([index.task_of(item) for item in items], pa.string()),
        "doc_id": pa.array(doc_ids, pa.int64()) if whole else pa.array(map(str, doc_ids), pa.string()),
        "score": table["score"],
        "eval_text": pa.array([_excerpt(_text(index, item)) for item in items], pa.string()),
        "train_part": table["train_part"],
        "train_text": table["train_text"],
    })  # fmt: skip


def _entries(near: pa.Table, named: pa.Table, train: str, index: Index) -> list[dict[str, Any]]:
    """One entry for each evaluation that has candidates, with the nearest."""
    items = np.asarray(near["item"])
    out = []
    for evaluation in index.evaluations:
        own = np.flatnonzero((items >= evaluation["first"]) & (items < evaluation["end"]))
        if len(own):
            rows = named.take(pa.array(own)).sort_by([("score", "descending")])
            out.append({
                "train": train, "task": evaluation["name"], "items": len(np.unique(items[own])),
                "candidates": len(own), "nearest": rows.slice(0, SHOWN).drop_columns(["train"]).to_pylist(),
            })  # fmt: skip
    return out


def checked(model: str, top: int, least: float) -> Search:
    """The search of a command line. Raises UsageError for a score that no pair can have, ModelError for no encoder."""
    SentenceEncoder(model)
    if not -1 <= least <= 1:
        raise UsageError(f"--embed-min {least}: a cosine lies between -1 and 1")
    return Search(model, top, least)
