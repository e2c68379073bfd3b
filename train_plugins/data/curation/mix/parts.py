"""Blocks of source files as parts: converted and filtered rows, with what the later steps need to know of each.

A part is a folder in the cache, named by the hash of the block's content and of all settings that it depends on. It
appears in one step, so that a killed mix continues with the parts that are finished, and a changed recipe makes only
those anew that it concerns. Parts are made in any number of processes, or on many machines.

`rows.jsonl` holds a row on each line, `index.npz` the place and the facts of each, `rejected.jsonl` the other rows.
`about.json` has checksums of all, so that a part which a full disk or a crash has damaged is made again.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from olmes_suite import processes
from olmes_suite.errors import DataError, one_line
from olmes_suite.files import file_signature
from olmes_suite.records import canonical_json, sha256
from olmes_suite.training_rows.files import Block
from olmes_suite.training_rows.reading import Unreadable, rows_of_block
from train_plugins.config.recipe import Form
from train_plugins.data.curation import duplicates
from train_plugins.data.curation.duplicates import NearDuplicates, normalised
from train_plugins.data.curation.mix import convert
from train_plugins.data.curation.mix.convert import Converter, as_json, prompt_of, turns_in
from train_plugins.data.curation.mix.filters import Facts, Sieve
from train_plugins.data.curation.mix.keys import Filters, Kind
from train_plugins.data.curation.recipe import plain
from train_plugins.data.curation.reward_prompts import Build
from train_plugins.data.fields import REASONING

VERSION = 3
AT_ONCE = 512
"""Rows that are counted and sketched together."""
"""Seconds that no part takes."""
MALFORMED = "malformed"
ROWS, INDEX, REJECTED, ABOUT = "rows.jsonl", "index.npz", "rejected.jsonl", "about.json"
STANDARD = frozenset({"messages", "chosen", "rejected", "ground_truth", "dataset"})
"""Columns that every row of a kind has."""
_LINE = "line "
_EXEMPLARS = re.compile(r"\A(?:Question|Problem):.*\n\n(?=(?:Question|Problem):)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that decide what is in a part, besides its block of the source."""

    kind: Kind
    form: Form | None = None
    keep: tuple[str, ...] = ()
    verifiers: Mapping[str, str] = field(default_factory=dict)
    filters: tuple[Filters, ...] = ()
    tokenizer: str | None = None
    tokenizer_digest: str | None = None
    """Hash of the tokenizer's files, where it is a folder."""
    shingle: int | None = None
    """Words of an n-gram for sketches; None: no sketches."""
    by: Literal["conversation", "prompt"] = "conversation"
    build: Build | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One part to make."""

    block: Block
    settings: Settings
    out: Path
    """Folder of all parts."""

    @property
    def key(self) -> str:
        """The name of the part."""
        versions = [VERSION, convert.VERSION]
        return sha256(canonical_json([versions, self.block.key, plain(self.settings)]))[:32]

    @property
    def folder(self) -> Path:
        """The folder of the part."""
        return self.out / self.key


@dataclass(frozen=True, slots=True)
class Part:
    """A finished part."""

    folder: Path
    rows: int
    """Rows of the block, with the rejected ones."""
    index: Mapping[str, NDArray[Any]]
    columns: Mapping[str, Mapping[str, int]]
    """Columns that not every mix of the kind has: the types of their values, and the first row with each."""
    turn_keys: tuple[str, ...]
    """Fields of the turns."""

    def rejected(self) -> Iterator[tuple[int, str, str]]:
        """Read (row of the block, reason, detail)."""
        with (self.folder / REJECTED).open(encoding="utf-8") as lines:
            for line in lines:
                row, reason, detail = json.loads(line)
                yield row, reason, detail

    def sketches(self) -> NDArray[np.uint32]:
        """Read the sketches of the rows."""
        with np.load(self.folder / INDEX) as arrays:
            return np.asarray(arrays["sketches"])


def read(job: Job) -> Part | None:
    """Read a finished part; None where there is none, or a damaged one."""
    try:
        about = json.loads((job.folder / ABOUT).read_text(encoding="utf-8"))
        if about.pop("sum") != _sum(about) or about["files"] != _checksums(job.folder):
            return None
        with np.load(job.folder / INDEX) as arrays:
            index = {name: arrays[name] for name in arrays.files if name != "sketches"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Part(job.folder, about["rows"], index, about["columns"], tuple(about["turn_keys"]))


def _sum(about: Mapping[str, Any]) -> str:
    return sha256(canonical_json(about))


def _checksums(folder: Path) -> dict[str, int]:
    """Return the CRC-32 of a part's other files."""
    found = {}
    for name in (ROWS, INDEX, REJECTED):
        found[name] = 0
        with (folder / name).open("rb") as file:
            while content := file.read(1 << 20):
                found[name] = zlib.crc32(content, found[name])
    return found


