"""Files of a run. Responses are appended; all other files appear whole, by rename."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import storage
from olmes_suite.records import Response
from olmes_suite.runs.schema import is_finished

UNFINISHED = ".unfinished"
_SYNC_SECONDS = 5.0
Place = tuple[str, int, int, int]
"""(task, doc_id, index, sample) of a response."""
_RESPONSE_FIELDS = tuple(Response.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a responses file: the request, the sample and the response."""

    key: str
    task: str
    doc_id: int
    index: int
    sample: int
    response: Response

    def to_json(self) -> bytes:
        """Convert to a JSON line, without empty fields."""
        address: dict[str, Any] = {
            "key": self.key,
            "task": self.task,
            "doc_id": self.doc_id,
            "index": self.index,
            "sample": self.sample,
        }
        response = self.response
        body = {
            name: value
            for name in _RESPONSE_FIELDS
            if (value := getattr(response, name)) is not None and value is not False
        }
        return (json.dumps(address | body, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Line:
        """Read a line from a JSON object."""
        known = {name: data[name] for name in Response.__dataclass_fields__ if name in data}
        return cls(data["key"], data["task"], data["doc_id"], data["index"], data["sample"], Response(**known))

    @property
    def place(self) -> Place:
        """(task, doc_id, index, sample) of the response."""
        return (self.task, self.doc_id, self.index, self.sample)


def finished(runs: Path) -> list[Path]:
    """List the finished runs in a folder, sorted by name. Raises UsageError if the folder does not exist."""
    if not runs.is_dir():
        raise UsageError(f"{runs}: no such folder of runs")
    return [path for path in sorted(runs.iterdir()) if is_finished(path)]


class ResponseFile:
    """An append-only file of responses that survives a kill: opening it removes a truncated last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: dict[Place, Line] = {}
        self._handle: BinaryIO | None = None
        self._synced = 0.0

    def __enter__(self) -> ResponseFile:
        with storage(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.lines = {line.place: line for line in read_lines(self.path)}
            length = _whole_length(self.path)
            self._handle = self.path.open("ab", buffering=0)
            self._handle.truncate(length)
        self._synced = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            try:
                os.fsync(self._handle.fileno())
            except OSError:
                if error is None:
                    raise
            self._handle.close()

    def append(self, lines: list[Line]) -> None:
        """Append lines in one system call. A short write (disk full) is undone before the error is raised."""
        assert self._handle is not None
        data = b"".join(line.to_json() for line in lines)
        with storage(self.path):
            start = self._handle.seek(0, os.SEEK_END)
            try:
                if self._handle.write(data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                self._handle.truncate(start)
                raise
            if time.monotonic() - self._synced > _SYNC_SECONDS:
                os.fsync(self._handle.fileno())
                self._synced = time.monotonic()


def _whole_length(path: Path) -> int:
    """Return the number of bytes up to and including the last newline."""
    if not path.exists():
        return 0
    with path.open("rb") as handle:
        end = handle.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            handle.seek(start)
            newline = handle.read(end - start).rfind(b"\n")
            if newline >= 0:
                return start + newline + 1
            end = start
    return 0


def read_lines(path: Path) -> Iterator[Line]:
    """Yield the complete lines of a responses file. Raises DataError for a line that is not a response."""
    for line, _ in _lines_with_bytes(path):
        yield line


def readable_lines(path: Path) -> Iterator[Line]:
    """Yield the readable lines of a responses file and leave the others out, for views of a run."""
    if not path.is_file():
        return
    with path.open("rb") as handle:
        for raw in handle:
            with suppress(ValueError, KeyError, TypeError):
                yield Line.from_json(json.loads(raw))


def _lines_with_bytes(path: Path) -> Iterator[tuple[Line, bytes]]:
    if not path.exists():
        return
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                yield Line.from_json(json.loads(raw.decode("utf-8", "surrogatepass"))), raw
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{path}, line {number}: not a recorded response ({error})") from error


def put_in_order(
    path: Path, rank: Callable[[Place], Any], keep: Callable[[Place], bool] | None = None
) -> tuple[int, int]:
    """Sort a responses file by `rank`, with the last line of each place; returns (prompt tokens, completion tokens).

    Responses are appended in order of arrival, which depends on the engine, the workers and interruptions; the sorted
    file does not. It is written to a new file that replaces the old one. With `keep`, the lines of other places, which
    came with the answers of a larger run, are left out.
    """
    spans: dict[Place, tuple[int, int]] = {}
    prompt = completion = start = 0
    for line, raw in _lines_with_bytes(path):
        if keep is None or keep(line.place):
            prompt += line.response.prompt_tokens
            completion += line.response.completion_tokens
            spans.pop(line.place, None)
            spans[line.place] = (start, len(raw))
        start += len(raw)
    order = sorted(spans, key=rank)
    if order != list(spans) or sum(length for _, length in spans.values()) != start:
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        with storage(path), path.open("rb") as old, partial.open("wb") as new:
            for place in order:
                old.seek(spans[place][0])
                new.write(old.read(spans[place][1]))
            new.flush()
            os.fsync(new.fileno())
        partial.replace(path)
    return prompt, completion


def command_line() -> list[str]:
    """Return the command that repeats this process."""
    return ["olmes", *sys.argv[1:]]
