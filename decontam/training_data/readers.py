"""Reading a block: batches of text, and one line for every row that cannot be read."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from decontam.training_data import forms
from decontam.training_data.batches import Batch
from decontam.training_data.columns import batch_of, check_types, text_columns
from decontam.training_data.forms import Form, RowError, detect
from olmes_suite.errors import DataError, first_line
from olmes_suite.training_rows.files import Block
from olmes_suite.training_rows.text import arrow_reader, csv_records, lines_of, opened, row_of, row_of_cells

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")
BATCH_BYTES = 8 << 20


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
            with pa.memory_map(str(block.path)) as handle, arrow_reader(handle) as stream:
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
                yield self._of_rows([row_of(line) for line in lines])

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
                yield self._of_rows([row_of_cells(names, cells) for _, cells in group])

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


def _strings(row: dict[str, Any], form: Form) -> list[str]:
    """List the columns of text that a guessed form depends on; none where the form follows from column names."""
    if not form.guessed:
        return []
    return [name for name, value in row.items() if isinstance(value, str)] or [form.columns[0][0]]


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
