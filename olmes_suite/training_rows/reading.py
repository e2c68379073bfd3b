"""All rows of a file as Python objects, in order, with an error message in place of a row that cannot be read."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import DataError, first_line
from olmes_suite.training_rows.files import Block, kind_of
from olmes_suite.training_rows.text import (
    arrow_reader,
    csv_records,
    numbered_lines,
    opened,
    row_of,
    row_of_cells,
)

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A row that is no row: broken JSON, wrong bytes, missing cells."""

    why: str


Row = dict[str, Any]


def rows_of(file: Path) -> Iterator[Row | Unreadable]:
    """Read the rows of a file. Raises DataError, naming the file, where the rest of it cannot be read."""
    return rows_of_block(Block(file, str(kind_of(file))))


def rows_of_block(block: Block) -> Iterator[Row | Unreadable]:
    """Read the rows of a part of a file. Raises DataError, naming the file, where the rest of it cannot be read."""
    import pyarrow as pa

    file = block.path
    read = {"parquet": _parquet, "arrow": _arrow, "jsonl": _lines, "csv": _csv}.get(block.kind)
    if read is None:
        raise DataError(f"{file}: unknown kind of file")
    try:
        yield from read(block)
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read ({first_line(error)})") from None


def _lines(block: Block) -> Iterator[Row | Unreadable]:
    with opened(block) as handle:
        for number, line in numbered_lines(block, handle):
            row = row_of(line)
            place = "" if number is None else f"line {number}: "
            yield Unreadable(place + row) if isinstance(row, str) else row


def _csv(block: Block) -> Iterator[Row | Unreadable]:
    with opened(block) as handle:
        records = (cells for _, cells in csv_records(block, handle) if cells)
        header = next(records, None)
        if header is None:
            return
        if isinstance(header, str):
            raise DataError(f"header: {header}")
        for cells in records:
            row = row_of_cells(header, cells)
            yield Unreadable(row) if isinstance(row, str) else row


def _parquet(block: Block) -> Iterator[Row | Unreadable]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(block.path) as file:
        _check_names(file.schema_arrow)
        groups = range(block.first, file.num_row_groups if block.end is None else block.end)
        for batch in file.iter_batches(4096, row_groups=list(groups)):
            yield from _python(batch)


def _arrow(block: Block) -> Iterator[Row | Unreadable]:
    import pyarrow as pa

    with pa.memory_map(str(block.path)) as handle, arrow_reader(handle) as stream:
        _check_names(stream.schema)
        for batch in stream:
            yield from _python(batch)


def _check_names(schema: pa.Schema) -> None:
    twice = [name for name in schema.names if schema.names.count(name) > 1]
    if twice:
        raise DataError(f"column {twice[0]!r} appears more than once")


def _python(table: pa.RecordBatch) -> Iterator[Row | Unreadable]:
    """Convert the rows to Python objects; a row whose bytes are not text becomes an error message."""
    try:
        yield from table.to_pylist()
    except UnicodeDecodeError:
        if table.num_rows == 1:
            yield Unreadable("not UTF-8")
            return
        half = table.num_rows // 2
        yield from _python(table.slice(0, half))
        yield from _python(table.slice(half))
