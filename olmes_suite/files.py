"""Atomic writes, locks and the cache folder."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
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

_FULL, _CLOSED = "free some space or give another folder", "give a folder that you may write to"
ADVICE = {
    errno.ENOSPC: _FULL, errno.EDQUOT: _FULL, errno.EFBIG: _FULL, errno.EROFS: _CLOSED, errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED, errno.ENOTDIR: "a file is in the place of a folder: give another one",
    errno.EISDIR: "a folder is in the place of the file: give another path", errno.ENOENT: "give another folder",
    errno.ENAMETOOLONG: "give a shorter path",
}  # fmt: skip
"""What to do about an error of writing."""
_DIGEST = re.compile("[0-9a-f]{64}")
_DAY = 24 * 60 * 60
LOCK_SECONDS = 0.1
"""Maximum wait for a process that is about to release the lock."""
CHANGE_SECONDS = 30.0
"""Maximum wait for a process that changes one file."""


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn errors of a full or read-only disk into StorageError. Files written before stay."""
    try:
        yield
    except OSError as error:
        if error.errno in ADVICE:
            reason, advice = os.strerror(error.errno), ADVICE[error.errno]
            raise StorageError(f"cannot write {path}: {reason}; {advice}, then repeat the command") from error
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            with partial.open("w", encoding="utf-8", errors="surrogatepass") as handle:
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises DataError naming an unreadable file."""
    try:
        return json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


class RunLock:
    """Keeps two processes from writing the same run. The lock ends with the process, even if it is killed.

    The lock file names the holder. It is removed while the lock is still held: a process that opened it before and
    locks it afterwards has a deleted file, which `filelock` detects and releases.
    """

    def __init__(
        self, path: Path, what: str | None = None, flag: str = "--runs", *, seconds: float = LOCK_SECONDS
    ) -> None:
        """`what` names the locked object in errors, by default the run; `flag` is the option for another folder.

        Another holder is waited for up to `seconds`.
        """
        self.path = path
        self.what = what or f"run {path.stem}"
        self.flag = flag
        self.seconds = seconds
        self._lock = FileLock(path, thread_local=False)

    def __enter__(self) -> RunLock:
        with storage(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._lock.acquire(timeout=self.seconds, poll_interval=LOCK_SECONDS / 5)
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


def changing(path: Path) -> RunLock:
    """Return a lock for reading, changing and writing a file: other processes wait for their turn."""
    return RunLock(path.with_name(f".{path.name}.lock"), str(path), seconds=CHANGE_SECONDS)


def remove_leftovers(folder: Path, pattern: str) -> None:
    """Remove the folders that killed processes had begun to write there, a day after."""
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process may remove it too
            if time.time() - path.stat().st_mtime > _DAY:
                shutil.rmtree(path, ignore_errors=True)


def cache_folder() -> Path:
    """Return the cache folder: `$OLMES_CACHE`, otherwise the user's cache folder (`~/.cache/olmes`)."""
    return Path(os.environ.get("OLMES_CACHE") or user_cache_path("olmes", appauthor=False))


def file_signature(path: Path) -> str:
    """Hash path, size, times and inode, as a cache key.

    The modification time is not enough, because `cp -p` and `rsync -t` preserve it.
    """
    status = path.stat()
    return sha256(f"{path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}")


def read_digest(path: Path) -> str | None:
    """Read a file that holds a SHA-256; None where there is none, or a damaged one."""
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return None
    return text if _DIGEST.fullmatch(text) else None
