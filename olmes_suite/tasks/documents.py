"""Sources of documents: offline mirrors, the samples that ship with a task, or the Hub at a pinned revision.

A mirror is a folder with files `D/<data set id>/<config>/<split>.parquet`. Of several mirrors the first match wins.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import DataError, MissingData, first_line
from olmes_suite.records import canonical_json
from olmes_suite.tasks import json_files

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = "sample"
_WILDCARD = "*"
_hub_unreachable: bool | None = None
"""Whether the Hub does not answer; None before it was asked. Its client would retry for half a minute, with a line for
each retry, for every data set."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """The places to read documents from, in order."""

    mirrors: tuple[Path, ...] = ()
    sample: bool = False
    """Whether to use only the sample documents that ship with the tasks."""

    @classmethod
    def from_environment(cls, data_dirs: Iterable[str | Path] = (), data: str | None = None) -> DataSource:
        """Build the source from the mirrors of the command line, then those of the path list `$OLMES_DATA_DIR`.

        `$OLMES_DATA=sample` selects the sample documents, for use under plain lm-eval.
        """
        folders = [part for part in os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep) if part]
        selection = data or os.environ.get("OLMES_DATA")
        return cls(tuple(Path(d) for d in [*data_dirs, *folders]), selection == SAMPLE)

    def show_to_nltk(self) -> None:
        """Append the mirrors' `nltk` folders to `$NLTK_DATA`, which scoring workers inherit.

        Commands that score, or that look for NLTK's data, call this once at the start.
        """
        paths = [part for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
        folders = [str(mirror / "nltk") for mirror in self.mirrors if (mirror / "nltk").is_dir()]
        paths += [folder for folder in folders if folder not in paths]
        if paths:
            os.environ["NLTK_DATA"] = os.pathsep.join(paths)


@dataclass(frozen=True, slots=True)
class DataSpec:
    """A task's declaration of one data set configuration."""

    path: str
    """Hub id."""
    config: str = "default"
    revision: str = "main"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column to type: string, int, bool, list or struct, followed by `?` if copies of the data set may lack the column.
    Types are checked when a split is read; only these columns are hashed."""
    split_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Split to its names in different versions of the data set, the preferred one first."""
    subset: Mapping[str, int] | None = None
    """{"full": n, "k": k, "seed": s}: select `random.Random(s).sample(range(n), k)` of a split of `n` rows."""
    hub: bool = True
    """Whether the data set is on the Hub; otherwise it is read from local mirrors only."""
    gated: bool = False
    """Whether the Hub requires an account that has agreed to the data set's terms."""
    made_by: str = ""
    """Command that makes the data set, for one that is made for a model instead of being fetched."""
    json_files: Sequence[Mapping[str, Sequence[str]]] = ()
    """Files of JSON lines that make up the configuration; see `olmes_suite.tasks.json_files`."""
    sample_file: Path | None = None
    files: tuple[Path, ...] = ()
    """Files of rows on this machine, which are read in place of a mirror."""

    def names_of(self, split: str) -> list[str]:
        """Return the names under which a split may be stored."""
        return list(self.split_names.get(split, ())) or [split]


BUILDERS = frozenset({"arrow", "csv", "json", "pandas", "parquet", "sql", "text", "webdataset", "xml"})
"""Names of builders of `datasets` that read files instead of a data set of the Hub."""


def reads_files(path: str) -> bool:
    """Whether the `dataset_path` of a task names local files, which no mirror holds."""
    return path in BUILDERS or Path(path).exists()


def find_split(source: DataSource, spec: DataSpec, split: str) -> Path | None:
    """Return the file of a split in the first mirror that has it, otherwise None.

    It is parquet, or the first of the files of JSON lines that make up the split.
    """
    for mirror in source.mirrors:
        for name in spec.names_of(split):
            path = mirror / spec.path / spec.config / f"{name}.parquet"
            if path.is_file():
                return path
        if spec.json_files and (found := json_files.find(mirror / spec.path, spec.json_files)):
            return found[0].rows
    return None


