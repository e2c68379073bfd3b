"""A training set without its matching rows, and the log of what was removed and why."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decontam.matching import pairs
from decontam.matching.index import Index
from decontam.report import places, problems
from decontam.scan import SetParts
from decontam.training_data import copies, saved_datasets
from decontam.training_data.sources import hidden
from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import storage

REMOVED = "removed.jsonl"
CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A training set as it was written."""

    train: str
    path: Path
    kept: int
    removed: int


def clean(sets: Sequence[SetParts], index: Index, out: Path, *, keep_short: bool = False) -> list[Cleaned]:
    """Write `out`/clean/<name> for every set, and `out`/removed.jsonl: what was removed and for which items.

    `keep_short` keeps rows that hold nothing but short items. Raises DataError for a set that could not be read in
    full, as its rows would be neither kept nor removed for a reason, and UsageError where a copy would take the place
    of training data; then nothing is written.
    """
    targets = _targets(sets, out)
    for found in sets:
        if wrong := problems(found):
            name = found.train.name
            raise DataError(f"--train {name} could not be read in full, so no clean copy was written: {wrong[0]}")
    done: list[Cleaned] = []
    log = out / f".{REMOVED}.{os.getpid()}.part"
    with storage(log):
        out.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as handle:
            for found, target in zip(sets, targets, strict=True):
                done.append(_clean_set(found, index, target, out, handle, keep_short))
        log.replace(out / REMOVED)
    return done


def _targets(sets: Sequence[SetParts], out: Path) -> list[Path]:
    """Where each set's copy goes: no two sets in one place, and none in that of the data. Raises UsageError."""
    names = [_name(found.train.root) for found in sets]
    chosen: list[str] = []
    for name in names:
        free, number = name, 1
        while free in chosen or (number > 1 and free in names):
            number += 1
            free = f"{number}-{name}"
        chosen.append(free)
    targets = [out / CLEAN / name for name in chosen]
    data = {file.resolve() for found in sets for file in found.train.files}
    for target in targets:
        place = target.resolve()
        if any(file == place or place in file.parents for file in data):
            raise UsageError(f"--out {out}: the clean copy {target} would replace training data; name another folder")
    return targets


def _name(root: Path) -> str:
    return (root.name if root.name not in ("", "..") else root.resolve().name) or "train"


def _clean_set(found: SetParts, index: Index, target: Path, out: Path, log: Any, keep_short: bool) -> Cleaned:
    matched = matched_rows(found, index, keep_short)
    before, rows = 0, 0
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    _forget(partial)
    root = found.train.root
    single = root.is_file()
    removed: dict[str, list[int]] = {}
    left: dict[str, int] = {}
    for file in found.train.files:
        own = [(block, part) for block, part in found.parts if block.path == file]
        count = sum(part.rows for _, part in own)
        drop = {row - before for row in matched if before <= row < before + count}
        inside = str(file.relative_to(root))
        removed[inside], left[inside] = sorted(drop), count - len(drop)
        place = partial if single else partial / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        copies.write(own[0][0], place, drop)
        for row in sorted(drop):
            log.write(_line(found, file, row, row + before, matched[row + before]))
        before += count
        rows += count
    if not single:
        _copy_rest(found, partial, out)
        saved_datasets.renew(partial, removed, left)
    _forget(target)
    partial.rename(target)
    return Cleaned(found.train.name, target, rows - len(matched), len(matched))


def matched_rows(found: SetParts, index: Index, keep_short: bool = False) -> dict[int, list[dict[str, Any]]]:
    """Row of the set to the items for which it is removed."""
    out: dict[int, list[dict[str, Any]]] = {}
    for table in pairs.read_blocks(places(found)):
        for pair in table.select(["train_row", "item", "kind", "coverage"]).to_pylist():
            if not (keep_short and pair["kind"] == "short"):
                item = pair["item"]
                why = {"task": index.task_of(item), "doc_id": index.doc_ids[item]}
                out.setdefault(pair["train_row"], []).append(why | {"kind": pair["kind"], "coverage": pair["coverage"]})
    return out


def _line(found: SetParts, file: Path, row: int, train_row: int, matches: list[dict[str, Any]]) -> str:
    entry = {"train": found.train.name, "file": str(file), "file_row": row, "train_row": train_row, "matches": matches}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _forget(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_rest(found: SetParts, target: Path, out: Path) -> None:
    """What else lies in the folder: cards, a data set's description. Not what was made of its rows."""
    taken = set(found.train.files)
    if any(sign in found.train.name for sign in "*?["):
        return
    root = found.train.root
    for path in sorted(root.rglob("*")):
        place = target / path.relative_to(root)
        if path.is_file() and path not in taken and not hidden(path, root, out) and not saved_datasets.is_cache(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
