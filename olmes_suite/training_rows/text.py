"""Reading files of training rows: decompressed lines, CSV records, Arrow batches, and the rows in them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from olmes_suite.errors import DataError
from olmes_suite.training_rows.files import Block, stem

LONGEST_LINE = 256 << 20
BOM = b"\xef\xbb\xbf"
"""Byte order mark, which some editors put before UTF-8 text; it is not part of the text."""
TOO_LONG = b"\xff"
"""Replaces a line that would need too much memory. It is not UTF-8, so no line has this value."""
_LONGEST_CELL = 1 << 30
_UNPACKED = 1 << 14
"""Bytes that are decompressed at once; where a file ends too early, the last ones are lost."""

_FIRST_LINE = 1 << 20
_REST = 8 << 20


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


def shape(file: Path) -> Literal["lines", "array", "object"]:
    """Return what a text file holds: a row on each line, or, in a `.json` file, one list of rows or one row.

    A file that cannot be read counts as lines; reading them names the fault.
    """
    if stem(file).suffix.lower() != ".json":
        return "lines"
    try:
        with opened(Block(file, "jsonl")) as handle:
            line = next((line for line in _stripped(handle) if line), b"")
            if line.startswith(b"["):
                return "array"
            if not line.startswith(b"{") or _parses(line):
                return "lines"
            rest = handle.read()
    except (OSError, EOFError, zlib.error):
        return "lines"
    return "object" if _parses(line + b"\n" + rest) else "lines"


def _stripped(handle: BinaryIO) -> Iterator[bytes]:
    first = True
    while line := handle.readline(_FIRST_LINE):
        yield (line.removeprefix(BOM) if first else line).strip()
        first = False


def _parses(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def lines_of(block: Block, handle: BinaryIO) -> Iterator[bytes]:
    """Read the lines that begin in the block's range of bytes, without empty ones.

    For a `.json` file that holds one list or one row, the lines are its rows. Raises DataError where it is not JSON.
    """
    return (line for _, line in numbered_lines(block, handle))


def numbered_lines(block: Block, handle: BinaryIO) -> Iterator[tuple[int | None, bytes]]:
    """Read `lines_of` with the number of each line, from 1 in the block; None for rows that are not lines."""
    if block.end is None and shape(block.path) != "lines":
        yield from ((None, row) for row in _elements(handle))
        return
    at, number = block.first, 0
    if at:
        handle.seek(at - 1)
        at += len(handle.readline()) - 1
    while block.end is None or at < block.end:
        line = handle.readline(LONGEST_LINE)
        first, at, number = at == 0, at + len(line), number + 1
        if not line:
            break
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while len(rest := handle.readline(_REST)) and not rest.endswith(b"\n"):
                at += len(rest)
            at += len(rest)
            yield number, TOO_LONG
        elif (content := line.removeprefix(BOM) if first else line).strip():
            yield number, content


def _elements(handle: BinaryIO) -> Iterator[bytes]:
    try:
        rows = json.loads(handle.read().decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"not JSON ({error})") from error
    yield from (json.dumps(row).encode() for row in (rows if isinstance(rows, list) else [rows]))


def row_of(line: bytes) -> dict[str, Any] | str:
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


def row_of_cells(names: list[str], cells: list[str] | str) -> dict[str, Any] | str:
    """Return the row of a CSV record, or an error message."""
    if isinstance(cells, str):
        return cells
    if len(cells) != len(names):
        return f"{len(cells)} cells, the header has {len(names)}"
    return dict(zip(names, cells, strict=True))


def arrow_reader(handle: Any) -> Any:
    """Open an Arrow file: `datasets` writes IPC streams, other programs write IPC files."""
    import pyarrow as pa

    try:
        return pa.ipc.open_stream(handle)
    except pa.ArrowInvalid:
        handle.seek(0)
        file = pa.ipc.open_file(handle)
        batches = (file.get_batch(i) for i in range(file.num_record_batches))
        return pa.RecordBatchReader.from_batches(file.schema, batches)
