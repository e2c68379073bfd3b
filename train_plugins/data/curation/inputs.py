"""The files that a recipe names, and hashes of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from olmes_suite.errors import DataError, UsageError
from olmes_suite.files import cache_folder, file_signature, read_digest, write_text
from olmes_suite.records import canonical_json, sha256
from olmes_suite.training_rows.files import kind_of, known_kinds, of_split
from olmes_suite.yaml_files import Place
from train_plugins.data.curation.output import file_hash

WEIGHTS = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"})
"""Endings of files that no tokenizer reads."""


def files_of(path: Path, split: str, place: Place | str) -> list[Path]:
    """Return the files of rows of a file or folder. Raises UsageError that begins with `place`."""
    if path.is_file():
        if kind_of(path) is None:
            raise UsageError(f"{place}: {path}: not a file of type {known_kinds()}")
        return [path]
    if not path.is_dir():
        raise UsageError(f"{place}: {path}: no such file or folder")
    try:
        files, _ = of_split(path, split)
    except DataError as error:
        raise UsageError(f"{place}: {error}") from None
    if not files:
        raise UsageError(f"{place}: {path}: holds no files of type {known_kinds()}")
    return files


def content_hash(files: Sequence[Path]) -> str:
    """Return the SHA-256 of one file, or of the hashes of several.

    A file that has not changed since it was hashed is not read again.
    """
    return joined([file_digest(file) for file in files])


def joined(hashes: Sequence[str]) -> str:
    """Return the hash of several files from the hash of each."""
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """Return the SHA-256 of a file; one that has not changed since it was hashed is not read again."""
    memo = cache_folder() / "data" / "hashes" / file_signature(file)
    if (digest := read_digest(memo)) is not None:
        return digest
    digest = file_hash(file)
    write_text(memo, digest)
    return digest


def tokenizer_digest(folder: Path) -> str:
    """Return the hash of a folder's files with their names, without the weights of a model."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.suffix.lower() not in WEIGHTS)
    return sha256(canonical_json([[file.name, file_digest(file)] for file in files]))
