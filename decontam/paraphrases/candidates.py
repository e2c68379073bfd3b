"""Opt-in search for training rows with nearly the meaning of an evaluation item, for a person to judge.

Embeddings do not distinguish a paraphrase from another text on the same topic (Tülu 3, § 3.2, tried them and stayed
with n-grams). So a candidate is not a hit: it is not counted, removed or flagged, and does not change the exit status.
Rows that the n-gram rule matches with an item are left out, because they need no judgement.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
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
from olmes_suite.errors import UsageError
from olmes_suite.files import cache_folder, storage, write_json
from olmes_suite.records import canonical_json, sha256
from olmes_suite.training_rows.files import Block

SHOWN = 5
"""Candidates of each evaluation in the report."""
_CHUNK = 256
"""Windows of training text that are embedded together."""
_EXCERPT = 2000
"""Characters of a window or an item in the report; a window of 256 tokens is shown whole."""
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Search:
    """The settings of a search."""

    model: str
    """Folder or Hub id of a sentence-transformers model."""
    top: int = 3
    """Candidates of each item."""
    least: float = 0.75
    """The lowest cosine of a candidate."""


def search(
    sets: Sequence[SetParts], index: Index, settings: Settings, request: Search, report: Report, *,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Report:  # fmt: skip
    """Search the training text of finished scans; write candidates.parquet and the report's section.

    Reuses the results of an earlier search for a block. Raises ModelError for an encoder that cannot be loaded.
    """
    encoder = SentenceEncoder(request.model)
    try:
        items = _items(index, encoder)
        parts = report.folder / ".candidates"
        key = sha256(canonical_json([_VERSION, index.key, encoder.fingerprint, request.top, request.least,
                                     settings.roles, settings.fields]))  # fmt: skip
        windows_of = partial(_texts, encoder=encoder, settings=settings)
        total, done = sum(len(one.parts) for one in sets), 0
        files: list[list[tuple[int, Path]]] = []
        with storage(parts):
            parts.mkdir(parents=True, exist_ok=True)
            for one in sets:
                files.append([])
                for (before, pairs), (block, _) in zip(places(one), one.parts, strict=True):
                    path = parts / f"{sha256(block.key + key)[:32]}.parquet"
                    if not path.is_file():
                        _look(block, pairs, path, Nearest(items, request.top, request.least), windows_of)
                    files[-1].append((before, path))
                    done += 1
                    watch(done, total)
    finally:
        encoder.close()
    about = {
        "model": request.model, "fingerprint": encoder.fingerprint, "top": request.top, "least": request.least,
    }  # fmt: skip
    return _write(sets, files, index, about, report)


def _items(index: Index, encoder: SentenceEncoder) -> Items:
    """Embed the items, or load their vectors from the cache of a search with the same texts and encoder."""
    path = cache_folder() / "decontam" / "vectors" / f"{sha256(index.key + encoder.fingerprint)[:32]}.npz"
    try:
        with np.load(path) as stored:
            return Items(stored["vectors"], stored["owners"], index.items)
    except (OSError, ValueError, KeyError):
        pass
    vectors: list[NDArray[np.float32]] = []
    owners: list[int] = []
    for start in range(0, index.items, _CHUNK):
        texts = [_text(index, item) for item in range(start, min(start + _CHUNK, index.items))]
        windows = encoder.windows(texts)
        vectors.append(encoder.vectors(windows))
        owners += [start + window.text for window in windows]
    items = Items(np.concatenate(vectors), np.array(owners, np.int64), index.items)
    temporary = path.with_suffix(f".{os.getpid()}.tmp.npz")
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(temporary, vectors=items.vectors, owners=items.owners)
        temporary.replace(path)
    return items


def _text(index: Index, item: int) -> str:
    return "\n".join(text for _, text in index.parts_of(item))


def _look(
    block: Block, pairs: Path, target: Path, nearest: Nearest, windows_of: Callable[[Block], Iterator[Texts]]
) -> None:
    """Search one block and write its file atomically."""
    known = _known(pairs)
    for texts in windows_of(block):
        nearest.add(texts, known)
    temporary = target.with_suffix(f".{os.getpid()}.tmp.parquet")
    pq.write_table(nearest.table(), temporary)
    temporary.replace(target)


def _known(pairs: Path) -> dict[int, NDArray[np.int64]]:
    """Map each row of a block to the items that it matches by the n-gram rule."""
    table = pq.read_table(pairs, columns=["train_row", "item"])
    out: dict[int, list[int]] = {}
    for row, item in zip(table["train_row"].to_pylist(), table["item"].to_pylist(), strict=True):
        out.setdefault(row, []).append(item)
    return {row: np.array(items, np.int64) for row, items in out.items()}


def _texts(block: Block, encoder: SentenceEncoder, settings: Settings) -> Iterator[Texts]:
    """Embed the windows of a block in groups of about _CHUNK. The scan reports rows that cannot be read."""
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
        excerpts = []
        for window in chunk:
            _, name, text = group[window.text]
            excerpts.append((name, _excerpt(text[window.start : window.end])))
        rows = np.array([group[window.text][0] for window in chunk], np.int64)
        yield Texts(encoder.vectors(chunk), rows, excerpts)


def _excerpt(text: str) -> str:
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + " …"


def _write(
    sets: Sequence[SetParts], files: Sequence[Sequence[tuple[int, Path]]], index: Index, about: dict[str, Any],
    report: Report,
) -> Report:  # fmt: skip
    """Write candidates.parquet, and the section `candidates` (`about` and its sets) of report.json and the page."""
    entries: list[dict[str, Any]] = []
    tables = []
    for one, set_files in zip(sets, files, strict=True):
        near = merged((_moved(pq.read_table(path), before) for before, path in set_files), about["top"])
        named = _named(near, one.train.name, index)
        tables.append(named)
        entries += _entries(near, named, one.train.name, index)
    temporary = report.folder / f".{CANDIDATES}.{os.getpid()}.part"
    with storage(temporary):
        pq.write_table(pa.concat_tables(tables), temporary)
        temporary.replace(report.folder / CANDIDATES)
    extended = Report(report.folder, {**report.data, "candidates": {**about, "sets": entries}})
    write_json(extended.folder / "report.json", extended.data)
    write_page(extended)
    return extended


def _moved(table: pa.Table, before: int) -> pa.Table:
    """Count a block's rows over the set."""
    return table.set_column(1, SCHEMA.field(1), pc.add(table["train_row"], before))


def _named(table: pa.Table, train: str, index: Index) -> pa.Table:
    """Convert a table to the columns of candidates.parquet."""
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
    """Make one entry for each evaluation that has candidates, with the nearest ones."""
    items = np.asarray(near["item"])
    out = []
    for evaluation in index.evaluations:
        places = np.flatnonzero((items >= evaluation["first"]) & (items < evaluation["end"]))
        if len(places):
            rows = named.take(pa.array(places)).sort_by([("score", "descending")])
            out.append({
                "train": train, "task": evaluation["name"], "items": len(np.unique(items[places])),
                "candidates": len(places), "nearest": rows.slice(0, SHOWN).drop_columns(["train"]).to_pylist(),
            })  # fmt: skip
    return out


def checked(model: str, top: int, least: float) -> Search:
    """Check the options of a search. Raises UsageError for an impossible score, ModelError without an encoder."""
    SentenceEncoder(model)
    if not -1 <= least <= 1:
        raise UsageError(f"--embed-min {least}: a cosine lies between -1 and 1")
    return Search(model, top, least)
