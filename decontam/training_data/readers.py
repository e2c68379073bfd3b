"""Reading a block: batches of text, and one line for every row that cannot be read."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from decontam.training_data import forms
from decontam.training_data.batches import Batch
from decontam.training_data.columns import batch_of, check_types, text_columns
from decontam.training_data.forms import Form, RowError, detect
from decontam.training_data.sources import Block
from olmes_suite.errors import DataError, first_line

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
BATCH_BYTES = 8 << 20
LONGEST_LINE = 256 << 20
BOM = b"\xef\xbb\xbf"
"""Byte order mark, which some editors put before UTF-8 text; it is not part of the text."""
TOO_LONG = b"\xff"
"""Replaces a line that would need too much memory. It is not UTF-8, so no line has this value."""
_LONGEST_CELL = 1 << 30
_UNPACKED = 1 << 14
"""Bytes that are decompressed at once; where a file ends too early, the last ones are lost."""


@dataclass(slots=True)
class Reader:
    """A reader of blocks, which collects the number of rows, the problems and the forms."""

    roles: tuple[str, ...] = ("user",)
    fields: tuple[str, ...] = ()
    """Columns to compare instead of a detected form."""
    rows: int = 0
    problems: list[tuple[int | None, str]] = field(default_factory=list)
    """(row of the block, what is wrong); the row is None where the rest of the block cannot be read."""
    forms: list[str] = field(default_factory=list)
    """The detected forms, in order."""
    _reported: set[str] = field(default_factory=set)

    def read(self, block: Block) -> Iterator[Batch]:
        """Read the batches of a block. Errors in the file or a row are added to `problems`, and reading continues."""
        try:
            yield from {"parquet": self._parquet, "arrow": self._arrow, "jsonl": self._lines, "csv": self._csv}[
                block.kind
            ](block)
        except DataError as error:
            self.problems.append((None, str(error)))
        except (OSError, EOFError, zlib.error) as error:
            self.problems.append((None, f"cannot be read any further: {first_line(error)}"))

    def _parquet(self, block: Block) -> Iterator[Batch]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(block.path, pre_buffer=False, buffer_size=1 << 20) as file:
                form = self._form_of(file.schema_arrow)
                columns = [column for column, _ in form.columns]
                groups = list(range(block.first, file.num_row_groups if block.end is None else block.end))
                rows = sum(file.metadata.row_group(g).num_rows for g in groups)
                size = sum(file.metadata.row_group(g).total_byte_size for g in groups)
                step = max(1, min(16384, BATCH_BYTES * max(rows, 1) // max(size, 1)))
                for batch in file.iter_batches(step, groups, columns=columns, use_threads=False):
                    yield self._count(batch, form)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot be read as parquet: {first_line(error)}") from error

    def _arrow(self, block: Block) -> Iterator[Batch]:
        import pyarrow as pa

        try:
            with pa.memory_map(str(block.path)) as handle, _arrow_reader(handle) as stream:
                form = self._form_of(stream.schema)
                for batch in stream:
                    for start in range(0, batch.num_rows, 4096):
                        yield self._count(batch.slice(start, 4096), form)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"cannot be read as an arrow file: {first_line(error)}") from error

    def _form_of(self, schema: pa.Schema) -> Form:
        form = detect(schema.names, self.fields, text_columns(schema))
        if wrong := check_types(schema, form):
            raise DataError(wrong)
        self._show(form)
        return form

    def _count(self, record: pa.RecordBatch, form: Form) -> Batch:
        problems: list[tuple[int, str]] = []
        batch = batch_of(record, form, self.roles, problems)
        for row, why in problems:
            self._problem(self.rows + row, why)
        self.rows += batch.rows
        return batch

    def _problem(self, row: int, why: str) -> None:
        """Add a row's problem; an unknown role is reported at its first row only."""
        if isinstance(why, forms.StrangeRole):
            if why in self._reported:
                return
            self._reported.add(why)
        self.problems.append((row, why))

    def _lines(self, block: Block) -> Iterator[Batch]:
        with opened(block) as handle:
            for lines in _grouped(lines_of(block, handle), len):
                yield self._of_rows([self._object(line) for line in lines])

    def _object(self, line: bytes) -> dict[str, Any] | str:
        """Parse a line to a row, or to an error message."""
        if line is TOO_LONG:
            return f"a line of more than {LONGEST_LINE >> 20} MiB"
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            return f"not UTF-8 (byte {error.start} of the line)"
        except (ValueError, RecursionError) as error:
            return f"not JSON ({error})"
        return row if isinstance(row, dict) else "not a JSON object"

    def _csv(self, block: Block) -> Iterator[Batch]:
        with opened(block) as handle:
            records = ((raw, cells) for raw, cells in csv_records(block, handle) if cells)
            header = next(records, None)
            if header is None:
                return
            if isinstance(header[1], str):
                raise DataError(f"header: {header[1]}")
            names = header[1]
            for group in _grouped(records, lambda record: len(record[0])):
                yield self._of_rows([_as_row(names, cells) for _, cells in group])

    def _of_rows(self, rows: Sequence[dict[str, Any] | str]) -> Batch:
        """Build a batch of rows, each of which may have a different form or be unreadable."""
        texts: list[bytes] = []
        owners: list[int] = []
        names: list[str] = []
        shape: Any = None
        form: Form | None = None
        for i, row in enumerate(rows):
            notes: list[str] = []
            try:
                if isinstance(row, str):
                    raise RowError(row)
                if form is None or (row.keys(), _strings(row, form)) != shape:
                    form = None  # where no form is detected, the preceding row's must not be used
                    form = self._detected(row)
                    shape = row.keys(), _strings(row, form)
                parts = forms.parts(row, form, self.roles, notes.append)
            except (DataError, RowError) as error:
                self._problem(self.rows + i, str(error))
                continue
            for why in notes:
                self._problem(self.rows + i, why)
            for name, text in parts:
                texts.append(text.encode("utf-8", "replace"))
                names.append(name)
                owners.append(i)
        self.rows += len(rows)
        return Batch.of_texts(texts, owners, len(rows), names)

    def _detected(self, row: dict[str, Any]) -> Form:
        form = detect(row.keys(), self.fields, [name for name, value in row.items() if isinstance(value, str)])
        self._show(form)
        return form

    def _show(self, form: Form) -> None:
        if str(form) not in self.forms:
            self.forms.append(str(form))


