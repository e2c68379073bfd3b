"""The files of a training set, and the blocks in which they are scanned.

One `--train` names one set: a file, a folder, a pattern, a `datasets` directory, or a Hub id. The rows of a block count
from 0; their position in the set is known when all blocks before it have been read.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from olmes_suite.errors import DataError, MissingData, UsageError, first_line
from olmes_suite.files import cache_folder, file_signature, read_digest, write_text
from olmes_suite.tasks.documents import DataSource
from olmes_suite.training_rows import saved_datasets
from olmes_suite.training_rows.files import PACKED, Block, in_folder, in_hidden, kind_of, known_kinds
from olmes_suite.training_rows.text import shape

BLOCK_BYTES = 64 << 20
PRODUCTS = frozenset({
    ".parts", "clean", "report.json", "report.html", "pairs.parquet", "flags.json", "flags_short.json",
    "candidates.parquet", "removed.jsonl",
})  # fmt: skip
"""The files that a scan writes into its folder."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True, slots=True)
class TrainSet:
    """One training set."""

    name: str
    """The argument as the user gave it."""
    root: Path
    """The file or folder of the set."""
    files: tuple[Path, ...]
    """The files, in the order in which rows are counted."""
    contents: Mapping[Path, str] = field(default_factory=dict)
    """Hash of the content of the files for which it is known."""

    def blocks(self, file: Path) -> Iterator[Block]:
        """Divide one of the set's files into blocks. Raises DataError for parquet that cannot be read."""
        content = self.contents.get(file) or file_signature(file)
        return (replace(block, content=content) for block in blocks(file))


def find(name: str, source: DataSource, split: str = "train", out: Path | None = None) -> TrainSet:
    """Find the training set of one `--train`; files of the report folder `out` are not part of a folder or pattern.

    Raises UsageError for a path that does not exist, MissingData for a Hub id that is not available.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        files = tuple(_in_folder(path, split, out))
        if not files:
            raise UsageError(f"--train {name}: the folder holds no parquet, JSONL, CSV or arrow files")
        return TrainSet(name, path, files)
    if path.exists():
        if kind_of(path) is None:
            raise UsageError(f"--train {name}: unknown kind of file; known: {known_kinds()}")
        return TrainSet(name, path, (path,))
    if any(sign in name for sign in "*?["):
        fixed = Path(os.path.commonpath([name, re.split(r"[*?[]", name)[0] + "x"]))
        paths = map(Path, sorted(glob.glob(str(path), recursive=True)))
        files = tuple(p for p in paths if kind_of(p) and p.is_file() and not _product(p, fixed, out))
        if not files:
            raise UsageError(f"--train {name}: no file matches")
        return TrainSet(name, _root(files), files)
    if _HUB_ID.fullmatch(name) and kind_of(path) is None:
        return _hub(name, source, split)
    raise UsageError(f"--train {name}: no such file or folder")


def _root(files: Sequence[Path]) -> Path:
    """Return the folder that contains all files."""
    return Path(os.path.commonpath([file.parent for file in files]))


def _in_folder(folder: Path, split: str, out: Path | None) -> list[Path]:
    """List the files of a folder; for a `datasets` directory, those of the split, or of all without that one."""
    if saved := saved_datasets.splits(folder):
        return [file for name in ([split] if split in saved else saved) for file in in_folder(saved[name])]
    return in_folder(folder, lambda path: _product(path, folder, out))


def hidden(path: Path, folder: Path, out: Path | None) -> bool:
    """Whether a file of the folder is in a hidden folder (`.git`, `.ipynb_checkpoints`), or part of a report."""
    return in_hidden(path, folder) or _product(path, folder, out)


def _product(path: Path, folder: Path, out: Path | None) -> bool:
    """Whether a scan whose report is in the folder wrote the file."""
    if out is None or not (where := out.resolve()).is_relative_to(folder.resolve()):
        return False
    if where != folder.resolve():
        return path.resolve().is_relative_to(where)
    return path.resolve().relative_to(where).parts[0] in PRODUCTS


def _hub(name: str, source: DataSource, split: str) -> TrainSet:
    """Find a data set by its id: in a mirror, otherwise on the Hub through `datasets`."""
    for mirror in source.mirrors:
        files = tuple(sorted((mirror / name).glob(f"*/{split}.parquet")))
        if files:
            return TrainSet(name, mirror / name, files)
    import datasets

    try:
        loaded = datasets.load_dataset(name, split=split)
        files = tuple(Path(entry["filename"]) for entry in loaded.cache_files)
    except Exception as error:  # the Hub's client raises many unrelated types
        raise HubSetMissing(
            f"--train {name}: no such file or folder, and not available as a data set of the Hub ({first_line(error)})"
        ) from error
    return TrainSet(name, _root(files), files)


class HubSetMissing(MissingData):
    """Raised for a training set that is neither on this machine nor on the Hub."""

    exit_code = 2


def by_content(train: TrainSet) -> TrainSet:
    """Add the hash of each file to a set; a file that has not changed since it was hashed is not read again."""
    return replace(train, contents={file: digest for file in train.files if (digest := _hash(file))})


def _hash(file: Path) -> str:
    """Hash a file (SHA-256), cached by its path, size and time; empty where it cannot be read."""
    try:
        memo = cache_folder() / "decontam" / "hashes" / file_signature(file)
        if (known := read_digest(memo)) is not None:
            return known
        with file.open("rb") as handle:
            digest = hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError:
        return ""  # the scan names the file
    write_text(memo, digest)
    return digest


def blocks(file: Path) -> Iterator[Block]:
    """Divide one file into blocks. Raises DataError for parquet that cannot be read, OSError for a missing file."""
    kind, size = kind_of(file), file.stat().st_size
    assert kind is not None
    if kind == "parquet":
        yield from _row_groups(file)
    elif kind == "jsonl" and file.suffix.lower() not in PACKED and shape(file) == "lines":
        for start in range(0, max(size, 1), BLOCK_BYTES):
            yield Block(file, kind, start, min(start + BLOCK_BYTES, size))
    else:
        yield Block(file, kind)


def _row_groups(file: Path) -> Iterator[Block]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet: {first_line(error)}") from error
    first, size = 0, 0
    for group in range(about.num_row_groups):
        size += about.row_group(group).total_byte_size
        if size >= BLOCK_BYTES:
            yield Block(file, "parquet", first, group + 1)
            first, size = group + 1, 0
    if first < about.num_row_groups or about.num_row_groups == 0:
        yield Block(file, "parquet", first, about.num_row_groups)
