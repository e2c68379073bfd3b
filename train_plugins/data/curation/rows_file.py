"""Writing the rows of a data set: data.parquet or data.jsonl, in constant memory, equal rows giving equal bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from olmes_suite.files import storage
from train_plugins.data.curation.recipe import Format
from train_plugins.data.surrogates import in_unicode

if TYPE_CHECKING:
    import pyarrow as pa

GROUP_ROWS = 4096
"""Rows of a row group of data.parquet."""


class RowsFile(Protocol):
    """A file that takes rows."""

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one row."""


def file_name(form: Format, stem: str = "data") -> str:
    """Return the name of the file of rows."""
    return f"{stem}.{form}"


@contextmanager
def rows_file(folder: Path, form: Format, schema: pa.Schema | None = None, stem: str = "data") -> Iterator[RowsFile]:
    """Open the file of rows for writing, from its start. A parquet file needs the `schema` of its rows."""
    path = folder / file_name(form, stem)
    with storage(path):
        if form == "jsonl":
            with path.open("w", encoding="utf-8", errors="backslashreplace") as handle:
                yield _Lines(handle)
            return
        import pyarrow.parquet as pq

        assert schema is not None, "parquet needs a schema"
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            table = _Table(writer, schema)
            yield table
            table.flush()


class _Lines:
    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def add(self, row: Mapping[str, Any]) -> None:
        self._handle.write(json.dumps(row, ensure_ascii=False) + "\n")


class _Table:
    def __init__(self, writer: Any, schema: pa.Schema) -> None:
        self._writer, self._schema = writer, schema
        self._rows: list[Mapping[str, Any]] = []

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) >= GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        try:
            table = pa.Table.from_pylist(self._rows, schema=self._schema)
        except UnicodeEncodeError:
            table = pa.Table.from_pylist([in_unicode(row) for row in self._rows], schema=self._schema)
        self._writer.write_table(table)
        self._rows.clear()
