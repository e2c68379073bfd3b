"""The SHA-256 of everything that determines a model's answers.

A folder's fingerprint depends on the contents of its files and not on the path of the folder. Since weight files are
large, a SQLite cache stores their hashes by path, size and modification time.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.errors import ModelError
from olmes_suite.models.local.adapter import CONFIG, Adapter, adapter_of
from olmes_suite.models.local.checkpoint import config_files, is_hub_id, tokenizer_files, weight_files
from olmes_suite.records import canonical_json, sha256

SETTLED = 2.0
"""Seconds after which the time stamp distinguishes a file from a later version. A newer file is not cached."""


@dataclass(frozen=True, slots=True)
class ModelFingerprint:
    """A model's fingerprint and its sources."""

    digest: str
    files: Mapping[str, str]
    """The SHA-256 of each file by its name within the folder; empty for a Hub checkpoint."""
    commit: str | None = None
    """The commit of a Hub checkpoint."""


def fingerprint_of(
    model: str | Path,
    *,
    revision: str | None = None,
    chat_template: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> ModelFingerprint:
    """Return the fingerprint of a checkpoint's folder, or of a Hub id in the local Hub cache.

    `chat_template` is the text of a template that replaces the tokenizer's; `settings` are the engine's settings that
    affect answers (dtype, context length). Raises ModelError where a file cannot be read or the commit is unknown.
    """
    extra = {
        "chat_template": None if chat_template is None else sha256(chat_template),
        "settings": dict(settings or {}),
    }
    if is_hub_id(str(model)):
        commit = hub_commit(str(model), revision)
        if commit is None:
            raise ModelError(
                f"{model}: its commit is unknown on this machine; load the model once, or give a local folder"
            )
        return ModelFingerprint(sha256(canonical_json({"hub": [str(model), commit], **extra})), {}, commit)
    if (adapter := adapter_of(model)) is not None:
        own = hash_adapter(adapter)
        base = fingerprint_of(adapter.base, revision=adapter.revision)
        digest = sha256(canonical_json({"adapter": own, "base": base.digest, **extra}))
        return ModelFingerprint(
            digest, own | {f"base/{name}": value for name, value in base.files.items()}, base.commit
        )
    files = hash_folder(Path(model).expanduser())
    return ModelFingerprint(sha256(canonical_json({"files": files, **extra})), files)


def hub_commit(repo_id: str, revision: str | None = None) -> str | None:
    """Return the commit of a Hub checkpoint in the local Hub cache, or None where it is not in the cache."""
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(repo_id, "config.json", revision=revision or "main")
    return Path(file).parent.name if isinstance(file, str) else None


def hash_folder(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each configuration, tokenizer, template and weight file, by name within the folder."""
    weights = weight_files(folder)
    if not weights:
        raise ModelError(f"{folder}: has no weights, which a fingerprint needs; give a checkpoint's folder")
    return _hash_files([*config_files(folder), *tokenizer_files(folder), *weights], folder)


def hash_adapter(adapter: Adapter) -> dict[str, str]:
    """Return the SHA-256 of each file of an adapter by name; that of its configuration leaves out the base's place."""
    hashes = _hash_files([*tokenizer_files(adapter.folder), adapter.weights], adapter.folder)
    return hashes | {CONFIG: sha256(canonical_json(adapter.settings()))}


def _hash_files(files: Sequence[Path], folder: Path) -> dict[str, str]:
    hashes: dict[Path, str] = {}
    with _cache() as cache:
        for file in files:
            if (known := cache.get(file)) is not None:
                hashes[file] = known
        missing = [file for file in files if file not in hashes]
        # hashlib releases the interpreter lock: four threads hash shards as fast as the disk reads
        with ThreadPoolExecutor(max_workers=4) as pool:
            for file, (stat, digest) in zip(missing, pool.map(_hash_file, missing), strict=True):
                hashes[file] = digest
                cache.put(file, stat, digest)
    return {file.relative_to(folder).as_posix(): hashes[file] for file in files}


def _hash_file(file: Path) -> tuple[os.stat_result, str]:
    try:
        stat = file.stat()
        with file.open("rb") as stream:
            return stat, hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); check the file and its permissions") from None


class _Cache:
    """A cache of hashes by path, size and modification time. A cache that cannot be used acts as an empty one."""

    def __init__(self, connection: sqlite3.Connection | None) -> None:
        self.connection = connection

    def get(self, file: Path) -> str | None:
        """Return the file's hash where it is cached and the file has not changed since."""
        if self.connection is None:
            return None
        with contextlib.suppress(sqlite3.Error, OSError):
            stat = file.stat()
            row = self.connection.execute(
                "SELECT sha256 FROM hashes WHERE path = ? AND size = ? AND mtime_ns = ?",
                (str(file.resolve()), stat.st_size, stat.st_mtime_ns),
            ).fetchone()
            return None if row is None else str(row[0])
        return None

    def put(self, file: Path, stat: os.stat_result, digest: str) -> None:
        """Store a hash, unless the file is so new that a change might not show in its time stamp."""
        if self.connection is None or time.time() - stat.st_mtime < SETTLED:
            return
        with contextlib.suppress(sqlite3.Error, OSError), self.connection:
            self.connection.execute(
                "INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)",
                (str(file.resolve()), stat.st_size, stat.st_mtime_ns, digest),
            )


@contextlib.contextmanager
def _cache() -> Iterator[_Cache]:
    connection: sqlite3.Connection | None = None
    try:
        folder = Path(os.environ.get("OLMES_CACHE") or Path.home() / ".cache" / "olmes")
        folder.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(folder / "hashes.sqlite", timeout=5)
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"
            )
    except (sqlite3.Error, OSError, RuntimeError):  # RuntimeError: no home folder
        if connection is not None:
            connection.close()
        connection = None
    try:
        yield _Cache(connection)
    finally:
        if connection is not None:
            connection.close()
