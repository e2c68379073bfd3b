"""Offline mirrors: made from the Hub or from other mirrors, and checked against recorded content hashes.

`python -m olmes_suite.tasks.mirror MIRROR …` records the hashes of every split that the shipped tasks read.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, MissingData
from olmes_suite.files import read_json, storage, write_json
from olmes_suite.scoring import language_resources
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource, DataSpec, check_columns, content_hash, find_split, load_split
from olmes_suite.tasks.keys import TaskKeys

HASHES = "data_hashes.json"
RECONSTRUCTED = frozenset({"EleutherAI/drop"})
"""Data sets of which we had only a copy whose answer types were inferred: no hash is recorded for them."""


@dataclass(frozen=True, slots=True)
class Needed:
    """One split that a task reads."""

    task: str
    spec: DataSpec
    split: str

    @property
    def place(self) -> str:
        """Path inside a mirror, under the preferred name of the split."""
        return f"{self.spec.path}/{self.spec.config}/{self.spec.names_of(self.split)[0]}.parquet"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one split: pulled, ok, differs, missing, unreadable, unrecorded."""

    place: str
    state: str
    detail: str = ""


def needed(names: Iterable[str]) -> list[Needed]:
    """The splits that tasks read (documents and few-shot), each once."""
    found: dict[str, Needed] = {}
    for name in names:
        for leaf in catalog.find(name).leaves:
            for item in _splits(leaf):
                found.setdefault(item.place, item)
    return list(found.values())


def needed_nltk(names: Iterable[str]) -> list[str]:
    """Packages of NLTK's data that the scorers of tasks read, from the task files' `nltk`."""
    return sorted({package for name in names for leaf in catalog.find(name).leaves for package in _nltk(leaf)})


def _nltk(leaf: str) -> tuple[str, ...]:
    from lm_eval.tasks._yaml_loader import load_yaml

    return TaskKeys.of(load_yaml(index.task_file(index.index()[leaf]), resolve_func=False)).nltk


def _splits(leaf: str) -> Iterator[Needed]:
    from lm_eval.tasks._yaml_loader import load_yaml

    path = index.task_file(index.index()[leaf])
    config = load_yaml(path, resolve_func=False)
    spec = TaskKeys.of(config).data_spec(config["dataset_path"], config.get("dataset_name"))
    for split in (config["test_split"], *config["metadata"].get("fewshot_splits", ())):
        yield Needed(leaf, spec, split)


def pull(names: Iterable[str], out: Path, source: DataSource) -> Iterator[Verdict]:
    """Write every split that is not yet in `out`: from the source's mirrors where they have it, else from the Hub.

    The same for NLTK's data, in `out`/nltk.
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
            yield Verdict(item.place, "missing", str(error))
            continue
        part = target.with_name(f".{target.name}.{os.getpid()}.part")
        with storage(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(table, part)
            part.replace(target)
        yield Verdict(item.place, "pulled", f"{table.num_rows} rows")
    for package in needed_nltk(names):
        place = f"nltk/{language_resources.NLTK_DATA[package]}"
        try:
            with storage(out / place):
                yield Verdict(place, language_resources.fetch_nltk(package, out / "nltk"))
        except MissingData as error:
            yield Verdict(place, "missing", str(error))


def verify(names: Iterable[str], source: DataSource) -> Iterator[Verdict]:
    """Compare what the mirrors hold with the recorded hashes of the columns that the tasks read."""
    source.show_to_nltk()
    recorded, names = hashes(), list(names)
    for package in needed_nltk(names):
        places = [mirror / "nltk" / language_resources.NLTK_DATA[package] for mirror in source.mirrors]
        here = any(place.exists() for place in places) or language_resources.nltk_has(package)
        yield Verdict(f"nltk/{language_resources.NLTK_DATA[package]}", "ok" if here else "missing")
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
        known = recorded.get(item.place)
        if known is None:
            yield Verdict(item.place, "unrecorded", f"{table.num_rows} rows")
        elif known["sha256"] == content_hash(table, item.spec.columns):
            yield Verdict(item.place, "ok", f"{table.num_rows} rows")
        else:
            yield Verdict(item.place, "differs", f"{table.num_rows} rows, {known['rows']} recorded")


def hashes() -> dict[str, Any]:
    """The recorded hashes: place to rows, columns and SHA-256."""
    path = index.tasks_folder() / HASHES
    return dict(read_json(path)) if path.is_file() else {}


def record(source: DataSource) -> dict[str, Any]:
    """Hashes of every split of the shipped tasks that the source has; the others keep what was recorded."""
    found = hashes()
    for item in needed(entry.name for entry in index.top_level()):
        if find_split(source, item.spec, item.split) is None or item.spec.path in RECONSTRUCTED:
            continue
        table = load_split(source, item.spec, item.split)
        found[item.place] = {
            "rows": table.num_rows, "columns": sorted(item.spec.columns),
            "sha256": content_hash(table, item.spec.columns),
        }  # fmt: skip
    return found


if __name__ == "__main__":
    write_json(
        index.tasks_folder() / HASHES,
        json.loads(json.dumps(record(DataSource(tuple(Path(p) for p in sys.argv[1:]))))),
    )
