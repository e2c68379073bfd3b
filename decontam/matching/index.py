"""The index of the evaluations: the hash and the places of every n-gram, and the items' texts and tokens.

The index is a folder of arrays that worker processes map into memory, so that all of them share one copy.
"""

from __future__ import annotations

import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.items.items import Item
from decontam.matching import gram_arrays
from decontam.matching.rule import Rule
from decontam.text import tokens, vocabulary

SCHEMA = 3
_NEVER = np.iinfo(np.int32).max


_ARRAYS: dict[str, Any] = {
    "tokens": np.int32, "item_of": np.int32, "token_starts": np.int32, "token_ends": np.int32, "item_tokens": np.int64,
    "short": np.bool_, "part_items": np.int64, "part_tokens": np.int64, "part_fields": np.int32, "text_ends": np.int64,
    "text": np.uint8, "codes": np.uint32, "code_ends": np.int64, "keys": np.uint64,
    "offsets": np.int32, "postings": np.int32, "gram_lengths": np.int32, "buckets": np.int32, "bits": np.uint64,
    "part_bits": np.uint64, "short_bits": np.uint64, "short_tails": np.uint64, "short_lengths": np.int64,
    "table": np.uint32, "expansions": np.uint32, "normalized_table": np.uint32, "normalized_expansions": np.uint32,
}  # fmt: skip
"""tokens: ids of all tokens of all items; item_of: their items; token_starts, token_ends: their code points in their
field; item_tokens, part_tokens: where each item, each field begins (one more at the end); short: items without a field
of n tokens; part_items: where each item's fields begin; codes, code_ends: the vocabulary; keys: the grams' hashes,
sorted; offsets: where a gram's postings begin; buckets, bits, part_bits, short_bits, short_tails: look-up tables of the
keys (`decontam.matching.gram_arrays`); table, expansions: see `decontam.text.tokens.character_table`."""


