"""Text of Arrow columns as segments of the columns' buffers, without a Python object for each row."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from numpy.typing import NDArray

from decontam.training_data import forms
from decontam.training_data.batches import Batch
from decontam.training_data.forms import Form, RowError
from olmes_suite.training_rows.names import TURNS, role_of


@dataclass(frozen=True, slots=True)
class _Strings:
    """Segments of one column."""

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    owners: NDArray[np.int64]
    column: str
    turns: NDArray[np.int64] | None
    """Position of each turn in its row, None for a column of text."""

    def name(self, segment: int) -> str:
        """Return the name of a segment."""
        return self.column if self.turns is None else f"{self.column}[{int(self.turns[segment])}]"


def batch_of(table: pa.RecordBatch, form: Form, roles: Collection[str], problems: list[tuple[int, str]]) -> Batch:
    """Extract the compared text of a record batch; rows that cannot be read are appended to `problems`."""
    segments = [_segments(table.column(column), column, role, roles, problems) for column, role in form.columns]
    if any(column is None for column in segments):
        problems.clear()  # the pass row by row finds them again
        return rows_batch(_rows(table.select([column for column, _ in form.columns])), form, roles, problems)
    columns = [column for column in segments if column is not None and len(column.starts)]
    if len(columns) == 1:
        only = columns[0]
        return Batch(only.data, only.starts, only.ends, only.owners, table.num_rows, only.name)
    return _merged(columns, table.num_rows)


def _merged(columns: list[_Strings], rows: int) -> Batch:
    """Merge the segments of several columns, row by row."""
    if not columns:
        return Batch.of_texts([], [], rows)
    bases = np.cumsum([0, *(len(column.data) for column in columns)])
    sizes = np.cumsum([0, *(len(column.starts) for column in columns)])
    owners = np.concatenate([column.owners for column in columns])
    order = np.argsort(owners, kind="stable")

    def name(segment: int) -> str:
        at = int(order[segment])
        which = int(np.searchsorted(sizes, at, side="right")) - 1
        return columns[which].name(at - int(sizes[which]))

    return Batch(
        np.concatenate([column.data for column in columns]),
        np.concatenate([c.starts + base for c, base in zip(columns, bases, strict=False)])[order],
        np.concatenate([c.ends + base for c, base in zip(columns, bases, strict=False)])[order],
        owners[order], rows, name,
    )  # fmt: skip


def _rows(table: pa.RecordBatch) -> list[dict[str, Any] | str]:
    """Convert the rows to Python objects; a row whose bytes are not text becomes an error message."""
    try:
        return list(table.to_pylist())
    except UnicodeDecodeError:
        if table.num_rows == 1:
            return ["not UTF-8"]
        half = table.num_rows // 2
        return _rows(table.slice(0, half)) + _rows(table.slice(half))


def rows_batch(
    rows: Sequence[dict[str, Any] | str], form: Form, roles: Collection[str], problems: list[tuple[int, str]]
) -> Batch:
    """Extract the compared text of Python rows; a row may be an error message instead."""
    texts, owners, names = [], [], []
    for i, row in enumerate(rows):
        notes: list[str] = []
        try:
            if isinstance(row, str):
                raise RowError(row)
            parts = forms.parts(row, form, roles, notes.append)
        except RowError as error:
            problems.append((i, str(error)))
            continue
        problems += [(i, why) for why in notes]
        for name, text in parts:
            texts.append(text.encode("utf-8", "replace"))
            owners.append(i)
            names.append(name)
    return Batch.of_texts(texts, owners, len(rows), names)


def check_types(schema: pa.Schema, form: Form) -> str | None:
    """Return an error message for a column of a wrong type, or None."""
    for column, _ in form.columns:
        if schema.names.count(column) > 1:
            return f"column {column!r} appears more than once"
        kind = schema.field(column).type
        if forms.nested(column, form):
            continue
        if not (_is_text(kind) or pt.is_null(kind) or (_is_list(kind) and _is_turn_or_text(kind.value_type))):
            return f"column {column!r} is {kind}, expected text or turns of role and content"
    return None


def text_columns(schema: pa.Schema) -> list[str]:
    """List the columns that hold text."""
    return [field.name for field in schema if _is_text(field.type)]


def _is_text(kind: pa.DataType) -> bool:
    if pt.is_dictionary(kind):
        kind = kind.value_type
    return bool(pt.is_string(kind) or pt.is_large_string(kind) or pt.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _is_turn_or_text(kind: pa.DataType) -> bool:
    if pt.is_struct(kind):
        names = {kind.field(i).name for i in range(kind.num_fields)}
        return any(role in names and content in names for role, content in TURNS)
    return _is_text(kind)


def _segments(
    array: pa.Array, column: str, role: str, roles: Collection[str], problems: list[tuple[int, str]]
) -> _Strings | None:
    """Extract a column's compared segments; None where only Python can read them.

    Unknown roles are appended to `problems`.
    """
    kind = array.type
    if _is_text(kind):
        rows = np.arange(len(array)) if forms.compared(role, roles) else np.zeros(0, np.int64)
        return _take(array, rows, rows, column, None)
    if not (pt.is_list(kind) or pt.is_large_list(kind)) or not pt.is_struct(kind.value_type):
        return None
    names = {kind.value_type.field(i).name: i for i in range(kind.value_type.num_fields)}
    keys = next((k for k in TURNS if k[0] in names and k[1] in names), None)
    if keys is None or not all(_is_text(kind.value_type.field(names[key]).type) for key in keys):
        return None
    offsets = np.asarray(array.offsets).astype(np.int64)
    # The values of a null row are not text of any row.
    lengths = np.where(np.asarray(array.is_valid()), np.diff(offsets), 0) if array.null_count else np.diff(offsets)
    owners = np.repeat(np.arange(len(array)), lengths)
    turns = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(offsets[:-1] - offsets[0], lengths) + turns
    fields = array.values.slice(offsets[0], offsets[-1] - offsets[0]).flatten()
    try:
        whose = fields[names[keys[0]]]
        whose = whose if pt.is_string(whose.type) else whose.cast(pa.large_string())
        spellings = whose.unique().to_pylist()
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return None  # the pass row by row names the rows whose roles are not text
    for name in spellings:
        if wrong := forms.strange(name):
            having = np.flatnonzero(np.asarray(_among(whose, [name]))[places])
            problems += [(int(owners[having[0]]), wrong)] if len(having) else []
    spellings_compared = [name for name in spellings if name is not None and role_of(name) in roles]
    compared = np.asarray(_among(whose, spellings_compared))[places]
    return _take(fields[names[keys[1]]], places[compared], owners[compared], column, turns[compared])


def _among(array: pa.Array, values: Sequence[str | None]) -> pa.Array:
    return pc.fill_null(pc.is_in(array, pa.array(values, array.type)), False)


def _take(
    array: pa.Array, places: NDArray[np.int64], owners: NDArray[np.int64], column: str, turns: NDArray[np.int64] | None
) -> _Strings:
    if not (pt.is_string(array.type) or pt.is_large_string(array.type)):
        array = array.cast(pa.large_string())
    width = np.int64 if pt.is_large_string(array.type) else np.int32
    _, raw_offsets, raw = array.buffers()
    empty = np.zeros(0, np.uint8)
    if raw_offsets is None:
        return _Strings(empty, np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64), column, turns)
    offsets = np.frombuffer(raw_offsets, dtype=width)[array.offset : array.offset + len(array) + 1].astype(np.int64)
    if array.null_count:
        valid = np.asarray(array.is_valid())[places]
        places, owners = places[valid], owners[valid]
        turns = turns[valid] if turns is not None else None
    data = np.frombuffer(raw, dtype=np.uint8) if raw is not None else empty
    return _Strings(data, offsets[:-1][places], offsets[1:][places], owners, column, turns)
