"""All rows of a mix's sources: what is known of each, in arrays, and its text, read from the parts when asked for."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from train_plugins.data.curation.mix.parts import ROWS, Part

KEPT, EXACT, NEAR, CONTAMINATED, NOT_SAMPLED = range(5)
REASONS = ("", "exact_duplicate", "near_duplicate", "contaminated", "not_sampled")
"""Names of the states of a row in rejected.jsonl."""
_OPEN = 64
"""Files that are open at once."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The rows that passed conversion and filters, source by source, in order."""

    names: tuple[str, ...]
    """Names of the sources."""
    parts: tuple[Part, ...]
    source: NDArray[np.int16]
    part: NDArray[np.int32]
    starts: NDArray[np.int64]
    """First byte of each row in its part."""
    ends: NDArray[np.int64]
    number: NDArray[np.int64]
    """Number of each row in its source, from 0."""
    turns: NDArray[np.int32]
    tokens: NDArray[np.int32]
    thoughts: NDArray[np.bool_]
    tools: NDArray[np.bool_]
    prompt: NDArray[np.uint64]
    """Hash of the prompt's text."""
    digest: NDArray[np.uint64]
    """Hash of what exact duplicates have in common, in two halves."""
    state: NDArray[np.int8]
    """KEPT, or the reason why the row is left out; filled in step by step."""
    other: NDArray[np.int64]
    """For a duplicate, the position of the row that is kept instead; otherwise -1."""

    def __len__(self) -> int:
        return len(self.source)

    @classmethod
    def of(cls, names: Sequence[str], parts: Sequence[Sequence[Part]]) -> Pool:
        """Build the pool from the parts of each source."""
        flat = [part for one in parts for part in one]
        sizes = [len(part.index["number"]) for part in flat]
        owner = [number for number, one in enumerate(parts) for _ in one]
        before = [b for one in parts for b in np.cumsum([0, *(part.rows for part in one)])[:-1].tolist()]

        def joined(name: str, kind: Any) -> NDArray[Any]:
            arrays = [part.index[name] for part in flat]
            return np.concatenate(arrays) if arrays else np.zeros(0, kind)

        total = sum(sizes)
        return cls(
            tuple(names), tuple(flat), np.repeat(np.array(owner, np.int16), sizes),
            np.repeat(np.arange(len(flat), dtype=np.int32), sizes),
            np.concatenate([part.index["offsets"][:-1] for part in flat] or [np.zeros(0, np.int64)]),
            np.concatenate([part.index["offsets"][1:] for part in flat] or [np.zeros(0, np.int64)]),
            joined("number", np.int64) + np.repeat(np.array(before, np.int64), sizes),
            joined("turns", np.int32), joined("tokens", np.int32), joined("thoughts", np.bool_),
            joined("tools", np.bool_), joined("prompt", np.uint64),
            joined("digest", np.uint64).reshape(-1, 2), np.zeros(total, np.int8), np.full(total, -1, np.int64),
        )  # fmt: skip

    def of_source(self, number: int) -> slice:
        """Return the positions of a source's rows."""
        first, end = np.searchsorted(self.source, [number, number + 1])
        return slice(int(first), int(end))

    def name(self, position: int) -> str:
        """Return the id of a row: source and number."""
        return f"{self.names[self.source[position]]}:{self.number[position]}"


class Lines:
    """Reads the rows of a pool, in any order. A context manager."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._open: OrderedDict[int, int] = OrderedDict()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._open.values():
            os.close(handle)
        self._open.clear()

    def row(self, position: int) -> dict[str, Any]:
        """Return the row at a position of the pool."""
        start, end = int(self._pool.starts[position]), int(self._pool.ends[position])
        # Not mapped into memory: mapped pages would count as this process's own.
        row: dict[str, Any] = json.loads(os.pread(self._handle(int(self._pool.part[position])), end - start, start))
        return row

    def _handle(self, part: int) -> int:
        if part in self._open:
            self._open.move_to_end(part)
        else:
            if len(self._open) >= _OPEN:
                os.close(self._open.popitem(last=False)[1])
            self._open[part] = os.open(self._pool.parts[part].folder / ROWS, os.O_RDONLY)
        return self._open[part]


def rejected_rows(parts: Sequence[Part]) -> Iterator[tuple[int, str, str]]:
    """Read (row of the source, reason, detail) of the rows that conversion or a filter rejected."""
    before = 0
    for part in parts:
        for row, reason, detail in part.rejected():
            yield before + row, reason, detail
        before += part.rows
