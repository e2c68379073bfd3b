"""The index of the selected evaluations: from the cache where their texts have not changed, otherwise built."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decontam.items import items, own_file
from decontam.items.items import Item, Selection
from decontam.matching.index import SCHEMA, Index, build, load
from decontam.matching.rule import Rule
from decontam.text import tokens
from olmes_suite.files import cache_folder
from olmes_suite.records import canonical_json, sha256
from olmes_suite.tasks.documents import DataSource


@dataclass(frozen=True, slots=True)
class Prepared:
    """An index and the folder from which worker processes load it."""

    index: Index
    folder: Path
    cached: bool


def of_suites(selection: Selection, source: DataSource, rule: Rule) -> Prepared:
    """Load or build the index of tasks' evaluations. Raises NothingToScan without data, DataError for wrong data."""
    stamp = items.signature(selection, source)
    if stamp is None:
        return _built(*items.read(selection, source), rule, None)
    folder = _folder(stamp, rule)
    loaded = load(folder)
    if loaded is not None:
        return Prepared(loaded, folder, True)
    return _built(*items.read(selection, source), rule, folder)


def of_file(path: Path, rule: Rule) -> Prepared:
    """Build the index of the evaluations in a user's file. Raises UsageError and DataError for the file."""
    selection, groups = own_file.of_file(path)
    return _built(selection, groups, rule, None)


def _built(selection: Selection, groups: Sequence[Sequence[Item]], rule: Rule, folder: Path | None) -> Prepared:
    leaves = [leaf for evaluation in selection.evaluations for leaf in evaluation.leaves]
    about = [{"name": e.name, "unseen": e.unseen} for e in selection.evaluations]
    missing = [{"task": name, "error": why} for name, why in selection.missing]
    same = items.siblings(leaves) if leaves else {}
    index = build(list(zip(about, groups, strict=True)), rule, _key(about, groups, rule), missing, same)
    target = folder or _folder(index.key + sha256(canonical_json([about, missing, same])), rule)
    index.save(target)
    return Prepared(load(target) or index, target, False)


def _folder(stamp: str, rule: Rule) -> Path:
    key = sha256(canonical_json([SCHEMA, tokens.VERSION, stamp, rule.n, rule.stride, rule.short, rule.variant]))
    return cache_folder() / "decontam" / key[:32]


def _key(about: Sequence[dict[str, Any]], groups: Sequence[Sequence[Item]], rule: Rule) -> str:
    """Hash all texts and names, the content that results depend on (SHA-256)."""
    digest = hashlib.sha256(
        canonical_json([SCHEMA, tokens.VERSION, rule.n, rule.stride, rule.short, rule.variant]).encode()
    )
    for evaluation, group in zip(about, groups, strict=True):
        digest.update(canonical_json(evaluation).encode())
        for item in group:
            value: list[Any] = [item.task, item.doc_id, *item.parts]
            digest.update(repr(value).encode("utf-8", "backslashreplace"))
    return digest.hexdigest()
