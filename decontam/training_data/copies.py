"""Copies of training files without some of their rows and otherwise unchanged; text is copied byte for byte."""

from __future__ import annotations

import gzip
import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.training_rows.files import Block
from olmes_suite.training_rows.text import BOM, csv_records, opened, shape

if TYPE_CHECKING:
    import pyarrow as pa


def write(block: Block, target: Path, drop: set[int]) -> None:
    """Copy a file without some of its rows; with no rows to drop, the copy has the same bytes."""
    if not drop:
        shutil.copyfile(block.path, target)
        return
    whole = Block(block.path, block.kind)
    writers: dict[str, Callable[[Block, Path, set[int]], None]] = {
        "parquet": _parquet, "arrow": _arrow, "lines": _lines, "csv": _csv, "array": _array, "object": _object,
    }  # fmt: skip
    writers[shape(block.path) if block.kind == "jsonl" else block.kind](whole, target, drop)


def _without(table: pa.Table, before: int, drop: set[int]) -> pa.Table:
    """Drop rows from a table whose first row is number `before`."""
    import pyarrow as pa

    rows = [row for row in range(table.num_rows) if row + before not in drop]
    try:
        return table.take(pa.array(rows, pa.int64()))
    except pa.ArrowNotImplementedError:  # Arrow cannot select rows of string views, but it can slice every table
        borders = [-1, *(row for row in range(table.num_rows) if row + before in drop), table.num_rows]
        runs = [table.slice(start + 1, end - start - 1) for start, end in itertools.pairwise(borders)]
        return pa.concat_tables(runs).combine_chunks()


def _parquet(block: Block, target: Path, drop: set[int]) -> None:
    """Copy each row group, with the file's schema, metadata and compression."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(block.path) as file:
        about = file.metadata
        schema = file.schema_arrow
        codecs = {}
        if about.num_row_groups:
            group = about.row_group(0)
            codecs = {group.column(i).path_in_schema: group.column(i).compression for i in range(about.num_columns)}
        known = {path: codec if codec != "UNCOMPRESSED" else "NONE" for path, codec in codecs.items()}
        with pq.ParquetWriter(target, schema, compression=known or "snappy", version=about.format_version) as writer:
            # The writer copies the schema's metadata only; other keys of the file would be lost.
            schema_keys = {b"ARROW:schema", *(schema.metadata or {})}
            writer.add_key_value_metadata({k: v for k, v in (about.metadata or {}).items() if k not in schema_keys})
            before = 0
            for number in range(about.num_row_groups):
                table = file.read_row_group(number)
                remaining = _without(table, before, drop)
                writer.write_table(remaining.cast(schema), row_group_size=max(1, remaining.num_rows))
                before += table.num_rows


def _arrow(block: Block, target: Path, drop: set[int]) -> None:
    """Copy each batch, with the file's schema and metadata, in the file's format."""
    import pyarrow as pa

    with pa.memory_map(str(block.path)) as handle:
        streamed = handle.read(6) != b"ARROW1"
        handle.seek(0)
        reader = pa.ipc.open_stream(handle) if streamed else pa.ipc.open_file(handle)
        batches = reader if streamed else (reader.get_batch(i) for i in range(reader.num_record_batches))
        make = pa.ipc.new_stream if streamed else pa.ipc.new_file
        with pa.OSFile(str(target), "wb") as sink, make(sink, reader.schema) as writer:
            before = 0
            for batch in batches:
                remaining = _without(pa.Table.from_batches([batch]), before, drop).combine_chunks()
                for part in remaining.to_batches() or [batch.slice(0, 0)]:
                    writer.write_batch(part)
                before += batch.num_rows


def _array(block: Block, target: Path, drop: set[int]) -> None:
    """Copy the text of a list without the dropped elements, each cut with the space around it and one comma."""
    with opened(block) as handle:
        text = handle.read().decode("utf-8")
    decoder, space = json.JSONDecoder(), json.decoder.WHITESPACE  # type: ignore[attr-defined]
    begin = start = text.index("[") + 1
    elements: list[str] = []
    row, mark, tail = 0, ",", begin
    while mark == ",":
        _, end = decoder.raw_decode(text, space.match(text, start).end())
        after = space.match(text, end).end()
        if row not in drop:
            elements.append(text[start:after])
        tail = end if row in drop else after
        row, mark, start = row + 1, text[after], after + 1
    with _packed(block, target) as sink:
        sink.write((text[:begin] + ",".join(elements) + text[tail:]).encode("utf-8"))


def _object(block: Block, target: Path, drop: set[int]) -> None:
    """Write an empty list for a file whose only row is dropped."""
    with _packed(block, target) as sink:
        sink.write(b"[]\n")


def _lines(block: Block, target: Path, drop: set[int]) -> None:
    with opened(block) as handle, _packed(block, target) as sink:
        row = 0
        for number, line in enumerate(handle):
            if not (line.removeprefix(BOM) if number == 0 else line).strip():
                sink.write(line)
                continue
            if row not in drop:
                sink.write(line)
            row += 1


def _csv(block: Block, target: Path, drop: set[int]) -> None:
    with opened(block) as handle, _packed(block, target) as sink:
        row = -1  # the header
        for raw, cells in csv_records(block, handle):
            if not cells or row not in drop:
                sink.write(raw)
            row += bool(cells)


@contextmanager
def _packed(block: Block, target: Path) -> Iterator[Any]:
    """Open a file for writing, compressed like the block's file."""
    import pyarrow as pa

    with target.open("wb") as raw:
        if block.packing == "gz":
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as sink:
                yield sink
        elif block.packing == "zst":
            with pa.CompressedOutputStream(pa.PythonFile(raw, "w"), "zstd") as sink:
                yield sink
        else:
            yield raw
