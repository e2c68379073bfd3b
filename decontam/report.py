"""The report: what every training set shares with every evaluation, and the verdict of the paper's policy."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from decontam.matching import pairs
from decontam.matching.index import Index
from decontam.matching.verify import KINDS, NEAR, NGRAM, SHARED, SHORT
from decontam.scan import WORST, SetParts, Settings
from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import read_json, storage, write_json, write_text

SCHEMA = "1.0"
REPORT, PAIRS, FLAGS, PAGE = "report.json", "pairs.parquet", "flags.json", "report.html"
SHORT_FLAGS = "flags_short.json"
"""The entries of FLAGS that are due to short matches alone."""
CANDIDATES = "candidates.parquet"
"""The result of an embedding search (`--embed`)."""


@dataclass(frozen=True, slots=True)
class _Items:
    """Which items of the index a set matches, by kind of match: bool[items] each."""

    kinds: NDArray[np.bool_]
    """[KINDS, items]."""
    paper: NDArray[np.bool_]
    """The items that the paper's rule hits."""

    @classmethod
    def of(cls, tables: Iterable[pa.Table], items: int) -> _Items:
        """Mark the items of a set's pairs."""
        found = cls(np.zeros((len(KINDS), items), np.bool_), np.zeros(items, np.bool_))
        for table in tables:
            item = np.asarray(table["item"])
            found.paper[item[np.asarray(table["paper"])]] = True
            for kind, name in enumerate(KINDS):
                found.kinds[kind, item[np.asarray(pc.equal(table["kind"], name))]] = True
        return found

    @property
    def flagged(self) -> NDArray[np.bool_]:
        """The items that a checkpoint's lineage flags."""
        return np.asarray(self.kinds[NGRAM] | self.kinds[SHORT])

    def counts(self, items: slice) -> dict[str, int]:
        """Count the items of a range, each under what weighs most: a hit, a short match, one that decides nothing."""
        part = self.kinds[:, items]
        decided = part[NGRAM] | part[SHORT]
        return {
            "hit": int(part[NGRAM].sum()), "short_hit": int(part[SHORT].sum()),
            "shared_hit": int((part[SHARED] & ~decided).sum()),
            "near_hit": int((part[NEAR] & ~part[SHARED] & ~decided).sum()),
            "paper_hit": int(self.paper[items].sum()),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """A finished report and the folder of its files."""

    folder: Path
    data: dict[str, Any]

    @property
    def contaminated(self) -> bool:
        """Whether any set is over the rule's share of any evaluation."""
        return any(entry["contaminated"] for entry in self.data["sets"])

    @property
    def exit_code(self) -> int:
        """0: clean; 1: contaminated; 2: not contaminated as far as the data could be read."""
        return 1 if self.contaminated else 2 if self.data["problems"] else 0


def read(folder: Path) -> Report:
    """Read the report of an earlier scan. Raises UsageError where there is none, DataError for one that is damaged."""
    if not (folder / REPORT).is_file():
        raise UsageError(f"--out {folder}: there is no report in this folder; add --train to scan first")
    data = read_json(folder / REPORT)
    if not isinstance(data, dict) or str(data.get("schema", "")).split(".")[0] != SCHEMA.split(".")[0]:
        raise DataError(f"{folder / REPORT}: not a report of this version")
    return Report(folder, data)


def read_flags(folder: Path, *, short: bool = False) -> dict[str, list[int | str]]:
    """Map each task to the doc_ids of the items that any set contains; `short`: only items that match as short ones."""
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
            for set_parts in sets:
                found = _Items.of(_written(set_parts, index, whole, writer), index.items)
                entries += _entries(set_parts, index, settings, found)
                flagged |= found.flagged
                by_ngram |= found.kinds[NGRAM]
        partial.replace(out / PAIRS)
        (out / CANDIDATES).unlink(missing_ok=True)
    rule, trains = settings.rule, [_about(set_parts) for set_parts in sets]
    data = {
        "schema": SCHEMA, "rule": rule.variant, "n": rule.n, "threshold": rule.threshold, "stride": rule.stride,
        "share": rule.share, "roles": list(settings.roles), "sets": entries, "missing": index.missing,
        "trains": trains,
        "problems": [problem for set_parts in sets for problem in problems(set_parts)],
    }  # fmt: skip
    for about in trains:
        about["matches"] = _matches([entry for entry in entries if entry["train"] == about["train"]])
    write_json(out / FLAGS, flags(index, flagged))
    write_json(out / SHORT_FLAGS, flags(index, flagged & ~by_ngram))
    write_json(out / REPORT, data)
    report = Report(out, data)
    write_page(report)
    return report


def places(set_parts: SetParts) -> list[tuple[int, Path]]:
    """List (rows before the block, file of its pairs) for the blocks of a set."""
    befores = np.cumsum([0, *(part.rows for _, part in set_parts.parts)]).tolist()
    return [(before, part.pairs) for before, (_, part) in zip(befores, set_parts.parts, strict=False)]


def _written(set_parts: SetParts, index: Index, whole: bool, writer: pq.ParquetWriter) -> Iterator[pa.Table]:
    """Write the pairs of a set, and pass them on."""
    for table in pairs.read_blocks(places(set_parts)):
        writer.write_table(pairs.named(table, set_parts.train.name, index, whole))
        yield table


def _matches(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Sum up a set's items. `own_share`: of the items that the paper's rule hits, the share of hits; None without."""
    counts = {name: sum(entry[name] for entry in entries) for name in ("hit", "shared_hit", "near_hit", "paper_hit")}
    both = sum(entry["paper_and_hit"] for entry in entries)
    return counts | {"own_share": both / counts["paper_hit"] if counts["paper_hit"] else None}


def _entries(set_parts: SetParts, index: Index, settings: Settings, found: _Items) -> list[dict[str, Any]]:
    rows = sum(part.rows for _, part in set_parts.parts)
    worst = _worst(set_parts, index)
    out = []
    for evaluation in index.evaluations:
        items = slice(evaluation["first"], evaluation["end"])
        instances, counts = evaluation["end"] - evaluation["first"], found.counts(items)
        hits, apart = counts["hit"], counts["shared_hit"] + counts["near_hit"]
        contaminated = instances > 0 and hits / instances > settings.rule.share
        out.append({
            "train": set_parts.train.name, "rows": rows, "task": evaluation["name"], "instances": instances,
            **counts, "paper_and_hit": int((found.paper & found.kinds[NGRAM])[items].sum()),
            "percent": 100 * hits / instances if instances else 0.0,
            "contaminated": contaminated, "unseen": evaluation["unseen"],
            "verdict": verdict(contaminated, hits, evaluation["unseen"], counts["short_hit"] > 0, apart > 0),
            "tasks": _by_leaf(index, items, found), "worst": worst.get(evaluation["name"], []),
        })  # fmt: skip
    return out


def verdict(contaminated: bool, hits: int, unseen: bool, short: bool = False, apart: bool = False) -> str:
    """State what the paper's policy requires: drop a set that touches `unseen`, drop or filter other sets.

    Short matches, and those that decide nothing, do not count towards the share; where a set has no other matches, the
    verdict says so.
    """
    if contaminated:
        return "drop the set" if unseen else "drop the set, or filter it"
    return "below the limit" if hits else "short matches only" if short else "shared text only" if apart else "clean"


def _by_leaf(index: Index, items: slice, found: _Items) -> dict[str, dict[str, int]]:
    """Count the matches of each sub-task that has any, where the evaluation has sub-tasks."""
    bounds = [*(first for _, first in index.leaves), index.items]
    inside = [(name, i) for i, (name, first) in enumerate(index.leaves) if items.start <= first < items.stop]
    if len(inside) < 2:
        return {}
    matching = {}
    for name, i in inside:
        part = slice(bounds[i], bounds[i + 1])
        if found.kinds[:, part].any():
            matching[name] = {"instances": part.stop - part.start, **found.counts(part)}
    return matching


def _worst(set_parts: SetParts, index: Index) -> dict[str, list[dict[str, Any]]]:
    """Select a set's worst pairs for each evaluation, with rows counted over the whole set."""
    everything = []
    for (before, _), (_, part) in zip(places(set_parts), set_parts.parts, strict=True):
        everything += [{**entry, "train_row": entry["train_row"] + before} for entry in part.worst]
    everything.sort(key=lambda e: (KINDS.index(e["kind"]), -e["coverage"], e["train_row"], e["item"]))
    out: dict[str, list[dict[str, Any]]] = {}
    for entry in everything:
        entries = out.setdefault(entry["evaluation"], [])
        if len(entries) < WORST:
            item = entry["item"]
            named = {"task": index.task_of(item), "doc_id": index.doc_ids[item]}
            entries.append(named | {k: v for k, v in entry.items() if k not in ("evaluation", "item")})
    return out


def _about(set_parts: SetParts) -> dict[str, Any]:
    """Describe how a set was read: rows, forms, bytes of compared text, files."""
    forms = list(dict.fromkeys(form for _, part in set_parts.parts for form in part.forms))
    return {
        "train": set_parts.train.name, "rows": sum(part.rows for _, part in set_parts.parts), "forms": forms,
        "bytes": sum(part.bytes for _, part in set_parts.parts), "files": len(set_parts.train.files),
    }  # fmt: skip


def problems(set_parts: SetParts) -> list[str]:
    """Write one line, naming file and row, for everything in a set that could not be read."""
    lines = list(set_parts.unreadable)
    before: dict[Path, int] = {}
    for block, part in set_parts.parts:
        start = before.get(block.path, 0)
        for row, why in part.problems:
            lines.append(f"{block.path}, row {start + (part.rows if row is None else row)}: {why}")
        before[block.path] = start + part.rows
    if lines:
        return lines
    if not sum(part.rows for _, part in set_parts.parts):
        return [f"{set_parts.train.root}, row 0: the set has no rows"]
    if not sum(part.bytes for _, part in set_parts.parts):
        return [f"{set_parts.train.root}, row 0: none of its text was compared; name the roles of its turns: --roles"]
    return []


def flags(index: Index, flagged: NDArray[np.bool_]) -> dict[str, list[int | str]]:
    """Map each task to the doc_ids of its flagged items, as a checkpoint's lineage stores them.

    Variants of a task that use the same rows are flagged too.
    """
    out: dict[str, list[int | str]] = {}
    for item in np.flatnonzero(flagged).tolist():
        task = index.task_of(item)
        for name in index.same.get(task, [task]):
            out.setdefault(name, []).append(index.doc_ids[item])
    return out


def write_page(report: Report) -> None:
    """Write the HTML page: one file that loads nothing."""
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    data = json.dumps(report.data, ensure_ascii=False).replace("<", "\\u003c").replace("\u2028", "\\u2028")
    write_text(report.folder / PAGE, template.replace("{{data}}", data.replace("\u2029", "\\u2029"), 1))
