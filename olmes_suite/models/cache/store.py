"""Answers kept across runs: an SQLite file, addressed by what decides an answer.

The address is the request's key, which holds the model's fingerprint and all that is asked, with the backend's name
and, for a sample, its seed. Two runs may use one file at a time; a killed one loses what it had not yet committed.
`Store` keeps bodies of any kind, `ResponseCache` the responses of engines in it, and judges their answers.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from olmes_suite.errors import StorageError, UsageError
from olmes_suite.records import Response

FILE = "responses-1.sqlite"
"""The digit counts changes that make old entries unfit."""
GREEDY = -1
"""In place of a seed: the answer does not depend on one."""
WAIT_SECONDS = 60.0
"""For another process to finish its commit."""
TABLES = """
CREATE TABLE IF NOT EXISTS models (model TEXT, backend TEXT, name TEXT, PRIMARY KEY (model, backend));
CREATE TABLE IF NOT EXISTS responses (
    key TEXT, backend TEXT, seed INTEGER, model TEXT, task TEXT, body TEXT, written REAL,
    PRIMARY KEY (key, backend, seed)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_model ON responses (model, backend, written);
"""

Address = tuple[str, int]
"""(the request's key, seed or GREEDY)"""
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Entry:
    """A response to keep."""

    key: str
    seed: int
    task: str
    response: Response


@dataclass(frozen=True, slots=True)
class Holding:
    """What a cache holds of one model."""

    model: str
    """Its fingerprint."""
    backend: str
    name: str
    responses: int
    megabytes: float
    first: float
    """Unix seconds."""
    last: float


class Store:
    """The cache in a folder. Raises UsageError for a file that is none, StorageError where it cannot be written.

    Threads may share it.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.path = folder / FILE
        if not create and not self.path.is_file():
            raise UsageError(f"{folder}: holds no response cache ({FILE}); name the folder that was given to --cache")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=WAIT_SECONDS, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(TABLES)
        except sqlite3.OperationalError as error:
            raise StorageError(f"{self.path}: cannot be used ({error}); give --cache another folder") from None
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{self.path}: is no response cache ({error}); give another folder") from None
        except OSError as error:
            raise StorageError(f"{folder}: cannot be used ({error.strerror}); give --cache another folder") from None
        self._lock = threading.Lock()
        self.fault: str | None = None
        """What could not be read, if anything."""

    def read(self, backend: str, keys: Sequence[str], parse: Callable[[Any], Found]) -> dict[Address, Found]:
        """All that is kept under these keys and can be read; `fault` says what cannot.

        `parse` makes an answer of a body's JSON; it raises ValueError, TypeError or KeyError for what is damaged.
        """
        found: dict[Address, Found] = {}
        try:
            for key, seed, body in self._rows(backend, keys):
                try:
                    found[key, seed] = parse(json.loads(body))
                except (ValueError, TypeError, KeyError) as error:  # damaged, or of another version
                    self.fault = f"{self.path}: an entry cannot be read ({error})"
        except sqlite3.Error as error:
            self.fault = f"{self.path}: cannot be read ({error})"
        return found

    def _rows(self, backend: str, keys: Sequence[str]) -> Iterator[tuple[str, int, str]]:
        """(key, seed, body) of what is kept under these keys."""
        with self._lock:
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                yield from self._db.execute(
                    f"SELECT key, seed, body FROM responses WHERE backend = ? AND key IN ({marks})", (backend, *some)
                )

    @contextmanager
    def _usable(self, how: str) -> Iterator[None]:
        """Within it, what SQLite raises is a StorageError."""
        try:
            yield
        except sqlite3.Error as error:
            raise StorageError(
                f"{self.path}: cannot be {how} ({error}); try again when no run is at work on it, else delete it"
            ) from None

    def write(self, backend: str, model: str, name: str, bodies: Iterable[tuple[str, int, str, Any]]) -> None:
        """Keep (key, seed, task, body), in one transaction; those that are there already stay. Raises StorageError."""
        now = time.time()
        # ASCII: lone surrogates, which models can produce, survive
        rows = [(key, backend, seed, model, task, json.dumps(body), now) for key, seed, task, body in bodies]
        with self._usable("written"), self._lock, self._db:
            self._db.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", (model, backend, name))
            self._db.executemany("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def holdings(self) -> list[Holding]:
        """By model, the one used last first. Raises StorageError."""
        with self._usable("read"), self._lock:
            rows = self._db.execute(
                "SELECT r.model, r.backend, COALESCE(m.name, ''), COUNT(*), SUM(LENGTH(r.body)) / 1e6, MIN(written), "
                "MAX(written) FROM responses r LEFT JOIN models m ON m.model = r.model AND m.backend = r.backend "
                "GROUP BY r.model, r.backend ORDER BY MAX(written) DESC"
            )
            return [Holding(*row) for row in rows]

    def prune(self, model: str | None = None, before: float | None = None, task: str | None = None) -> int:
        """Delete what matches all that is given (start of a fingerprint, or a name; Unix seconds); returns how many.

        Raises StorageError.
        """
        where, values = ["1"], []
        if model is not None:
            where.append(
                "EXISTS (SELECT 1 FROM models m WHERE m.model = responses.model AND m.backend = responses.backend "
                "AND (m.name = ? OR substr(m.model, 1, ?) = ?))"
            )
            values += [model, len(model), model]
        for column, value in (("written <", before), ("task =", task)):
            if value is not None:
                where.append(f"{column} ?")
                values.append(value)
        with self._usable("pruned"), self._lock:
            with self._db:
                gone = self._db.execute(f"DELETE FROM responses WHERE {' AND '.join(where)}", values).rowcount
                self._db.execute(
                    "DELETE FROM models WHERE NOT EXISTS (SELECT 1 FROM responses r WHERE r.model = models.model "
                    "AND r.backend = models.backend)"
                )
            if gone:
                with suppress(sqlite3.OperationalError):  # another process reads: its space is used again later
                    self._db.execute("VACUUM")
        return gone

    def close(self) -> None:
        """Close the file."""
        self._db.close()


class ResponseCache(Store):
    """The responses of engines."""

    def find(self, backend: str, keys: Sequence[str]) -> dict[Address, Response]:
        """All that is kept under these keys and can be read; `fault` says what cannot."""
        return self.read(backend, keys, lambda body: Response(**body))

    def add(self, backend: str, model: str, name: str, entries: Iterable[Entry]) -> None:
        """Keep responses, in one transaction; those that are there already stay. Raises StorageError."""
        self.write(backend, model, name, ((e.key, e.seed, e.task, _body(e.response)) for e in entries))


def _body(response: Response) -> dict[str, Any]:
    return {name: value for name, value in asdict(response).items() if value is not None}
