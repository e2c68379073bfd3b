"""The report: what every training set shares with every evaluation, and the verdict of the paper's policy."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from decontam.matching import pairs
from decontam.matching.index import Index
from decontam.scan import WORST, SetParts, Settings
from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import read_json, storage, write_json, write_text

SCHEMA = "1.0"
REPORT, PAIRS, FLAGS, PAGE = "report.json", "pairs.parquet", "flags.json", "report.html"
SHORT_FLAGS = "flags_short.json"
"""The part of FLAGS that short matches alone are the reason for."""
CANDIDATES = "candidates.parquet"
"""Of an embedding search, where one was asked for."""


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report, and where its files lie."""

    folder: Path
    data: dict[str, Any]

    @property
    def contaminated(self) -> bool:
        """Any set with any evaluation over the rule's share."""
        return any(entry["contaminated"] for entry in self.data["sets"])

    @property
    def exit_code(self) -> int:
        """0 clean, 1 contaminated, 2 not contaminated as far as it could be read."""
        return 1 if self.contaminated else 2 if self.data["problems"] else 0


def read(folder: Path) -> Report:
    """The report of an earlier scan. Raises UsageError where there is none, DataError for one that is damaged."""
    if not (folder / REPORT).is_file():
        raise UsageError(f"--out {folder}: no report there; give --train to scan first")
    data = read_json(folder / REPORT)
    if not isinstance(data, dict) or str(data.get("schema", "")).split(".")[0] != SCHEMA.split(".")[0]:
        raise DataError(f"{folder / REPORT}: not a report of this version")
    return Report(folder, data)


def read_flags(folder: Path, *, short: bool = False) -> dict[str, list[int | str]]:
    """Task to the doc_ids of the items that any set of the report holds; `short`: of those, the short matches alone."""
    return dict(read_json(folder / (SHORT_FLAGS if short else FLAGS)))


def write(sets: Sequence[SetParts], index: Index, settings: Settings, out: Path) -> Report:
    """Write report.json, pairs.parquet, flags.json and the page."""
    whole = all(isinstance(doc_id, int) for doc_id in index.doc_ids)
    entries: list[dict[str, Any]] = []
    flagged, by_ngram = np.zeros(index.items, dtype=np.bool_), np.zeros(index.items, dtype=np.bool_)
    partial = out / f".{PAIRS}.{os.getpid()}.part"
    with storage(partial):
        out.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(partial, pairs.schema(whole)) as writer:
            for found in sets:
                hit, short = np.zeros(index.items, np.bool_), np.zeros(index.items, np.bool_)
                for table in pairs.read_blocks(places(found)):
                    writer.write_table(pairs.named(table, found.train.name, index, whole))
                    _mark(table, hit, short)
                entries += _entries(found, index, settings, hit, short)
                flagged |= hit | short
                by_ngram |= hit
        partial.replace(out / PAIRS)
        (out / CANDIDATES).unlink(missing_ok=True)
    rule = settings.rule
    data = {
        "schema": SCHEMA, "n": rule.n, "threshold": rule.threshold, "stride": rule.stride, "share": rule.share,
        "roles": list(settings.roles), "sets": entries, "missing": index.missing,
        "trains": [_about(found) for found in sets],
        "problems": [problem for found in sets for problem in problems(found)],
    }  # fmt: skip
    write_json(out / FLAGS, flags(index, flagged))
    write_json(out / SHORT_FLAGS, flags(index, flagged & ~by_ngram))
    write_json(out / REPORT, data)
    report = Report(out, data)
    write_page(report)
    return report


def places(found: SetParts) -> list[tuple[int, Path]]:
    """(rows before the block, its pairs) of a set's blocks."""
    befores = np.cumsum([0, *(part.rows for _, part in found.parts)]).tolist()
    return [(before, part.pairs) for before, (_, part) in zip(befores, found.parts, strict=False)]


def _mark(table: Any, hit: NDArray[np.bool_], short: NDArray[np.bool_]) -> None:
    is_short = pc.equal(table["kind"], "short")
    short[np.asarray(table.filter(is_short)["item"])] = True
    hit[np.asarray(table.filter(pc.invert(is_short))["item"])] = True


