"""The response cache: an SQLite file of answers, addressed by everything that decides an answer.

The address is the request's key, a hash of the model's fingerprint and the request, with the backend's name and, for a
sample, its seed. Several runs may use a file at the same time; a killed run loses only uncommitted answers. `Store`
holds bodies of any kind: responses of engines through `ResponseCache`, and answers of judges.
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
"""The number increases with changes that invalidate old entries."""
GREEDY = -1
"""Stands for the seed of an answer that does not depend on a seed."""
WAIT_SECONDS = 60.0
"""Maximum time to wait for the commit of another process."""
BUSY_PAUSE = 0.01
"""Seconds between two attempts to open a busy file."""
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
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Entry:
    """A response to store."""

    key: str
    seed: int
    task: str
    response: Response


@dataclass(frozen=True, slots=True)
class Holding:
    """The content of a cache for a model."""

    model: str
    """Fingerprint of the model."""
    backend: str
    name: str
    responses: int
    megabytes: float
    first: float
    """Unix seconds."""
    last: float


class Store:
    """The cache in a folder. Raises UsageError for a file that is not a cache, StorageError if it cannot be written.

    Threads may share a store.
    """

    def __init__(self, folder: Path, *, create: bool = True) -> None:
        self.path = folder / FILE
        if not create and not self.path.is_file():
            raise UsageError(f"{folder}: has no response cache ({FILE}); give the folder that was given to --cache")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = _open(self.path)
        except sqlite3.OperationalError as error:
            raise StorageError(
                f"{self.path}: cannot be used ({error}); {_advice(error, 'give --cache another folder')}"
            ) from None
        except sqlite3.DatabaseError as error:
            raise UsageError(f"{self.path}: is not a response cache ({error}); give another folder") from None
        except OSError as error:
            raise StorageError(f"{folder}: cannot be used ({error.strerror}); give --cache another folder") from None
        self._lock = threading.Lock()
        self.fault: str | None = None
        """The last read error, if any."""

    def read(self, backend: str, keys: Sequence[str], parse: Callable[[Any], Body]) -> dict[Address, Body]:
        """Read the entries with these keys; `fault` describes an unreadable entry.

        `parse` makes an answer of a body's JSON; it raises ValueError, TypeError or KeyError for what is damaged.
        """
        bodies: dict[Address, Body] = {}
        try:
            for key, seed, body in self._rows(backend, keys):
                try:
                    bodies[key, seed] = parse(json.loads(body))
                except (ValueError, TypeError, KeyError) as error:  # damaged or written by another version
                    self.fault = f"{self.path}: an entry cannot be read ({error})"
        except sqlite3.Error as error:
            self.fault = f"{self.path}: cannot be read ({error})"
        return bodies

    def _rows(self, backend: str, keys: Sequence[str]) -> Iterator[tuple[str, int, str]]:
        """Yield (key, seed, body) of the entries with these keys."""
        with self._lock:
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                marks = ",".join("?" * len(some))
                yield from self._db.execute(
                    f"SELECT key, seed, body FROM responses WHERE backend = ? AND key IN ({marks})", (backend, *some)
                )

    @contextmanager
    def _usable(self, how: str) -> Iterator[None]:
        """Turn errors of SQLite inside the block into StorageError."""
        try:
            yield
        except sqlite3.Error as error:
            advice = _advice(error, "try again when no run is using it, otherwise delete it")
            raise StorageError(f"{self.path}: cannot be {how} ({error}); {advice}") from None

    def write(self, backend: str, model: str, name: str, bodies: Iterable[tuple[str, int, str, Any]]) -> None:
        """Store (key, seed, task, body) in one transaction, without replacing entries. Raises StorageError."""
        now = time.time()
        # ASCII preserves lone surrogates, which models can produce
        rows = [(key, backend, seed, model, task, json.dumps(body), now) for key, seed, task, body in bodies]
        with self._usable("written"), self._lock, self._db:
            self._db.execute("INSERT OR IGNORE INTO models VALUES (?, ?, ?)", (model, backend, name))
            self._db.executemany("INSERT OR IGNORE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?)", rows)

    def holdings(self) -> list[Holding]:
        """List the content by model, most recently used first. Raises StorageError."""
        with self._usable("read"), self._lock:
            rows = self._db.execute(
                "SELECT r.model, r.backend, COALESCE(m.name, ''), COUNT(*), SUM(LENGTH(r.body)) / 1e6, MIN(written), "
                "MAX(written) FROM responses r LEFT JOIN models m ON m.model = r.model AND m.backend = r.backend "
                "GROUP BY r.model, r.backend ORDER BY MAX(written) DESC"
            )
            return [Holding(*row) for row in rows]

    def prune(self, model: str | None = None, before: float | None = None, task: str | None = None) -> int:
        """Delete the entries that match all given arguments; returns their number.

        `model` is a name or the start of a fingerprint, `before` is in Unix seconds.

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
                deleted = self._db.execute(f"DELETE FROM responses WHERE {' AND '.join(where)}", values).rowcount
                self._db.execute(
                    "DELETE FROM models WHERE NOT EXISTS (SELECT 1 FROM responses r WHERE r.model = models.model "
                    "AND r.backend = models.backend)"
                )
            if deleted:
                with suppress(sqlite3.OperationalError):  # another process is reading: the space is reused later
                    self._db.execute("VACUUM")
        return deleted

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def _advice(error: sqlite3.Error, otherwise: str) -> str:
    """Return what to do about an error: on a full disk the answers in the file are good, and must not be deleted."""
    full = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_FULL", "SQLITE_IOERR"))
    return "free some space, then repeat the command; answers that it holds stay" if full else otherwise


def _open(path: Path) -> sqlite3.Connection:
    """Open the file and make its tables where they are missing. Raises sqlite3.DatabaseError.

    SQLite's timeout does not apply to the change to the write-ahead log, which fails at once while another connection
    writes to a new file. So the wait is here.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        database = sqlite3.connect(path, timeout=WAIT_SECONDS, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=NORMAL")
            database.executescript(TABLES)
            return database
        except sqlite3.DatabaseError as error:
            database.close()
            # the low byte is the error, the others say more about it
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(BUSY_PAUSE)


class ResponseCache(Store):
    """A store of engines' responses."""

    def find(self, backend: str, keys: Sequence[str]) -> dict[Address, Response]:
        """Read the responses with these keys; `fault` describes an unreadable entry."""
        return self.read(backend, keys, lambda body: Response(**body))

    def add(self, backend: str, model: str, name: str, entries: Iterable[Entry]) -> None:
        """Store responses in one transaction, without replacing entries. Raises StorageError."""
        self.write(backend, model, name, ((e.key, e.seed, e.task, _body(e.response)) for e in entries))


def _body(response: Response) -> dict[str, Any]:
    return {name: value for name, value in asdict(response).items() if value is not None}