@contextmanager
def opened(block: Block) -> Iterator[BinaryIO]:
    """Open a text file for reading its decompressed bytes."""
    import pyarrow as pa

    with block.path.open("rb") as raw:
        if block.packing == "gz":
            with gzip.open(raw) as handle:
                yield handle  # type: ignore[misc]
        elif block.packing == "zst":
            with pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd") as stream:
                yield io.BufferedReader(_Raw(stream), 1 << 20)
        else:
            yield raw


class _Raw(io.RawIOBase):
    """A Python file object around an Arrow stream."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer and return the number of bytes read."""
        read = self._stream.read(min(len(buffer), _UNPACKED))
        buffer[: len(read)] = read
        return len(read)


def lines_of(block: Block, handle: BinaryIO) -> Iterator[bytes]:
    """Read the lines that begin in the block's range of bytes, without empty ones.

    For a `.json` file that holds one list, the lines are its elements. Raises DataError where it is not JSON.
    """
    if block.end is None and block.path.suffix == ".json":
        yield from _elements(handle)
        return
    at = block.first
    if at:
        handle.seek(at - 1)
        at += len(handle.readline()) - 1
    while block.end is None or at < block.end:
        line = handle.readline(LONGEST_LINE)
        first, at = at == 0, at + len(line)
        if not line:
            break
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while len(rest := handle.readline(BATCH_BYTES)) and not rest.endswith(b"\n"):
                at += len(rest)
            at += len(rest)
            yield TOO_LONG
        elif (content := line.removeprefix(BOM) if first else line).strip():
            yield content


def _elements(handle: BinaryIO) -> Iterator[bytes]:
    try:
        rows = json.loads(handle.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})") from error
    yield from (json.dumps(row).encode() for row in rows)


def csv_records(block: Block, handle: BinaryIO) -> Iterator[tuple[bytes, list[str] | str]]:
    """Read (bytes of the record, its cells or an error message), the header first; a blank line has no cells."""
    csv.field_size_limit(_LONGEST_CELL)
    stem = block.path.with_suffix("") if block.packing else block.path
    raw_lines: list[bytes] = []
    broken: list[int] = []

    def lines() -> Iterator[str]:
        for raw in handle:
            raw_lines.append(raw)
            try:
                yield raw.decode("utf-8-sig" if not broken and len(raw_lines) == 1 else "utf-8")
            except UnicodeDecodeError as error:
                broken.append(error.start)
                yield raw.decode("utf-8", "replace")

    reader = csv.reader(lines(), delimiter="\t" if stem.suffix.lower() == ".tsv" else ",")
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise DataError(f"not CSV ({error})") from error
        if cells is None:
            return
        wrong = f"not UTF-8 (byte {broken[0]} of a line)" if broken else ""
        raw = b"".join(raw_lines)
        raw_lines.clear()
        broken.clear()
        yield raw, wrong or cells


def _strings(row: dict[str, Any], form: Form) -> list[str]:
    """List the columns of text that a guessed form depends on; none where the form follows from column names."""
    if not form.guessed:
        return []
    return [name for name, value in row.items() if isinstance(value, str)] or [form.columns[0][0]]


def _as_row(names: list[str], cells: list[str] | str) -> dict[str, Any] | str:
    if isinstance(cells, str):
        return cells
    if len(cells) != len(names):
        return f"{len(cells)} cells, the header has {len(names)}"
    return dict(zip(names, cells, strict=True))


def _arrow_reader(handle: Any) -> Any:
    """Open an Arrow file: `datasets` writes IPC streams, other programs write IPC files."""
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(handle)
    except pa.ArrowInvalid:
        handle.seek(0)
        file = pa.ipc.open_file(handle)
        batches = (file.get_batch(i) for i in range(file.num_record_batches))
        return pa.RecordBatchReader.from_batches(file.schema, batches)


def _grouped(records: Iterator[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Group records to about BATCH_BYTES. The records before an error are yielded before it is raised."""
    group: list[T] = []
    total = 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            break
        except Exception:
            if group:
                yield group
            raise
        group.append(record)
        total += size(record)
        if total >= BATCH_BYTES:
            yield group
            group, total = [], 0
    if group:
        yield group
