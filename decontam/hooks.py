"""The hook before a training stage: its data are scanned, and the recipe says what becomes of a finding."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from decontam.check import Contaminated, Judged, judge
from decontam.clean import REMOVED, matched_rows
from decontam.training_data.sources import TrainSet
from olmes_suite import __version__
from olmes_suite.files import storage, write_text
from olmes_suite.hooks import Stage, StageData, StageRefused, TrainingSet, hookimpl
from olmes_suite.records import canonical_json, sha256
from olmes_suite.runs.contamination import Known, joined
from olmes_suite.tasks.documents import DataSource

FOLDER = "decontam"
"""Below the stage's output: `report.json`, `pairs.parquet`, `report.html`, and which rows were removed."""


@hookimpl
def olmes_before_stage(stage: Stage, data: StageData) -> StageData | None:
    """Scan the rows of the stage against the recipe's suites; nothing where the recipe has no `decontam`.

    `stop` raises StageRefused on contamination, `filter` takes every matching row out, `warn` trains on all and flags
    the items. What is scanned is what is trained on: the stage's own rows, not the files that they were read from.
    """
    wanted = stage.recipe.get("decontam")
    if not wanted:
        return None
    out, policy = stage.output / FOLDER, wanted.get("on_contamination", "stop")
    with _written(data, out) as sets:
        try:
            found = judge(
                sets, out, tuple(wanted.get("suites") or ()),
                DataSource.from_environment(tuple(wanted.get("data_dir") or ())), policy,
            )  # fmt: skip
        except Contaminated as error:
            raise StageRefused(str(error)) from error
    for line in found.warnings:
        print(f"note: {line}", file=sys.stderr)
    verdict = {
        "report": str(out / "report.json"),
        "on_contamination": policy,
        "contaminated": [
            {name: value for name, value in entry.items() if name != "worst"}
            for entry in found.report["sets"]
            if entry["contaminated"]
        ],
        "missing": [entry["task"] for entry in found.report["missing"]],
    }
    scanned = frozenset(found.scanned)
    if policy == "filter":
        kept = _filtered(data, found, out)
        counts = {one.path: len(one.rows) - len(left.rows) for one, left in zip(data.sets, kept, strict=True)}
        removed = {path: count for path, count in counts.items() if count}
        return _joined(replace(data, sets=kept, decontam={**verdict, "removed": removed}), Known(scanned=scanned))
    flags, short = (
        {task: [int(doc_id) for doc_id in ids] for task, ids in one.items()} for one in (found.flags, found.short)
    )
    return _joined(replace(data, decontam={**verdict, "removed": {}}), Known(flags, short, scanned))


@contextmanager
def _written(data: StageData, out: Path) -> Iterator[list[TrainSet]]:
    """The stage's rows as files to scan. The cache knows them by their content, so the files need not stay."""
    files: list[Path] = []
    try:
        sets = []
        for number, one in enumerate(data.sets):
            file = out / f".rows-{number}.{os.getpid()}.parquet"
            files.append(file)
            with storage(file):
                out.mkdir(parents=True, exist_ok=True)
                one.rows.to_parquet(str(file))
            content = sha256(canonical_json([__version__, one.sha256, len(one.rows), one.rows.column_names]))
            sets.append(TrainSet(one.path, file, (file,), {file: content}))
        yield sets
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _filtered(data: StageData, found: Judged, out: Path) -> tuple[TrainingSet, ...]:
    """The sets without their matching rows; `removed.jsonl` says which and why."""
    kept, lines = [], []
    for one, parts in zip(data.sets, found.sets, strict=True):
        matched = matched_rows(parts, found.index)
        numbers = one.rows["row"]
        for place, matches in sorted(matched.items()):
            entry = {"train": one.path, "train_row": numbers[place], "matches": matches}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        left = [place for place in range(len(one.rows)) if place not in matched]
        kept.append(replace(one, rows=one.rows.select(left)) if matched else one)
    write_text(out / REMOVED, "".join(lines))
    return tuple(kept)


def _joined(data: StageData, found: Known) -> StageData:
    """The stage's data with what another hook may have found before."""
    both = joined(Known(data.flags, data.short, frozenset(data.scanned)), found)
    flags, short = ({task: list(ids) for task, ids in one.items()} for one in (both.flags, both.short))
    return replace(data, flags=flags, short=short, scanned=tuple(sorted(both.scanned)))
