"""Batches of training rows, from a reader to the kernel: one buffer of bytes and the borders of its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of a training set. A segment is one part (a turn, a field) of a row."""

    data: NDArray[np.uint8]
    """UTF-8."""
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    owners: NDArray[np.int64]
    """Row of each segment, from 0 in the batch, ascending."""
    rows: int
    name: Callable[[int], str] = str
    """The name of a segment: a column, or a turn such as `messages[2]`."""

    @classmethod
    def of_texts(cls, texts: Sequence[bytes], owners: Sequence[int], rows: int, names: Sequence[str] = ()) -> Batch:
        """Build a batch of separate texts."""
        ends = np.cumsum([len(text) for text in texts], dtype=np.int64)
        starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(texts) else ends
        data = np.frombuffer(b"".join(texts), dtype=np.uint8)
        return cls(data, starts, ends, np.array(owners, dtype=np.int64), rows, list(names).__getitem__)

    @property
    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Data, starts, ends and owners for compiled code.

        The data are read only, whatever reader they come from: Numba compiles a function anew for arrays that can be
        written.
        """
        data = self.data.view()
        data.flags.writeable = False
        return data, self.starts, self.ends, self.owners

    def segments(self, row: int) -> range:
        """Return the segments of a row."""
        first, end = np.searchsorted(self.owners, [row, row + 1])
        return range(int(first), int(end))

    def parts(self, row: int) -> list[tuple[str, str]]:
        """List (name, text) of the parts of a row. Raises UnicodeDecodeError."""
        return [
            (self.name(s), self.data[self.starts[s] : self.ends[s]].tobytes().decode("utf-8"))
            for s in self.segments(row)
        ]

    @property
    def nbytes(self) -> int:
        """The number of bytes of text."""
        return int((self.ends - self.starts).sum())