def load_split(source: DataSource, spec: DataSpec, split: str) -> pa.Table:
    """Read one split as an Arrow table, checked against the declared columns.

    Raises MissingData if no source has the split, DataError if its columns do not match.
    """
    if spec.files:
        table = _from_rows(spec.files)
    elif source.sample:
        table = _sample_table(spec, split)
    elif (path := find_split(source, spec, split)) is not None:
        table = _read_parquet(path) if path.suffix == ".parquet" else _from_json_lines(source, spec)
    elif source.mirrors or not spec.hub or _offline():
        raise missing(source, spec, split)
    else:
        table = _from_hub(source, spec, split)
    check_columns(table, spec, split)
    return _subset(table, spec)


def missing(source: DataSource, spec: DataSpec, split: str, reason: str = "") -> MissingData:
    """Build the error for a missing split: the split, its path in a mirror, and the command that fetches it."""
    path = f"<data-dir>/{spec.path}/{spec.config}/{spec.names_of(split)[0]}.parquet"
    searched = ", ".join(str(m) for m in source.mirrors) or "no --data-dir given"
    if spec.made_by:
        return MissingData(
            f"data set {spec.path} ({spec.config}, {split}) is made for the model and not found as {path} (looked in: "
            f"{searched}); on a machine with a network make it with: {spec.made_by}"
        )
    if not spec.hub:
        name = f"data set {spec.path} ({spec.config}, {split})"
        return MissingData(f"{name} is read from a local mirror only: put it at {path} (looked in: {searched})")
    terms = f"agree to its terms at https://huggingface.co/datasets/{spec.path}, set HF_TOKEN, then "
    return MissingData(
        f"data set {spec.path} ({spec.config}, {split}) not found as {path} (looked in: {searched}); "
        f"{terms if spec.gated else ''}on a machine with a network fetch it with: olmes data pull --task ",
        f" --out DATA_DIR{f' ({reason})' if reason else ''}",
    )


def check_columns(table: pa.Table, spec: DataSpec, split: str) -> None:
    """Raise DataError naming every declared column that is absent or of another type."""
    problems = []
    for name, kind in spec.columns.items():
        if name not in table.column_names:
            if kind.endswith("?"):
                continue
            problems.append(f"column {name!r} is missing")
        elif not _is_type(table.schema.field(name).type, kind.removesuffix("?")):
            problems.append(f"column {name!r} is {table.schema.field(name).type}, expected {kind}")
    if problems:
        raise DataError(f"data set {spec.path} ({spec.config}, {split}): " + "; ".join(problems))
    if table.num_rows == 0:
        raise DataError(f"data set {spec.path} ({spec.config}, {split}) has no rows")


