"""The hook before a training stage: it scans the stage's data and acts on findings as the recipe says."""

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
from decontam.matching.rule import Rule
from decontam.scan import Settings
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
    """Scan the rows of the stage against the recipe's suites; do nothing where the recipe has no `decontam`.

    `stop` raises StageRefused on contamination, `filter` removes every matching row, `warn` trains on all rows and
    flags the items. The scan reads the rows that the stage trains on, not the files that they came from.
    """
    options = stage.recipe.get("decontam")
    if not options:
        return None
    out, policy = stage.output / FOLDER, options.get("on_contamination", "stop")
    rule = Rule(share=options.get("share", Rule().share))
    with _written(data, out) as sets:
        try:
            judged = judge(
                sets, out, tuple(options.get("suites") or ()),
                DataSource.from_environment(tuple(options.get("data_dir") or ())), policy,
                settings=Settings(rule),
            )  # fmt: skip
        except Contaminated as error:
            raise StageRefused(str(error)) from error
    for line in judged.warnings:
        print(f"note: {line}", file=sys.stderr)
    verdict = {
        "report": str(out / "report.json"),
        "on_contamination": policy,
        "contaminated": [
            {name: value for name, value in entry.items() if name != "worst"}
            for entry in judged.report["sets"]
            if entry["contaminated"]
        ],
        "missing": [entry["task"] for entry in judged.report["missing"]],
    }
    scanned = frozenset(judged.scanned)
    if policy == "filter":
        clean_sets = _filtered(data, judged, out)
        counts = {
            one.path: len(one.rows) - len(clean_set.rows) for one, clean_set in zip(data.sets, clean_sets, strict=True)
        }
        removed = {path: count for path, count in counts.items() if count}
        return _joined(replace(data, sets=clean_sets, decontam={**verdict, "removed": removed}), Known(scanned=scanned))
    flags, short = (
        {task: [int(doc_id) for doc_id in ids] for task, ids in one.items()} for one in (judged.flags, judged.short)
    )
    return _joined(replace(data, decontam={**verdict, "removed": {}}), Known(flags, short, scanned))


@contextmanager
def _written(data: StageData, out: Path) -> Iterator[list[TrainSet]]:
    """Write the stage's rows as files to scan. The cache identifies them by content, so the files are temporary."""
    files: list[Path] = []
    try:
        sets = []
        for number, one in enumerate(data.sets):
            file = out / f".rows-{number}.{os.getpid()}.parquet"
            files.append(file)
            with storage(file):
                out.mkdir(parents=True, exist_ok=True)
                one.rows.to_parquet(str(file))
            content = sha256(
                canonical_json([__version__, one.sha256, len(one.rows), one.rows.column_names, dict(one.forms)])
            )
            sets.append(TrainSet(one.path, file, (file,), {file: content}))
        yield sets
    finally:
        for file in files:
            file.unlink(missing_ok=True)


def _filtered(data: StageData, judged: Judged, out: Path) -> tuple[TrainingSet, ...]:
    """Remove the matching rows from the sets; `removed.jsonl` lists them with their matches."""
    clean_sets, lines = [], []
    for one, parts in zip(data.sets, judged.sets, strict=True):
        matched = matched_rows(parts, judged.index)
        numbers = one.rows["row"]
        for place, matches in sorted(matched.items()):
            entry = {"train": one.path, "train_row": numbers[place], "matches": matches}
            lines.append(json.dumps(entry, ensure_ascii=False) + "\n")
        remaining = [place for place in range(len(one.rows)) if place not in matched]
        clean_sets.append(replace(one, rows=one.rows.select(remaining)) if matched else one)
    write_text(out / REMOVED, "".join(lines))
    return tuple(clean_sets)


def _joined(data: StageData, known: Known) -> StageData:
    """Join these findings with those that another hook may have left in the stage's data."""
    both = joined(Known(data.flags, data.short, frozenset(data.scanned)), known)
    flags, short = ({task: list(ids) for task, ids in one.items()} for one in (both.flags, both.short))
    return replace(data, flags=flags, short=short, scanned=tuple(sorted(both.scanned)))
