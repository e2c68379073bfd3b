"""Evaluation items in the rows of a mix, found by `decontam`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from decontam import scan
from decontam.check import Contaminated, scanned
from decontam.clean import matched_rows
from decontam.items import items
from decontam.matching import prepared_index
from decontam.matching.prepared_index import Prepared
from decontam.training_data.sources import TrainSet
from olmes_suite.files import cache_folder
from olmes_suite.tasks.documents import DataSource
from train_plugins.data.curation.mix.keys import Decontam
from train_plugins.data.curation.mix.parts import ROWS, Part
from train_plugins.data.curation.mix.pool import CONTAMINATED, KEPT, Pool

FOLDER = "decontamination"
"""Folder in the output with the report of `olmes decontam`."""


@dataclass(slots=True)
class Found:
    """Contaminated rows of a mix's sources, as the scan found them."""

    index: str = ""
    """Hash of all evaluation items."""
    tasks: tuple[str, ...] = ()
    """The tasks that the rows were compared with."""
    missing: tuple[str, ...] = ()
    """Tasks whose documents are not on this machine, so that nothing was compared with them."""
    rows: dict[str, int] = field(default_factory=dict)
    """Matching rows of each source."""
    tasks_of: dict[str, dict[str, int]] = field(default_factory=dict)
    """Matching rows of each source, by task."""
    verdicts: list[str] = field(default_factory=list)
    """One line for each source and evaluation over the paper's limit."""
    why: dict[int, str] = field(default_factory=dict)
    """Position in the pool of each matching row, and the items in it."""

    def as_data(self) -> dict[str, Any]:
        """Return what the manifest records."""
        return {
            "index": self.index, "compared": list(self.tasks), "missing": list(self.missing), "rows": self.rows,
            "by_task": self.tasks_of, "over_the_limit": self.verdicts,
        }  # fmt: skip


def prepare(keys: Decontam) -> Prepared:
    """Load or build the index of the evaluations. Raises UsageError or DataError."""
    rule = scan.Settings().rule
    if keys.file is not None:
        return prepared_index.of_file(Path(keys.file).expanduser(), rule)
    source = DataSource.from_environment(keys.data_dir)
    return prepared_index.of_suites(items.of_suites(keys.suites, keys.tasks, {}), source, rule)


def mark(
    pool: Pool, parts: Sequence[Sequence[Part]], keys: Decontam, prepared: Prepared, out: Path, *, run: scan.Runner
) -> Found:
    """Compare all rows of the pool, write the report to `out` and mark the matching rows unless `warn` keeps them.

    Raises Contaminated under `stop`.
    """
    sets, numbers = [], []
    for number, (name, one) in enumerate(zip(pool.names, parts, strict=True)):
        # files of equal content have the same part, and each of them counts
        files = [part.folder / ROWS for part in one if len(part.index["number"])]
        if files:
            sets.append(
                TrainSet(name, files[0].parent.parent, tuple(files), {file: file.parent.name for file in files})
            )
            numbers.append(number)
    found = Found(prepared.index.key, _tasks(prepared), tuple(one["task"] for one in prepared.index.missing))
    if not sets:
        return found
    read, report = scanned(
        sets, scan.Settings(), prepared, out, run, parts=cache_folder() / "decontam" / "parts"
    )  # fmt: skip
    for number, scanned_set in zip(numbers, read, strict=True):
        name, first = pool.names[number], pool.of_source(number).start
        rows = matched_rows(scanned_set, prepared.index)
        found.rows[name] = len(rows)
        found.tasks_of[name] = dict(sorted(Counter(t for m in rows.values() for t in {p["task"] for p in m}).items()))
        for row, matches in rows.items():
            found.why[first + row] = _named(matches)
    over = [entry for entry in report.data["sets"] if entry["contaminated"]]
    found.verdicts = [
        f"{e['train']}: {e['hit']} of {e['instances']} items of {e['task']} ({e['percent']:.1f} %): {e['verdict']}"
        for e in over
    ]
    if over and keys.on_contamination == "stop":
        raise Contaminated(
            f"{'; '.join(found.verdicts)}; `on_contamination: filter` leaves these rows out, warn keeps them"
        )
    if keys.on_contamination != "warn":
        for position in found.why:
            if pool.state[position] == KEPT:
                pool.state[position] = CONTAMINATED
    return found


def _tasks(prepared: Prepared) -> tuple[str, ...]:
    index = prepared.index
    names = {name for task, _ in index.leaves for name in index.same.get(task, [task])}
    return tuple(sorted(names or {str(one["name"]) for one in index.evaluations}))


def _named(matches: Sequence[Mapping[str, Any]]) -> str:
    items = [f"{match['task']} {match['doc_id']}" for match in matches]
    return ", ".join(items[:5]) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
