"""The index of the evaluations: the hash and the places of every n-gram, and the items' texts and tokens.

The index is a folder of arrays that worker processes map into memory, so that all of them share one copy.
"""

from __future__ import annotations

import errno
import json
import shutil
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decontam.items.items import Item
from decontam.matching import gram_arrays, own_text
from decontam.matching.rule import Rule
from decontam.text import hashing, tokens, vocabulary
from olmes_suite.files import remove_leftovers, storage

SCHEMA = 5
_NEVER = np.iinfo(np.int32).max


_ARRAYS: dict[str, Any] = {
    "tokens": np.int32, "item_of": np.int32, "token_starts": np.int32, "token_ends": np.int32, "item_tokens": np.int64,
    "short": np.bool_, "part_items": np.int64, "part_tokens": np.int64, "part_fields": np.int32, "text_ends": np.int64,
    "text": np.uint8, "codes": np.uint32, "code_ends": np.int64, "keys": np.uint64,
    "offsets": np.int32, "postings": np.int32, "gram_lengths": np.int32, "buckets": np.int32, "bits": np.uint64,
    "part_bits": np.uint64, "short_bits": np.uint64, "short_tails": np.uint64, "short_lengths": np.int64,
    "table": np.uint32, "expansions": np.uint32, "normalized_table": np.uint32, "normalized_expansions": np.uint32,
    "own": np.bool_, "rare": np.bool_, "context": np.bool_, "whole": np.bool_,
    "unique": np.int32, "by_symbols": np.bool_, "parents": np.int64,
}  # fmt: skip
"""tokens: ids of all tokens of all items; item_of: their items; token_starts, token_ends: their code points in their
field; item_tokens, part_tokens: where each item, each field begins (one more at the end); short: items without a field
of n tokens; part_items: where each item's fields begin; codes, code_ends: the vocabulary; keys: the grams' hashes,
sorted; offsets: where a gram's postings begin; buckets, bits, part_bits, short_bits, short_tails: look-up tables of the
keys (`decontam.matching.gram_arrays`); table, expansions: see `decontam.text.tokens.character_table`; own: the tokens
that count towards a hit; rare, context: see `decontam.matching.own_text`; whole: items all of whose `own` tokens must
match; unique: how many tokens of an item are its own before more are let count (`own_text.settle`); by_symbols: items
that the index `symbols` decides about; parents: in that index, the items of this one."""
_SYMBOLS = "symbols"
"""The folder of the index `symbols` within that of its index."""
MANY_SYMBOLS = 0.2
"""Share of a task's items that only symbols tell apart, from which on symbols decide about all of the task."""


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
    symbols: Index | None = None
    """The items that only their symbols, such as brackets, tell apart. Symbols are tokens in it."""

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.doc_ids)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """The number of tokens of every item."""
        return np.diff(self.arrays["item_tokens"])

    @cached_property
    def own_lengths(self) -> NDArray[np.int64]:
        """The number of own tokens of every item."""
        return own_text.per_item(self.arrays["own"], self.arrays["item_tokens"])

    def needed(self, threshold: float) -> NDArray[np.int32]:
        """Compute the smallest number of matched tokens that is a hit by the paper's rule: int32[items]."""
        length = self.lengths
        least = np.where(self.arrays["short"], length, _more_than(threshold, length))
        return np.where(length == 0, _NEVER, least).astype(np.int32)

    def needed_own(self, threshold: float) -> NDArray[np.int32]:
        """Compute the smallest number of matched own tokens that is a hit: int32[items].

        Items that the index `symbols` decides about are never hit here.
        """
        arrays, length = self.arrays, self.own_lengths
        least = np.where(arrays["short"] | arrays["whole"], length, _more_than(threshold, length))
        return np.where((length == 0) | arrays["by_symbols"], _NEVER, least).astype(np.int32)

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
        """Write the folder atomically. Raises StorageError."""
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
        with storage(folder):
            remove_leftovers(folder.parent, ".*.part")
            try:
                self._write(part)
                _place(part, folder)
            except OSError as error:  # NumPy says how many bytes were written, without a number of the error
                raise error if error.errno else OSError(errno.ENOSPC, str(error)) from None
            finally:
                shutil.rmtree(part, ignore_errors=True)

    def _write(self, part: Path) -> None:
        part.mkdir(parents=True)
        for name, array in self.arrays.items():
            np.save(part / f"{name}.npy", array)
        if self.symbols is not None:
            self.symbols._write(part / _SYMBOLS)
        meta = {
            "schema": SCHEMA, "n": self.n, "fields": self.fields, "leaves": self.leaves,
            "evaluations": self.evaluations, "doc_ids": self.doc_ids, "key": self.key,
            "missing": self.missing, "same": self.same, "symbols": self.symbols is not None,
        }  # fmt: skip
        (part / "index.json").write_text(json.dumps(meta, ensure_ascii=True), encoding="utf-8")