def content_hash(table: pa.Table, columns: Iterable[str]) -> str:
    """Hash the declared columns: SHA-256 of the rows' canonical JSON, which is equal for every source."""
    import hashlib

    names = sorted(name for name in columns if name in table.column_names) or sorted(table.column_names)
    digest = hashlib.sha256()
    for batch in table.select(names).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            digest.update(canonical_json(_plain(row)).encode("utf-8", "surrogatepass"))
            digest.update(b"\n")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """Convert an Arrow value to JSON types: bytes become text, None members of structs are dropped."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _is_type(actual: pa.DataType, kind: str) -> bool:
    import pyarrow.types as types

    tests = {
        "string": lambda column_type: types.is_string(column_type) or types.is_large_string(column_type),
        "int": types.is_integer,
        "bool": types.is_boolean,
        "float": types.is_floating,
        "list": lambda column_type: (
            types.is_list(column_type) or types.is_large_list(column_type) or types.is_fixed_size_list(column_type)
        ),
        "struct": types.is_struct,
        "any": lambda column_type: True,
    }
    if kind not in tests:
        raise DataError(f"unknown column type {kind!r} in a task's definition")
    return bool(tests[kind](actual))


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}") from error


def _from_json_lines(source: DataSource, spec: DataSpec) -> pa.Table:
    """Read a split from the first mirror with its files of JSON lines."""
    found = (json_files.find(mirror / spec.path, spec.json_files) for mirror in source.mirrors)
    return json_files.read(next(files for files in found if files))


def _from_rows(files: Sequence[Path]) -> pa.Table:
    """Read files of rows. Cells of a column whose values have several types become JSON."""
    import pyarrow as pa

    from olmes_suite.training_rows.reading import Unreadable, rows_of

    rows: list[dict[str, Any]] = []
    for file in files:
        for number, row in enumerate(rows_of(file)):
            if isinstance(row, Unreadable):
                raise DataError(f"{file}: row {number}: {row.why}")
            rows.append(row)
    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: column([row.get(name) for row in rows]) for name in names})


def column(values: Sequence[Any]) -> pa.Array:
    """Build an Arrow column; values of several types become text, those that are not text as JSON."""
    import pyarrow as pa

    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([value if isinstance(value, str) else json.dumps(value, default=str) for value in values])


def _sample_table(spec: DataSpec, split: str) -> pa.Table:
    import pyarrow as pa

    rows = []
    if spec.sample_file is not None and spec.sample_file.is_file():
        for line in spec.sample_file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            place = [row.pop("dataset_path", spec.path), row.pop("config", _WILDCARD), row.pop("split", "test")]
            if place[0] == spec.path and place[1] in (_WILDCARD, spec.config) and place[2] == split:
                rows.append(row)
    if not rows:
        raise MissingData(f"no sample documents of {spec.path} ({spec.config}, {split}) ship with the task")
    return pa.Table.from_pylist(rows)


def _subset(table: pa.Table, spec: DataSpec) -> pa.Table:
    if not spec.subset or table.num_rows != spec.subset["full"]:
        return table
    import random

    chosen = random.Random(spec.subset["seed"]).sample(range(table.num_rows), spec.subset["k"])
    return table.take(chosen)


def _offline() -> bool:
    return any(os.environ.get(name, "") not in ("", "0") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))


def _from_hub(source: DataSource, spec: DataSpec, split: str) -> pa.Table:
    global _hub_unreachable
    import datasets

    if _hub_unreachable is None:
        _hub_unreachable = not _hub_answers()
    reason = ""
    for name in spec.names_of(split):
        try:
            with _quiet_client(cached_only=_hub_unreachable):
                if spec.json_files:
                    files = json_files.fetch(spec.path, spec.revision, spec.json_files, cached_only=_hub_unreachable)
                    return json_files.read(files)
                dataset = datasets.load_dataset(spec.path, spec.config, split=name, revision=spec.revision)
            return dataset.data.table.combine_chunks()
        except Exception as error:  # the Hub client raises a dozen unrelated types; every one means "not available"
            _hub_unreachable = _hub_unreachable or isinstance(error, ConnectionError)
            reason = "the Hub cannot be reached" if _hub_unreachable else first_line(error)
    raise missing(source, spec, split, reason)


def _hub_answers() -> bool:
    """Ask the Hub for anything at all, without retries. Any answer counts."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception:  # no network, a proxy, offline mode: each of several HTTP clients has types of its own
        return False
    return True


@contextmanager
def _quiet_client(*, cached_only: bool) -> Iterator[None]:
    """Keep the Hub's client from printing its retries; with `cached_only`, `datasets` looks into its cache only."""
    import datasets

    client = logging.getLogger("huggingface_hub")
    level, offline = client.level, datasets.config.HF_HUB_OFFLINE
    client.setLevel(logging.ERROR)
    datasets.config.HF_HUB_OFFLINE = offline or cached_only
    try:
        yield
    finally:
        client.setLevel(level)
        datasets.config.HF_HUB_OFFLINE = offline