@dataclass(frozen=True)
class Index:
    """The arrays of an index, and the names of its items."""

    n: int
    fields: tuple[str, ...]
    """Names of the fields, which part_fields numbers."""
    leaves: tuple[tuple[str, int], ...]
    """(task, first item), in order."""
    evaluations: tuple[dict[str, Any], ...]
    """{"name", "unseen", "first", "end"}: the items of each evaluation."""
    doc_ids: list[int | str]
    arrays: dict[str, NDArray[Any]]
    key: str = ""
    """The hash of the content: texts, names and rule."""
    missing: list[dict[str, str]] = field(default_factory=list)
    """{"task", "error"}: selected evaluations that are not in the index."""
    same: dict[str, list[str]] = field(default_factory=dict)
    """Leaf task to the variants with the same rows."""

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.doc_ids)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of every item."""
        return np.diff(self.arrays["item_tokens"])

    def needed(self, threshold: float) -> NDArray[np.int32]:
        """Compute the smallest number of matched tokens that is a hit, for every item: int32[items]."""
        length = self.lengths
        least = np.maximum(np.floor(length * threshold).astype(np.int64) - 1, 0)
        for _ in range(3):  # the product may be rounded up or down; the rule is matched / tokens > threshold
            least = np.where(least / np.maximum(length, 1) > threshold, least, least + 1)
        least = np.where(self.arrays["short"], length, least)
        return np.where(length == 0, _NEVER, np.maximum(least, 1)).astype(np.int32)

    def task_of(self, item: int) -> str:
        """Return the leaf task of an item."""
        return self.leaves[bisect_right(self._firsts, item) - 1][0]

    @cached_property
    def _firsts(self) -> list[int]:
        return [first for _, first in self.leaves]

    def parts_of(self, item: int) -> list[tuple[str, str]]:
        """List (field, original text) of an item."""
        arrays = self.arrays
        texts = []
        for part in range(int(arrays["part_items"][item]), int(arrays["part_items"][item + 1])):
            start = int(arrays["text_ends"][part - 1]) if part else 0
            raw = arrays["text"][start : int(arrays["text_ends"][part])].tobytes()
            texts.append((self.fields[arrays["part_fields"][part]], raw.decode("utf-8", "surrogatepass")))
        return texts

    @property
    def nbytes(self) -> int:
        """The size of all arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    def save(self, folder: Path) -> None:
        """Write the folder atomically."""
        part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for name, array in self.arrays.items():
            np.save(part / f"{name}.npy", array)
        meta = {
            "schema": SCHEMA, "n": self.n, "fields": self.fields, "leaves": self.leaves,
            "evaluations": self.evaluations, "doc_ids": self.doc_ids, "key": self.key,
            "missing": self.missing, "same": self.same,
        }  # fmt: skip
        (part / "index.json").write_text(json.dumps(meta, ensure_ascii=True), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(part)
        else:
            part.rename(folder)


def load(folder: Path) -> Index | None:
    """Load the index of a folder, with its arrays mapped into memory; None where there is no readable index."""
    try:
        meta = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if meta["schema"] != SCHEMA:
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
    except (OSError, ValueError, KeyError):
        return None
    return Index(
        meta["n"], tuple(meta["fields"]), tuple((task, first) for task, first in meta["leaves"]),
        tuple(meta["evaluations"]), meta["doc_ids"], arrays, meta["key"], meta["missing"], meta["same"],
    )  # fmt: skip


def build(
    groups: Sequence[tuple[dict[str, Any], Sequence[Item]]], rule: Rule, key: str = "",
    missing: Sequence[dict[str, str]] = (), same: dict[str, list[str]] | None = None,
) -> Index:  # fmt: skip
    """Build the index of the evaluations' items; a group is ({"name", "unseen", …}, items)."""
    builder = _Builder()
    evaluations = []
    for about, group in groups:
        first = len(builder.doc_ids)
        for item in group:
            builder.add(item)
        evaluations.append({**about, "first": first, "end": len(builder.doc_ids)})
    arrays = builder.arrays(rule)
    return Index(
        rule.n, tuple(builder.fields), tuple(builder.leaves), tuple(evaluations), builder.doc_ids, arrays, key,
        list(missing), same or {},
    )  # fmt: skip


class _Builder:
    """Collects items; a text that several items share is tokenised once."""

    def __init__(self) -> None:
        self.doc_ids: list[int | str] = []
        self.leaves: list[tuple[str, int]] = []
        self.fields: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._part_texts: list[int] = []
        self._parts: list[int] = [0]
        self._part_fields: list[int] = []
        self._texts: list[bytes] = []

    def add(self, item: Item) -> None:
        """Append one item."""
        if not self.leaves or self.leaves[-1][0] != item.task:
            self.leaves.append((item.task, len(self.doc_ids)))
        self.doc_ids.append(item.doc_id)
        for name, text in item.parts:
            self._part_fields.append(self.fields.setdefault(name, len(self.fields)))
            self._texts.append(text.encode("utf-8", "surrogatepass"))
            self._part_texts.append(self._known.setdefault(text, len(self._known)))
        self._parts.append(len(self._part_texts))

    def arrays(self, rule: Rule) -> dict[str, NDArray[Any]]:
        """Build all arrays of the index."""
        chars = tokens.character_table(normalized=False)
        words = vocabulary.read(list(self._known), chars)
        borders = words.borders[np.array(self._part_texts, dtype=np.int64)]
        sizes = borders[:, 1] - borders[:, 0]
        begins = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        part_items = np.array(self._parts, dtype=np.int64)
        owner = np.repeat(np.arange(len(self.doc_ids)), np.diff(part_items))
        longest = np.zeros(len(self.doc_ids), dtype=np.int64)
        np.maximum.at(longest, owner, sizes)
        short = longest < rule.n
        stream = np.repeat(borders[:, 0] - begins[:-1], sizes) + np.arange(begins[-1])
        spans = words.places[stream]
        arrays: dict[str, NDArray[Any]] = {
            "tokens": words.numbers[stream], "codes": words.codes, "code_ends": words.code_ends,
            "item_of": np.repeat(owner, sizes),
            "token_starts": spans[:, 0], "token_ends": spans[:, 1], "item_tokens": begins[part_items],
            "part_tokens": begins, "short": short, "part_items": part_items,
            "part_fields": np.array(self._part_fields), "text_ends": np.cumsum([len(text) for text in self._texts]),
            "text": np.frombuffer(b"".join(self._texts), dtype=np.uint8),
        }  # fmt: skip
        starts, lengths = gram_arrays.grams(begins, sizes, short[owner], rule)
        arrays |= gram_arrays.arrays(arrays, starts, lengths, rule.n)
        arrays["table"], arrays["expansions"] = chars
        arrays["normalized_table"], arrays["normalized_expansions"] = tokens.character_table(normalized=True)
        return {name: np.ascontiguousarray(arrays[name], dtype=kind) for name, kind in _ARRAYS.items()}