def run_job(job: Job) -> None:
    """Make a part, in any process on any machine. Raises DataError where the file cannot be read, or changes."""
    partial = job.folder.with_name(f"{job.key}.{uuid.uuid4().hex}.tmp")  # processes of two machines may have one number
    partial.mkdir(parents=True)
    try:
        before = _signature(job.block.path)
        _Maker(job.settings, partial).make(job.block)
        if _signature(job.block.path) != before:
            raise DataError(f"{job.block.path}: changed while it was read; repeat the command")
        _place(partial, job)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _signature(path: Path) -> str:
    try:
        return file_signature(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error})") from None


def _place(partial: Path, job: Job) -> None:
    """Give a finished part its name. One that another mix has placed meanwhile stays: that mix may be reading it."""
    try:
        partial.replace(job.folder)
    except OSError:
        if read(job) is not None:
            return
        damaged = partial.with_suffix(".damaged.tmp")
        with suppress(FileNotFoundError):  # another mix may replace it too
            job.folder.replace(damaged)
        shutil.rmtree(damaged, ignore_errors=True)
        partial.replace(job.folder)


class _Maker:
    """Makes one part."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._settings, self._folder = settings, folder
        self._convert = Converter(settings.kind, settings.form, settings.keep, settings.verifiers, settings.build)
        self._sieve = Sieve(*settings.filters)
        self._near = NearDuplicates(shingle=settings.shingle) if settings.shingle else None
        self._count = _counter(settings.tokenizer)
        self._facts: list[tuple[Any, ...]] = []
        self._digests: list[bytes] = []
        self._columns: dict[str, dict[str, int]] = {}
        self._turn_keys: dict[str, None] = {}
        self._lengths: list[int] = []

    def make(self, block: Block) -> None:
        """Write the part of a block."""
        rows = enumerate(rows_of_block(block))
        total = 0
        with (self._folder / ROWS).open("wb") as lines, (self._folder / REJECTED).open("w", encoding="utf-8") as rest:

            def reject(row: int, reason: str, detail: str) -> None:
                rest.write(json.dumps([row, reason, detail]) + "\n")

            while batch := list(islice(rows, AT_ONCE)):
                total = batch[-1][0] + 1
                for line in self._batch(batch, reject):
                    lines.write(line)
        self._finish(total)

    def _batch(self, batch: Sequence[tuple[int, Any]], reject: Callable[[int, str, str], None]) -> Iterator[bytes]:
        made = []
        for number, row in batch:
            try:
                if isinstance(row, Unreadable):
                    raise ValueError(_without_line(row.why))
                if found := self._sieve.of_columns(row):
                    reject(number, *found)
                    continue
                converted = self._convert(row)
                line = as_json(converted).encode("utf-8") + b"\n"
            except RecursionError:
                reject(number, MALFORMED, "is nested too deeply")
            except UnicodeEncodeError:
                reject(number, MALFORMED, "has text that is not Unicode (half a surrogate pair)")
            except ValueError as error:
                bad = (MALFORMED, f"{'is ' if isinstance(row, Unreadable) else 'has '}{error}")
                reject(number, *(self._sieve.of_fault(error) or bad))
            else:
                made.append((number, converted, line))
        texts = []
        for (number, row, line), facts in zip(made, self._count([row for _, row, _ in made]), strict=True):
            if found := self._sieve(row, facts):
                reject(number, *found)
                continue
            texts.append(self._add(number, row, facts))
            self._lengths.append(len(line))
            yield line
        if self._near is not None and texts:
            self._near.add(texts)

    def _add(self, number: int, row: Mapping[str, Any], facts: Facts) -> str:
        """Note the facts of a row and return the text that duplicates are judged by."""
        prompt = prompt_of(row)
        compared = prompt if self._settings.by == "prompt" else turns_in(row)
        text = compared_text(row, self._settings.by)
        self._digests.append(bytes.fromhex(duplicates.digest(_marked(compared)))[:16])
        asked = int.from_bytes(bytes.fromhex(duplicates.digest(text_of(prompt)))[:8], "little")
        self._facts.append((number, facts.turns, facts.tokens, facts.thoughts, facts.tools, asked))
        for turn in turns_in(row):
            self._turn_keys.update(dict.fromkeys(turn))
        for column in row.keys() - STANDARD:
            self._columns.setdefault(column, {}).setdefault(type_of(row[column]), number)
        return text

    def _finish(self, total: int) -> None:
        number, turns, tokens, thoughts, tools, asked = zip(*self._facts, strict=True) if self._facts else ((),) * 6
        arrays: dict[str, Any] = {
            "offsets": np.concatenate([[0], np.cumsum(self._lengths, dtype=np.int64)]).astype(np.int64),
            "number": np.array(number, np.int64), "turns": np.array(turns, np.int32),
            "tokens": np.array(tokens, np.int32), "thoughts": np.array(thoughts, np.bool_),
            "tools": np.array(tools, np.bool_), "prompt": np.array(asked, np.uint64),
            "digest": np.frombuffer(b"".join(self._digests), np.uint64).reshape(-1, 2),
        }  # fmt: skip
        if self._near is not None:
            arrays["sketches"] = self._near.sketches
        np.savez(self._folder / INDEX, **arrays)
        about = {"rows": total, "columns": dict(sorted(self._columns.items())), "turn_keys": list(self._turn_keys)}
        about["files"] = _checksums(self._folder)
        (self._folder / ABOUT).write_text(json.dumps(about | {"sum": _sum(about)}), encoding="utf-8")


def compared_text(row: Mapping[str, Any], by: Literal["conversation", "prompt"]) -> str:
    """Return the text of a converted row that near duplicates have in common.

    Exemplars before a prompt's question are left out, because they are the same in all rows.
    """
    if "ground_truth" in row:
        *before, last = row["messages"]
        return "\n".join([text_of(before), _EXEMPLARS.sub("", str(last["content"]))])
    return text_of(prompt_of(row) if by == "prompt" else turns_in(row))


def text_of(turns: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of turns."""
    return "\n".join(str(turn.get("content") or "") for turn in turns)


