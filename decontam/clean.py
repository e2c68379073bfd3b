"""Copies of training sets without their matching rows, and the log of what was removed and why."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from decontam.matching import pairs
from decontam.matching.index import Index
from decontam.report import places, problems
from decontam.scan import SetParts
from decontam.training_data import copies, renewed
from decontam.training_data.sources import hidden
from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import storage
from olmes_suite.training_rows.saved_datasets import is_cache

REMOVED = "removed.jsonl"
CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A clean copy of a training set."""

    train: str
    path: Path
    kept: int
    """Rows in the copy."""
    removed: int
    """Rows of the set that are not in it."""


def clean(sets: Sequence[SetParts], index: Index, out: Path, *, keep_short: bool = False) -> list[Cleaned]:
    """Write `out`/clean/<name> for every set, and `out`/removed.jsonl: what was removed and for which items.

    `keep_short` keeps rows that contain short items only. Raises DataError for a set that could not be read in full,
    because the rows that were not compared could be neither kept nor removed, and UsageError where a copy would replace
    training data. Nothing is written in either case.
    """
    targets = _targets(sets, out)
    for set_parts in sets:
        if wrong := problems(set_parts):
            name = set_parts.train.name
            raise DataError(f"--train {name} could not be read in full, so no clean copy was written: {wrong[0]}")
    copied: list[Cleaned] = []
    log = out / f".{REMOVED}.{os.getpid()}.part"
    with storage(log):
        out.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as handle:
            for set_parts, target in zip(sets, targets, strict=True):
                copied.append(_clean_set(set_parts, index, target, out, handle, keep_short=keep_short))
        log.replace(out / REMOVED)
    return copied


def _targets(sets: Sequence[SetParts], out: Path) -> list[Path]:
    """Choose the path of each set's copy, different from all others. Raises UsageError for a path of training data."""
    names = [_name(set_parts.train.root) for set_parts in sets]
    chosen: list[str] = []
    for name in names:
        free, number = name, 1
        while free in chosen or (number > 1 and free in names):
            number += 1
            free = f"{number}-{name}"
        chosen.append(free)
    targets = [out / CLEAN / name for name in chosen]
    data = {file.resolve() for set_parts in sets for file in set_parts.train.files}
    for target in targets:
        place = target.resolve()
        if any(file == place or place in file.parents for file in data):
            raise UsageError(f"--out {out}: the clean copy {target} would replace training data; name another folder")
    return targets


def _name(root: Path) -> str:
    return (root.name if root.name not in ("", "..") else root.resolve().name) or "train"


def _clean_set(set_parts: SetParts, index: Index, target: Path, out: Path, log: TextIO, *, keep_short: bool) -> Cleaned:
    matched = matched_rows(set_parts, index, keep_short)
    before, rows = 0, 0
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    _forget(partial)
    root = set_parts.train.root
    single = root.is_file()
    removed: dict[str, list[int]] = {}
    remaining: dict[str, int] = {}
    for file in set_parts.train.files:
        blocks = [(block, part) for block, part in set_parts.parts if block.path == file]
        count = sum(part.rows for _, part in blocks)
        drop = {row - before for row in matched if before <= row < before + count}
        inside = str(file.relative_to(root))
        removed[inside], remaining[inside] = sorted(drop), count - len(drop)
        place = partial if single else partial / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        copies.write(blocks[0][0], place, drop)
        for row in sorted(drop):
            log.write(_line(set_parts, file, row, row + before, matched[row + before]))
        before += count
        rows += count
    if not single:
        _copy_rest(set_parts, partial, out)
        renewed.renew(partial, removed, remaining)
    _forget(target)
    partial.rename(target)
    return Cleaned(set_parts.train.name, target, rows - len(matched), len(matched))


def matched_rows(set_parts: SetParts, index: Index, keep_short: bool = False) -> dict[int, list[dict[str, Any]]]:
    """Map each row of the set that is removed to the items it matches."""
    out: dict[int, list[dict[str, Any]]] = {}
    for table in pairs.read_blocks(places(set_parts)):
        for pair in table.select(["train_row", "item", "kind", "coverage"]).to_pylist():
            if pair["kind"] == "ngram" or (pair["kind"] == "short" and not keep_short):
                item = pair["item"]
                why = {"task": index.task_of(item), "doc_id": index.doc_ids[item]}
                out.setdefault(pair["train_row"], []).append(why | {"kind": pair["kind"], "coverage": pair["coverage"]})
    return out


def _line(set_parts: SetParts, file: Path, row: int, train_row: int, matches: list[dict[str, Any]]) -> str:
    entry = {
        "train": set_parts.train.name,
        "file": str(file),
        "file_row": row,
        "train_row": train_row,
        "matches": matches,
    }
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _forget(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _copy_rest(set_parts: SetParts, target: Path, out: Path) -> None:
    """Copy the folder's other files, such as cards and descriptions, but no cache of results made from its rows."""
    data_files = set(set_parts.train.files)
    if any(sign in set_parts.train.name for sign in "*?["):
        return
    root = set_parts.train.root
    for path in sorted(root.rglob("*")):
        place = target / path.relative_to(root)
        if path.is_file() and path not in data_files and not hidden(path, root, out) and not is_cache(path):
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