def _place(part: Path, folder: Path) -> None:
    """Give a written index its name. One that another process has placed meanwhile stays, as it may be in use."""
    try:
        part.rename(folder)
    except OSError:
        if load(folder) is None:
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)


def load(folder: Path) -> Index | None:
    """Load the index of a folder, with its arrays mapped into memory; None where there is no readable index."""
    try:
        meta = json.loads((folder / "index.json").read_text(encoding="utf-8"))
        if meta["schema"] != SCHEMA:
            return None
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS}
        symbols = load(folder / _SYMBOLS) if meta["symbols"] else None
        if meta["symbols"] and symbols is None:
            return None
        return Index(
            meta["n"], tuple(meta["fields"]), tuple((task, first) for task, first in meta["leaves"]),
            tuple(meta["evaluations"]), meta["doc_ids"], arrays, meta["key"], meta["missing"], meta["same"], symbols,
        )  # fmt: skip
    except (OSError, EOFError, ValueError, KeyError, TypeError, SyntaxError, TokenError):  # of NumPy, for damaged files
        return None


def _more_than(threshold: float, length: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute the smallest number of tokens that is more than this share of `length`, and at least 1."""
    least = np.maximum(np.floor(length * threshold).astype(np.int64) - 1, 0)
    for _ in range(3):  # the product may be rounded up or down; the rule is matched / tokens > threshold
        least = np.where(least / np.maximum(length, 1) > threshold, least, least + 1)
    return np.maximum(least, 1)


def build(
    groups: Sequence[tuple[dict[str, Any], Sequence[Item]]], rule: Rule, key: str = "",
    missing: Sequence[dict[str, str]] = (), same: dict[str, list[str]] | None = None,
) -> Index:  # fmt: skip
    """Build the index of the evaluations' items; a group is ({"name", "unseen", …}, items)."""
    builder = _Builder()
    evaluations = []
    for about, group in groups:
        first = len(builder.items)
        for item in group:
            builder.add(item)
        evaluations.append({**about, "first": first, "end": len(builder.items)})
    arrays = builder.arrays(rule)
    symbols = None
    if rule.variant != "paper":
        symbols = _by_symbols(builder, arrays, rule)
        if symbols is not None:
            arrays["by_symbols"][symbols.arrays["parents"]] = True
        _settle(arrays, rule)
    return _index(builder, arrays, rule, tuple(evaluations), key, list(missing), same or {}, symbols)


def _index(builder: _Builder, arrays: dict[str, NDArray[Any]], rule: Rule, *others: Any) -> Index:
    doc_ids = [item.doc_id for item in builder.items]
    for array in arrays.values():  # as those of a loaded index are: Numba compiles for either kind
        array.flags.writeable = False
    return Index(rule.n, tuple(builder.fields), tuple(builder.leaves), others[0], doc_ids, arrays, *others[1:])


def _by_symbols(builder: _Builder, arrays: dict[str, NDArray[Any]], rule: Rule) -> Index | None:
    """Build the index of the items that words do not tell from others of their task, and that have symbols."""
    few = _unclear(builder, arrays, rule)
    leaves = {builder.items[item].task for item in few}
    around = [item for item, one in enumerate(builder.items) if one.task in leaves]
    peers = _Builder(symbols=True)
    for item in around:
        peers.add(builder.items[item])
    found = peers.arrays(rule)
    ends, is_symbol = found["item_tokens"], peers.symbol_words(found)[found["tokens"]]
    own, symbols = own_text.per_item(found["own"], ends), own_text.per_item(found["own"] & is_symbol, ends)
    # Where little text is its own, the item must match as a whole anyway, and its symbols with it.
    telling = (own < own_text.LEAST) | ((symbols > 0) & (3 * symbols >= own - symbols))
    wanted = set(few)
    chosen = [
        place for place, item in enumerate(around) if item in wanted and (telling[place] or rule.variant == "own")
    ]
    if not chosen:
        return None
    last = _Builder(symbols=True)
    for place in chosen:
        last.add(peers.items[place])
    inside = np.concatenate([np.arange(ends[place], ends[place + 1]) for place in chosen])
    built = last.arrays(rule, own_text.Marks(*(found[name][inside] for name in ("own", "rare", "context"))))
    built["parents"] = np.array([around[place] for place in chosen], np.int64)
    _settle(built, rule)
    # Half of a few brackets is soon found anywhere.
    built["whole"] |= own_text.per_item(built["own"], built["item_tokens"]) < 2 * rule.n
    about = {"name": "", "unseen": False, "first": 0, "end": len(chosen)}
    return _index(last, built, rule, (about,), "", [], {})


def _unclear(builder: _Builder, arrays: dict[str, NDArray[Any]], rule: Rule) -> list[int]:
    """List the items that words do not tell from others of their task, and that have symbols.

    By the rule `own`, all items of the tasks of which many items are so, and no others.
    """
    edges, lengths = arrays["item_tokens"], np.diff(arrays["item_tokens"])
    own = own_text.per_item(arrays["own"], edges)
    fewer = own < (rule.n if rule.variant == "strict" else np.minimum(own_text.LEAST, np.maximum(lengths, 1)))
    unclear = fewer & (own_text.per_item(arrays["rare"], edges) < rule.n)
    few = [item for item in np.flatnonzero(unclear).tolist() if builder.has_symbols(item, arrays)]
    if rule.variant == "strict":
        return few
    leaves = [item.task for item in builder.items]
    sizes, counts = Counter(leaves), Counter(leaves[item] for item in few)
    many = {leaf for leaf, count in counts.items() if count >= MANY_SYMBOLS * sizes[leaf]}
    return [item for item, leaf in enumerate(leaves) if leaf in many]


def _settle(arrays: dict[str, NDArray[Any]], rule: Rule) -> None:
    """Let more text count where an item has too little of its own, and note what it had."""
    edges = arrays["item_tokens"]
    found = own_text.Marks(arrays["own"], arrays["rare"], arrays["context"])
    arrays["unique"] = own_text.per_item(found.own, edges).astype(np.int32)
    settled, arrays["whole"] = own_text.settle(found, edges)
    arrays["own"] = settled.own
    if rule.variant == "own":  # the passage that such a question belongs to must match as well
        arrays["whole"] &= own_text.per_item(found.context, edges) == 0


class _Builder:
    """Collects items; a text that several items share is tokenised once."""

    def __init__(self, *, symbols: bool = False) -> None:
        self.items: list[Item] = []
        self.leaves: list[tuple[str, int]] = []
        self.fields: dict[str, int] = {}
        self._symbols = symbols
        self._leaf_of: list[int] = []
        self._leaf_numbers: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._part_texts: list[int] = []
        self._parts: list[int] = [0]
        self._part_fields: list[int] = []
        self._texts: list[bytes] = []

    def add(self, item: Item) -> None:
        """Append one item."""
        if not self.leaves or self.leaves[-1][0] != item.task:
            self.leaves.append((item.task, len(self.items)))
        self._leaf_of.append(self._leaf_numbers.setdefault(item.task, len(self._leaf_numbers)))
        self.items.append(item)
        for name, text in item.parts:
            self._part_fields.append(self.fields.setdefault(name, len(self.fields)))
            self._texts.append(text.encode("utf-8", "surrogatepass"))
            self._part_texts.append(self._known.setdefault(text, len(self._known)))
        self._parts.append(len(self._part_texts))

    def arrays(self, rule: Rule, marks: own_text.Marks | None = None) -> dict[str, NDArray[Any]]:
        """Build all arrays of the index. `marks` are computed where they are not given."""
        chars = tokens.character_table(normalized=False, symbols=self._symbols)
        words = vocabulary.read(list(self._known), chars, symbols=self._symbols)
        borders = words.borders[np.array(self._part_texts, dtype=np.int64)]
        sizes = borders[:, 1] - borders[:, 0]
        begins = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        part_items = np.array(self._parts, dtype=np.int64)
        count = len(self.items)
        owner = np.repeat(np.arange(count), np.diff(part_items))
        longest = np.zeros(count, dtype=np.int64)
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
            "whole": np.zeros(count), "unique": np.zeros(count), "by_symbols": np.zeros(count),
            "parents": np.arange(count),
        }  # fmt: skip
        starts, lengths = gram_arrays.grams(begins, sizes, short[owner], rule)
        arrays |= gram_arrays.arrays(arrays, starts, lengths, rule.n)
        arrays["table"], arrays["expansions"] = chars
        # The index of symbols is never read with normalised text.
        arrays["normalized_table"], arrays["normalized_expansions"] = tokens.character_table(normalized=True)
        marks = marks or self._marks(arrays, rule)
        arrays |= {"own": marks.own, "rare": marks.rare, "context": marks.context}
        return {name: np.ascontiguousarray(arrays[name], dtype=kind) for name, kind in _ARRAYS.items()}

    def _marks(self, arrays: dict[str, NDArray[Any]], rule: Rule) -> own_text.Marks:
        if rule.variant == "paper" or not len(arrays["tokens"]):
            every = np.ones(len(arrays["tokens"]), np.bool_)
            return own_text.Marks(every, ~every, ~every)
        texts = [[text for _, text in item.parts] for item in self.items]
        stream = own_text.Stream(
            hashing.token_hashes(arrays["codes"], arrays["code_ends"])[arrays["tokens"]], arrays["part_tokens"],
            arrays["part_items"], np.array(self._part_texts, np.int64), np.array(self._leaf_of, np.int64),
            own_text.distinct_items(self._leaf_of, texts),
        )  # fmt: skip
        return own_text.marks(stream, rule.n)

    def has_symbols(self, item: int, arrays: dict[str, NDArray[Any]]) -> bool:
        """Whether the parts of an item that have own words, or no words, have any symbol."""
        first, edges = int(arrays["part_items"][item]), arrays["part_tokens"]
        for part, (_, text) in enumerate(self.items[item].parts, first):
            begin, end = int(edges[part]), int(edges[part + 1])
            if (begin == end or arrays["own"][begin:end].any() or len(self.items[item].parts) == 1) and any(
                tokens.is_symbol(char) for char in set(text)
            ):
                return True
        return False

    def symbol_words(self, arrays: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Mark the words of the vocabulary that are symbols: bool[words]."""
        firsts = arrays["codes"][np.concatenate([[0], arrays["code_ends"][:-1]])] if len(arrays["code_ends"]) else []
        return np.array([tokens.is_symbol(chr(code)) for code in firsts], np.bool_)