def _entries(
    found: SetParts, index: Index, settings: Settings, hit: NDArray[np.bool_], short: NDArray[np.bool_]
) -> list[dict[str, Any]]:
    rows = sum(part.rows for _, part in found.parts)
    worst = _worst(found, index)
    out = []
    for evaluation in index.evaluations:
        own = slice(evaluation["first"], evaluation["end"])
        instances, hits = evaluation["end"] - evaluation["first"], int(hit[own].sum())
        contaminated = instances > 0 and hits / instances > settings.rule.share
        out.append({
            "train": found.train.name, "rows": rows, "task": evaluation["name"], "instances": instances, "hit": hits,
            "short_hit": int(short[own].sum()), "percent": 100 * hits / instances if instances else 0.0,
            "contaminated": contaminated, "unseen": evaluation["unseen"],
            "verdict": verdict(contaminated, hits, evaluation["unseen"], bool(short[own].any())),
            "tasks": _by_leaf(index, own, hit, short), "worst": worst.get(evaluation["name"], []),
        })  # fmt: skip
    return out


def verdict(contaminated: bool, hits: int, unseen: bool, short: bool = False) -> str:
    """What the paper's policy asks for: the set is dropped where it touches `unseen`, dropped or filtered elsewhere.

    Short matches are no part of its share: where there are no others, the verdict says so.
    """
    if contaminated:
        return "drop the set" if unseen else "drop the set, or filter it"
    return "below the limit" if hits else "short matches only" if short else "clean"


def _by_leaf(index: Index, own: slice, hit: NDArray[np.bool_], short: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    """The sub-tasks that have a match, where the evaluation has sub-tasks."""
    bounds = [*(first for _, first in index.leaves), index.items]
    inside = [(name, i) for i, (name, first) in enumerate(index.leaves) if own.start <= first < own.stop]
    if len(inside) < 2:
        return {}
    found = {}
    for name, i in inside:
        part = slice(bounds[i], bounds[i + 1])
        if hit[part].any() or short[part].any():
            found[name] = {
                "instances": part.stop - part.start, "hit": int(hit[part].sum()), "short_hit": int(short[part].sum()),
            }  # fmt: skip
    return found


def _worst(found: SetParts, index: Index) -> dict[str, list[dict[str, Any]]]:
    """The worst pairs of a set by evaluation, rows counted over the set, an item once."""
    everything = []
    for (before, _), (_, part) in zip(places(found), found.parts, strict=True):
        everything += [{**entry, "train_row": entry["train_row"] + before} for entry in part.worst]
    everything.sort(key=lambda e: (e["kind"] != "ngram", -e["coverage"], e["train_row"], e["item"]))
    out: dict[str, list[dict[str, Any]]] = {}
    for entry in everything:
        kept = out.setdefault(entry["evaluation"], [])
        if len(kept) < WORST:
            item = entry["item"]
            named = {"task": index.task_of(item), "doc_id": index.doc_ids[item]}
            kept.append(named | {k: v for k, v in entry.items() if k not in ("evaluation", "item")})
    return out


def _about(found: SetParts) -> dict[str, Any]:
    """A set as it was read."""
    forms = list(dict.fromkeys(form for _, part in found.parts for form in part.forms))
    return {
        "train": found.train.name, "rows": sum(part.rows for _, part in found.parts), "forms": forms,
        "bytes": sum(part.bytes for _, part in found.parts), "files": len(found.train.files),
    }  # fmt: skip


def problems(found: SetParts) -> list[str]:
    """One line, naming file and row, for everything of a set that could not be read."""
    lines = list(found.unreadable)
    before: dict[Path, int] = {}
    for block, part in found.parts:
        start = before.get(block.path, 0)
        for row, why in part.problems:
            lines.append(f"{block.path}, row {start + (part.rows if row is None else row)}: {why}")
        before[block.path] = start + part.rows
    if lines:
        return lines
    if not sum(part.rows for _, part in found.parts):
        return [f"{found.train.root}, row 0: the set has no rows"]
    if not sum(part.bytes for _, part in found.parts):
        return [f"{found.train.root}, row 0: none of its text was compared; --roles says whose turns are"]
    return []


def flags(index: Index, flagged: NDArray[np.bool_]) -> dict[str, list[int | str]]:
    """Task to the doc_ids of its flagged items, as a checkpoint's lineage holds them.

    Variants of a task that ask about the same rows are flagged with it.
    """
    out: dict[str, list[int | str]] = {}
    for item in np.flatnonzero(flagged).tolist():
        task = index.task_of(item)
        for name in index.same.get(task, [task]):
            out.setdefault(name, []).append(index.doc_ids[item])
    return out


def write_page(report: Report) -> None:
    """Write the HTML page: one file, nothing fetched."""
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    data = json.dumps(report.data, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    write_text(report.folder / PAGE, template.replace("{{data}}", data.replace("\u2029", "\\u2029"), 1))
