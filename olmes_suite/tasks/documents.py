"""Where documents come from: an offline mirror, the few samples that ship with a task, or the Hub at a pinned revision.

A mirror is a folder `D/<data set id>/<config>/<split>.parquet`. Several may be given; the first hit wins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import DataError, MissingData, first_line
from olmes_suite.records import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa

SAMPLE = "sample"
_WILDCARD = "*"
_hub_unreachable = False
"""Set by the first failed connection: the client tries for half a minute, once is enough for a suite of data sets."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Which places to look in, in order."""

    mirrors: tuple[Path, ...] = ()
    sample: bool = False
    """Use the sample documents beside the tasks and nothing else."""

    @classmethod
    def from_environment(cls, data_dirs: Iterable[str | Path] = (), data: str | None = None) -> DataSource:
        """Mirrors named on the command line, then those of the path list `$OLMES_DATA_DIR`.

        `$OLMES_DATA=sample` selects the sample documents, for use under plain lm-eval.
        """
        listed = [part for part in os.environ.get("OLMES_DATA_DIR", "").split(os.pathsep) if part]
        chosen = data or os.environ.get("OLMES_DATA")
        return cls(tuple(Path(d) for d in [*data_dirs, *listed]), chosen == SAMPLE)

    def show_to_nltk(self) -> None:
        """Add the mirrors' `nltk` folders to `$NLTK_DATA`, after those that it names; scoring workers inherit it.

        What scores or looks for NLTK's data calls this once, at its start.
        """
        known = [part for part in os.environ.get("NLTK_DATA", "").split(os.pathsep) if part]
        folders = [str(mirror / "nltk") for mirror in self.mirrors if (mirror / "nltk").is_dir()]
        known += [folder for folder in folders if folder not in known]
        if known:
            os.environ["NLTK_DATA"] = os.pathsep.join(known)


@dataclass(frozen=True, slots=True)
class DataSpec:
    """What a task declares about one data set configuration."""

    path: str
    """Hub id."""
    config: str = "default"
    revision: str = "main"
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column to type: string, int, bool, list, struct; `?` behind it where a copy of the data set may lack the column.
    Checked when a split is read; only these are hashed."""
    split_names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Other names that a split has had, the preferred one first."""
    subset: Mapping[str, int] | None = None
    """{"full": n, "k": k, "seed": s}: of a split with exactly `n` rows keep `random.Random(s).sample(range(n), k)`."""
    hub: bool = True
    """False: the data set is on no hub, only in local mirrors."""
    gated: bool = False
    """True: the Hub gives it only to accounts that have agreed to its terms."""
    sample_file: Path | None = None

    def names_of(self, split: str) -> list[str]:
        """Names under which a split may be found."""
        return list(self.split_names.get(split, ())) or [split]


def find_split(source: DataSource, spec: DataSpec, split: str) -> Path | None:
    """The parquet file of a split in the first mirror that has it."""
    for mirror in source.mirrors:
        for name in spec.names_of(split):
            path = mirror / spec.path / spec.config / f"{name}.parquet"
            if path.is_file():
                return path
    return None


def load_split(source: DataSource, spec: DataSpec, split: str) -> pa.Table:
    """Read one split as an Arrow table, checked against the declared columns.

    Raises MissingData where it is nowhere to be found, DataError where it has the wrong shape.
    """
    if source.sample:
        table = _sample_table(spec, split)
    elif (path := find_split(source, spec, split)) is not None:
        table = _read_parquet(path)
    elif source.mirrors or not spec.hub or _offline():
        raise MissingData(missing_message(source, spec, split))
    else:
        table = _from_hub(source, spec, split)
    check_columns(table, spec, split)
    return _subset(table, spec)


def missing_message(source: DataSource, spec: DataSpec, split: str) -> str:
    """One line: what is missing, the layout of a mirror, and the command that fetches it."""
    where = f"<data-dir>/{spec.path}/{spec.config}/{spec.names_of(split)[0]}.parquet"
    looked = ", ".join(str(m) for m in source.mirrors) or "no --data-dir given"
    if not spec.hub:
        name = f"data set {spec.path} ({spec.config}, {split})"
        return f"{name} is read from a local mirror only: put it at {where} (looked in: {looked})"
    terms = f"agree to its terms at https://huggingface.co/datasets/{spec.path}, set HF_TOKEN, then "
    return (
        f"data set {spec.path} ({spec.config}, {split}) not found as {where} (looked in: {looked}); "
        f"{terms if spec.gated else ''}on a machine with a network fetch it with: "
        "olmes data pull --task TASK --out DATA_DIR"
    )


def check_columns(table: pa.Table, spec: DataSpec, split: str) -> None:
    """Raise DataError naming every declared column that is absent or of another type."""
    problems = []
    for name, wanted in spec.columns.items():
        if name not in table.column_names:
            if wanted.endswith("?"):
                continue
            problems.append(f"column {name!r} is missing")
        elif not _is_type(table.schema.field(name).type, wanted.removesuffix("?")):
            problems.append(f"column {name!r} is {table.schema.field(name).type}, expected {wanted}")
    if problems:
        raise DataError(f"data set {spec.path} ({spec.config}, {split}): " + "; ".join(problems))
    if table.num_rows == 0:
        raise DataError(f"data set {spec.path} ({spec.config}, {split}) has no rows")


def content_hash(table: pa.Table, columns: Iterable[str]) -> str:
    """SHA-256 over the rows' canonical JSON, declared columns only: equal wherever the rows came from."""
    import hashlib

    names = sorted(name for name in columns if name in table.column_names) or sorted(table.column_names)
    digest = hashlib.sha256()
    for batch in table.select(names).to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            digest.update(canonical_json(_plain(row)).encode("utf-8", "surrogatepass"))
            digest.update(b"\n")
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    """JSON-able form of an Arrow value: None members of structs dropped, bytes as text."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _is_type(actual: pa.DataType, wanted: str) -> bool:
    import pyarrow.types as t

    tests = {
        "string": lambda a: t.is_string(a) or t.is_large_string(a),
        "int": t.is_integer,
        "bool": t.is_boolean,
        "float": t.is_floating,
        "list": lambda a: t.is_list(a) or t.is_large_list(a) or t.is_fixed_size_list(a),
        "struct": t.is_struct,
        "any": lambda a: True,
    }
    if wanted not in tests:
        raise DataError(f"unknown column type {wanted!r} in a task's definition")
    return bool(tests[wanted](actual))


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read as parquet: {first_line(error)}") from error


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

    reason = ""
    if _hub_unreachable:
        raise MissingData(f"{missing_message(source, spec, split)} (the Hub cannot be reached)")
    for name in spec.names_of(split):
        try:
            loaded = datasets.load_dataset(spec.path, spec.config, split=name, revision=spec.revision)
            return loaded.data.table.combine_chunks()
        except Exception as error:  # the Hub client raises a dozen unrelated types; every one means "not available"
            reason = first_line(error)
            _hub_unreachable = isinstance(error, (ConnectionError, OSError)) and "reach" in str(error)
    raise MissingData(f"{missing_message(source, spec, split)} ({reason})")
