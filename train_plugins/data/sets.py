"""Training sets, read from a file, a folder or the Hub, checked row by row and identified by a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, MissingData, one_line
from olmes_suite.hooks import StageData, TrainingSet
from olmes_suite.records import canonical_json
from train_plugins.config.recipe import DataEntry
from train_plugins.data.messages import Row, normalise

READABLE = (".jsonl", ".json", ".parquet")


def load(entries: Sequence[DataEntry], form: Callable[[Row], dict[str, Any]]) -> StageData:
    """Load all sets of a recipe with their rows in the stage's form. Raises DataError or MissingData."""
    return StageData(tuple(_load(entry, form) for entry in entries))


def rows_hash(rows: Iterable[Any]) -> str:
    """Return the SHA-256 of the rows' canonical JSON, in order."""
    total = hashlib.sha256()
    for row in rows:
        total.update(canonical_json(row).encode("utf-8", "surrogatepass") + b"\n")
    return total.hexdigest()


def _load(entry: DataEntry, form: Callable[[Row], dict[str, Any]]) -> TrainingSet:
    from datasets import Dataset

    if entry.path is not None:
        files = _files(Path(entry.path))
        read: Iterator[Row] = (row for file in files for row in _rows(file))
        rows = Dataset.from_list(normalise(islice(read, entry.limit), form, entry.path))
        return TrainingSet(entry.path, _files_hash(files), rows)
    name = str(entry.hub)
    rows = Dataset.from_list(normalise(islice(_hub(name, entry.split), entry.limit), form, name))
    return TrainingSet(name, rows_hash(rows), rows)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix not in READABLE:
            raise DataError(f"{path}: not a file of type {', '.join(READABLE)}")
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such file or folder")
    files = sorted(file for file in path.rglob("*") if file.suffix in READABLE)
    if not files:
        raise DataError(f"{path}: holds no files of type {', '.join(READABLE)}")
    return files


def _files_hash(files: list[Path]) -> str:
    """Return the SHA-256 of a single file, or of several files' hashes, one per line, in the order of their names."""
    hashes = []
    for file in files:
        with file.open("rb") as stream:
            hashes.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def _rows(file: Path) -> Iterator[Row]:
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            with pq.ParquetFile(file) as table:
                for batch in table.iter_batches():
                    yield from batch.to_pylist()
        elif file.suffix == ".jsonl":
            yield from _json_lines(file)
        else:
            yield from _objects(json.loads(file.read_text(encoding="utf-8")), file)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise DataError(f"{file}: cannot be read ({one_line(error)})") from None


def _json_lines(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{file}, line {number}: not JSON ({error})") from None
            yield from _objects([row], file)


def _objects(rows: Any, file: Path) -> list[Row]:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file}: expected JSON objects, one per line, or a list of them")
    return rows


def _hub(name: str, split: str) -> Iterator[Row]:
    from datasets import load_dataset

    try:
        return iter(load_dataset(name, split=split))
    except Exception as error:  # the Hub client raises many types of errors
        raise MissingData(
            f"{name} ({split}): cannot be loaded from the Hub ({one_line(error)}); use a local `path` instead"
        ) from None
