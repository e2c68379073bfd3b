"""instances/<task>.parquet: the scored documents of a top-level task, one row per document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError
from olmes_suite.files import storage
from olmes_suite.runs.schema.record import OPTIONAL, Record, members

INSTANCES = "instances"
"""Folder of a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRow(Record):
    """One scored document."""

    task: str
    """The leaf task."""
    doc_id: int | str
    """Row of the evaluation split; imported scores may name their documents."""
    cluster: str
    """Documents with the same value are not independent."""
    score: float | None
    """The primary metric; null where it is no mean over documents."""
    stratum: str | None = field(default=None, metadata=OPTIONAL)
    """The part of the task that the document belongs to, where the parts weigh the same in the score."""
    extracted: str | None = None
    """The answer that the scorer read out of the response; JSON where it is no text, as is `reference`."""
    reference: str | None = None
    flags: tuple[str, ...] = ()
    contaminated: bool | None = None
    """The training data is known to contain the document; null where nobody looked."""
    contaminated_short: bool | None = field(default=None, metadata=OPTIONAL)
    """It matches only as an item too short for an n-gram."""

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """The columns of the task's metrics."""
        return self.extra


def instances_file(run: Path, task: str) -> Path:
    """The parquet file of a top-level task; characters that no file name may hold are percent-encoded."""
    from urllib.parse import quote

    return run / INSTANCES / f"{quote(task, safe=' ()+,;=@&')}.parquet"


def write_instances(path: Path, rows: Sequence[InstanceRow]) -> None:
    """Write the documents of a top-level task. Columns with nothing to say are left out where they are optional."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = all(isinstance(row.doc_id, int) for row in rows)
    columns: dict[str, Any] = {
        "task": pa.array([row.task for row in rows], pa.string()),
        "doc_id": pa.array(
            [row.doc_id if numbers else str(row.doc_id) for row in rows], pa.int64() if numbers else pa.string()
        ),
        "cluster": pa.array([row.cluster for row in rows], pa.string()),
        "score": pa.array([row.score for row in rows], pa.float64()),
    }
    if any(row.stratum for row in rows):
        columns["stratum"] = pa.array([row.stratum for row in rows], pa.string())
    for metric in sorted({metric for row in rows for metric in row.metrics}):
        columns[metric] = pa.array([row.metrics.get(metric) for row in rows], pa.float64())
    columns["extracted"] = pa.array([row.extracted for row in rows], pa.string())
    columns["reference"] = pa.array([row.reference for row in rows], pa.string())
    columns["flags"] = pa.array([list(row.flags) for row in rows], pa.list_(pa.string()))
    columns["contaminated"] = pa.array([row.contaminated for row in rows], pa.bool_())
    if any(row.contaminated_short is not None for row in rows):
        columns["contaminated_short"] = pa.array([row.contaminated_short for row in rows], pa.bool_())
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)


def read_instances(path: Path, columns: Sequence[str] | None = None) -> Any:
    """An Arrow table of the documents, with the named `columns` as far as the file has them; all of them by default.

    Raises DataError for a file that cannot be read or lacks a column that every file has.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            names = opened.schema_arrow.names
            wanted = names if columns is None else columns
            optional = {key for key, member in members(InstanceRow).items() if member.optional}
            return opened.read(columns=[name for name in wanted if name in names or name not in optional])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())[:200]}") from error


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[InstanceRow]:
    """The documents one by one; fields whose column was not asked for have their default. Raises DataError."""
    table = read_instances(path, None if columns is None else list(dict.fromkeys((*_REQUIRED, *columns))))
    known = members(InstanceRow)
    read = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    for name, values in read.items():
        if (allowed := _TYPES.get(name)) and not {type(value) for value in values} <= allowed:
            raise DataError(f"{path}: column {name} has values of another type")
    if "flags" in read:
        read["flags"] = [tuple(flags or ()) for flags in read["flags"]]
    fields = {name: values for name, values in read.items() if name in known}
    metrics = {name: values for name, values in read.items() if name not in known}
    for at, values in enumerate(zip(*fields.values(), strict=True)):
        scores = {name: column[at] for name, column in metrics.items()}
        yield InstanceRow(**dict(zip(fields, values, strict=True)), extra=scores)


_REQUIRED = ("task", "doc_id", "cluster", "score")
_NULL = type(None)
_TYPES: Mapping[str, set[type]] = {
    "task": {str}, "doc_id": {int, str}, "cluster": {str}, "score": {float, _NULL}, "stratum": {str, _NULL},
    "extracted": {str, _NULL}, "reference": {str, _NULL}, "flags": {list, _NULL}, "contaminated": {bool, _NULL},
    "contaminated_short": {bool, _NULL},
}  # fmt: skip
"""What the columns hold, as Python has it."""
