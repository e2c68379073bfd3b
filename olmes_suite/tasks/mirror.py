"""Offline mirrors: created from the Hub or from other mirrors, and verified against recorded content hashes.

`python -m olmes_suite.tasks.mirror MIRROR …` records the hashes of every split that the shipped tasks read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, MissingData
from olmes_suite.files import read_json, storage, write_json
from olmes_suite.scoring import language_resources
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import (
    DataSource,
    DataSpec,
    check_columns,
    content_hash,
    find_split,
    load_split,
    reads_files,
)
from olmes_suite.tasks.keys import TaskKeys

HASHES = "data_hashes.json"
RECONSTRUCTED = frozenset({"EleutherAI/drop"})
"""Data sets without a recorded hash, because only a copy with inferred answer types was available."""


@dataclass(frozen=True, slots=True)
class Needed:
    """A split that a task reads."""

    task: str
    spec: DataSpec
    split: str

    @property
    def place(self) -> str:
        """Path of the file in a mirror, under the preferred name of the split."""
        return f"{self.spec.path}/{self.spec.config}/{self.spec.names_of(self.split)[0]}.parquet"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a split: pulled, kept, ok, differs, missing, unreadable or unrecorded."""

    place: str
    state: str
    detail: str = ""


def needed(names: Iterable[str]) -> list[Needed]:
    """Return the splits that tasks read for documents and few-shot examples, each once."""
    splits: dict[str, Needed] = {}
    for name in names:
        for leaf in catalog.find(name).leaves:
            for item in _splits(leaf):
                splits.setdefault(item.place, item)
    return list(splits.values())


def needed_nltk(names: Iterable[str]) -> list[str]:
    """Return the packages of NLTK's data that scorers of the tasks read, as `nltk` in the task files lists them."""
    return sorted({package for name in names for leaf in catalog.find(name).leaves for package in _nltk(leaf)})


def _nltk(leaf: str) -> tuple[str, ...]:
    from olmes_suite.tasks.task_file import read_task_file

    return TaskKeys.of(read_task_file(index.task_file(index.index()[leaf]), functions=False)).nltk


def _splits(leaf: str) -> Iterator[Needed]:
    from olmes_suite.tasks.task_file import read_task_file

    config = read_task_file(index.task_file(index.index()[leaf]), functions=False)
    if reads_files(str(config["dataset_path"])):
        return
    spec = TaskKeys.of(config).data_spec(config["dataset_path"], config.get("dataset_name"))
    for split in dict.fromkeys((*_document_splits(config), *(config.get("metadata") or {}).get("fewshot_splits", ()))):
        yield Needed(leaf, spec, split)


def _document_splits(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield the split of the documents and, for a task of lm-eval's form with few-shot examples, theirs."""
    if split := config.get("test_split") or config.get("validation_split"):
        yield str(split)
    if config.get("num_fewshot") and "class" not in config and "samples" not in (config.get("fewshot_config") or {}):
        shots = config.get("fewshot_split") or config.get("training_split") or config.get("validation_split")
        if shots:
            yield str(shots)


def pull(names: Iterable[str], out: Path, source: DataSource) -> Iterator[Verdict]:
    """Write each split that is not yet in `out`, from the source's mirrors or otherwise from the Hub.

    NLTK's data is written to `out`/nltk.
    """
    import pyarrow.parquet as pq

    source.show_to_nltk()
    names = list(names)
    for item in needed(names):
        target = out / item.place
        if target.is_file():
            yield Verdict(item.place, "kept")
            continue
        try:
            table = load_split(source, item.spec, item.split)
        except MissingData as error:
            yield Verdict(item.place, "missing", error.of(item.task))
            continue
        partial = target.with_name(f".{target.name}.{os.getpid()}.part")
        with storage(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, partial)
            partial.replace(target)
        yield Verdict(item.place, "pulled", f"{table.num_rows} rows")
    for package in needed_nltk(names):
        place = f"nltk/{language_resources.NLTK_DATA[package]}"
        try:
            with storage(out / place):
                yield Verdict(place, language_resources.fetch_nltk(package, out / "nltk"))
        except MissingData as error:
            yield Verdict(place, "missing", str(error))


def verify(names: Iterable[str], source: DataSource) -> Iterator[Verdict]:
    """Compare the splits in the mirrors with the recorded hashes of the columns that the tasks read."""
    source.show_to_nltk()
    recorded, names = hashes(), list(names)
    for package in needed_nltk(names):
        places = [mirror / "nltk" / language_resources.NLTK_DATA[package] for mirror in source.mirrors]
        present = any(place.exists() for place in places) or language_resources.nltk_has(package)
        yield Verdict(f"nltk/{language_resources.NLTK_DATA[package]}", "ok" if present else "missing")
    for item in needed(names):
        if find_split(source, item.spec, item.split) is None:
            yield Verdict(item.place, "missing")
            continue
        try:
            table = load_split(source, item.spec, item.split)
            check_columns(table, item.spec, item.split)
        except DataError as error:
            yield Verdict(item.place, "unreadable", str(error))
            continue
        entry = recorded.get(item.place)
        if entry is None:
            yield Verdict(item.place, "unrecorded", f"{table.num_rows} rows")
        elif entry["sha256"] == content_hash(table, item.spec.columns):
            yield Verdict(item.place, "ok", f"{table.num_rows} rows")
        else:
            yield Verdict(item.place, "differs", f"{table.num_rows} rows, {entry['rows']} recorded")


def hashes() -> dict[str, Any]:
    """Read the recorded hashes: path in a mirror to rows, columns and SHA-256."""
    path = index.tasks_folder() / HASHES
    return dict(read_json(path)) if path.is_file() else {}


def record(source: DataSource) -> dict[str, Any]:
    """Hash each split of the shipped tasks that the source has; other splits keep their recorded hashes."""
    recorded = hashes()
    for item in needed(entry.name for entry in index.top_level()):
        if find_split(source, item.spec, item.split) is None or item.spec.path in RECONSTRUCTED:
            continue
        table = load_split(source, item.spec, item.split)
        recorded[item.place] = {
            "rows": table.num_rows, "columns": sorted(item.spec.columns),
            "sha256": content_hash(table, item.spec.columns),
        }  # fmt: skip
    return recorded


if __name__ == "__main__":
    write_json(
        index.tasks_folder() / HASHES,
        json.loads(json.dumps(record(DataSource(tuple(Path(p) for p in sys.argv[1:]))))),
    )