def _marked(turns: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of turns with all of their fields, for exact duplicates; white space does not matter."""
    return "\0".join(
        f"{key}\1{normalised(value) if isinstance(value, str) else canonical_json(value)}"
        for turn in turns
        for key, value in sorted(turn.items())
    )


def type_of(value: Any) -> str:
    """Return the type that a kept column has for a value: bool, int, float, str, or json for lists and mappings."""
    return type(value).__name__ if isinstance(value, bool | int | float | str) else "json"


def _without_line(why: str) -> str:
    """Remove the number of a line, which counts from the start of the block."""
    return why.partition(": ")[2] if why.startswith(_LINE) else why


# Tokens


Counter = Callable[[Sequence[Mapping[str, Any]]], list[Facts]]


@lru_cache(maxsize=1)
def _counter(tokenizer: str | None) -> Counter:
    """Return a function from converted rows to their facts."""
    if tokenizer is None:
        return lambda rows: [_facts(row, [_estimated(text) for text in texts_in(row)]) for row in rows]
    loaded = load_tokenizer(tokenizer)

    def count(rows: Sequence[Mapping[str, Any]]) -> list[Facts]:
        texts = [texts_in(row) for row in rows]
        flat = [text for one in texts for text in one]
        lengths = iter([len(one) for one in loaded(flat, add_special_tokens=False)["input_ids"]] if flat else [])
        return [_facts(row, [next(lengths) for _ in one]) for row, one in zip(rows, texts, strict=True)]

    return count


def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a folder or a Hub id. Raises DataError."""
    from transformers import AutoTokenizer

    folder = Path(name).expanduser()
    try:
        return AutoTokenizer.from_pretrained(folder if folder.is_dir() else name)
    except Exception as error:  # of many types
        raise DataError(f"tokenizer {name}: cannot be loaded ({one_line(error)}); give the folder of a model") from None


def texts_in(row: Mapping[str, Any]) -> list[str]:
    """Return the text of each turn, thoughts included."""
    return [
        "\n".join(str(turn[key]) for key in ("content", *REASONING) if isinstance(turn.get(key), str))
        for turn in turns_in(row)
    ]


def _estimated(text: str) -> int:
    size = len(text) if text.isascii() else len(text.encode("utf-8"))
    return -(-size // 4)


def _facts(row: Mapping[str, Any], tokens: Sequence[int]) -> Facts:
    turns = turns_in(row)
    pair = "chosen" in row
    spoken = [turn["role"] for turn in (turns[:-1] if pair else turns)]
    last = next((n for n in range(len(spoken) - 1, -1, -1) if spoken[n] == "assistant"), None)
    answers = (0,) if last is None else (tokens[last], tokens[-1]) if pair else (tokens[last],)
    thoughts = any(
        turn["role"] == "assistant"
        and ("<think>" in str(turn.get("content")) or any(turn.get(key) for key in REASONING))
        for turn in turns
    )
    tools = bool(row.get("tools")) or any(turn["role"] == "tool" or turn.get("tool_calls") for turn in turns)
    return Facts(
        sum(role in ("user", "assistant") for role in spoken), sum(tokens), answers, thoughts, tools,
    )  # fmt: skip


# Runners


Runner = Callable[[list[Job]], Iterator[None]]
"""Makes parts in any order and yields once for each."""


def in_processes(workers: int) -> Runner:
    """Make a runner with that many processes; with one, the parts are made in the calling process."""
    return processes.in_processes(run_job, workers)
