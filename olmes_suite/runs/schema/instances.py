"""instances/<task>.parquet: the scored documents of a top-level task, one row per document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, one_line
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
    """Row of the evaluation split; imported scores may have strings."""
    cluster: str
    """Cluster of the document; documents of a cluster are not independent."""
    score: float | None
    """The primary metric; null if it is not a mean over documents."""
    stratum: str | None = field(default=None, metadata=OPTIONAL)
    """Part of the task that the document belongs to, if the parts have equal weights in the score."""
    extracted: str | None = None
    """Answer that the scorer extracted from the response; like `reference`, JSON if it is not text."""
    reference: str | None = None
    flags: tuple[str, ...] = ()
    contaminated: bool | None = None
    """Whether the training data contains the document; null if the task was not scanned."""
    contaminated_short: bool | None = field(default=None, metadata=OPTIONAL)
    """Whether the document matches only as an item too short for an n-gram."""
    thinking_tokens: float | None = field(default=None, metadata=OPTIONAL)
    """Generated tokens of the thought; like `answer_tokens`, the mean over the document's answers."""
    answer_tokens: float | None = field(default=None, metadata=OPTIONAL)
    """Generated tokens of the rest of the answer; null if the source does not count tokens."""
    sample_scores: tuple[float | None, ...] | None = field(default=None, metadata=OPTIONAL)
    """Primary score of each sample, for a document with several answers."""

    @property
    def metrics(self) -> Mapping[str, float | None]:
        """Values of the task's metrics, by column."""
        return self.extra


def instances_file(run: Path, task: str) -> Path:
    """Return the parquet file of a top-level task; characters that file names cannot have are percent-encoded."""
    from urllib.parse import quote

    return run / INSTANCES / f"{quote(task, safe=' ()+,;=@&')}.parquet"


def write_instances(path: Path, rows: Sequence[InstanceRow]) -> None:
    """Write the documents of a top-level task. Optional columns without values are left out."""
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
    if any(row.thinking_tokens or row.answer_tokens for row in rows):
        columns["thinking_tokens"] = pa.array([row.thinking_tokens for row in rows], pa.float64())
        columns["answer_tokens"] = pa.array([row.answer_tokens for row in rows], pa.float64())
    if any(row.sample_scores is not None for row in rows):
        columns["sample_scores"] = pa.array([row.sample_scores for row in rows], pa.list_(pa.float64()))
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path)


def read_instances(path: Path, columns: Sequence[str] | None = None) -> Any:
    """Read the documents as an Arrow table, with those of the named `columns` that the file has; all by default.

    Raises DataError for an unreadable file and for a missing required column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            names = parquet.schema_arrow.names
            requested = names if columns is None else columns
            optional = {key for key, member in members(InstanceRow).items() if member.optional}
            return parquet.read(columns=[name for name in requested if name in names or name not in optional])
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {one_line(error)}") from error


def read_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[InstanceRow]:
    """Yield the documents. Fields whose column is not requested have their default. Raises DataError."""
    table = read_instances(path, None if columns is None else list(dict.fromkeys((*_REQUIRED, *columns))))
    row_fields = members(InstanceRow)
    columns_read = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    for name, values in columns_read.items():
        if (allowed := _TYPES.get(name)) and not {type(value) for value in values} <= allowed:
            raise DataError(f"{path}: column {name} has values of another type")
    if "flags" in columns_read:
        columns_read["flags"] = [tuple(flags or ()) for flags in columns_read["flags"]]
    if "sample_scores" in columns_read:
        columns_read["sample_scores"] = [s if s is None else tuple(s) for s in columns_read["sample_scores"]]
    fields = {name: values for name, values in columns_read.items() if name in row_fields}
    metrics = {name: values for name, values in columns_read.items() if name not in row_fields}
    for position, values in enumerate(zip(*fields.values(), strict=True)):
        scores = {name: column[position] for name, column in metrics.items()}
        yield InstanceRow(**dict(zip(fields, values, strict=True)), extra=scores)


_REQUIRED = ("task", "doc_id", "cluster", "score")
_NULL = type(None)
_TYPES: Mapping[str, set[type]] = {
    "task": {str}, "doc_id": {int, str}, "cluster": {str}, "score": {float, _NULL}, "stratum": {str, _NULL},
    "extracted": {str, _NULL}, "reference": {str, _NULL}, "flags": {list, _NULL}, "contaminated": {bool, _NULL},
    "contaminated_short": {bool, _NULL}, "thinking_tokens": {float, _NULL}, "answer_tokens": {float, _NULL},
    "sample_scores": {list, _NULL},
}  # fmt: skip
"""Column to the Python types of its values."""
