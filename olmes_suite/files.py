"""Files that appear whole or not at all, locks, and the cache folder."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from olmes_suite.errors import DataError, RunLocked, StorageError
from olmes_suite.records import sha256

LOCK_SECONDS = 0.1
"""For a holder that is just leaving."""


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one line. What was written before stays."""
    try:
        yield
    except OSError as error:
        if error.errno in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.EFBIG,
            errno.ENOTDIR,
            errno.ENOENT,
            errno.EISDIR,
            errno.ENAMETOOLONG,
        ):
            reason = os.strerror(error.errno)
            raise StorageError(
                f"cannot write {path}: {reason}; free some space or name another place, then repeat the command"
            ) from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file so that it appears whole or not at all."""
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with part.open("w", encoding="utf-8", errors="surrogatepass") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys, whole or not at all."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises DataError naming the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


class RunLock:
    """Keeps two processes from writing one run. The lock goes with the process, however that ends.

    Its file names the holder, and is removed while the lock is still held: who has opened it before that and locks it
    afterwards holds a file without a name, which `filelock` notices and gives up.
    """

    def __init__(self, path: Path, what: str | None = None, flag: str = "--runs") -> None:
        """`what` is written (by default the run of the lock's name), `flag` names another place for it."""
        self.path = path
        self.what = what or f"run {path.stem}"
        self.flag = flag
        self._lock = FileLock(path, thread_local=False)

    def __enter__(self) -> RunLock:
        with storage(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=LOCK_SECONDS, poll_interval=LOCK_SECONDS / 5)
            except Timeout as error:
                raise RunLocked(
                    f"{self.what} is being written by {self._holder()}; wait for it or give another {self.flag}"
                ) from error
            try:
                self.path.write_text(
                    f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}",
                    encoding="utf-8",
                )
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self.path.unlink()
        self._lock.release()

    def _holder(self) -> str:
        with suppress(OSError):
            return self.path.read_text(encoding="utf-8", errors="replace").strip() or "another process"
        return "another process"


def cache_folder() -> Path:
    """The folder of what is kept between runs: `$OLMES_CACHE`, else the user's cache folder (`~/.cache/olmes`)."""
    return Path(os.environ.get("OLMES_CACHE") or user_cache_path("olmes", appauthor=False))


def file_signature(path: Path) -> str:
    """Path, size, times and inode as one key for caches: `cp -p` and `rsync -t` bring other content at an old time."""
    status = path.stat()
    return sha256(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}")
