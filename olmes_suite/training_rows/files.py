"""Which files hold training rows, what kind each is, and the parts in which one is read."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from olmes_suite.errors import DataError
from olmes_suite.files import file_signature
from olmes_suite.training_rows import saved_datasets

KINDS = {
    ".parquet": "parquet", ".arrow": "arrow", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl",
    ".csv": "csv", ".tsv": "csv",
}  # fmt: skip
PACKED = (".gz", ".zst")
"""Compressions of text files."""
SPLITS = {
    "train": ("train", "training"), "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}  # fmt: skip
"""Names of splits in files and folders, as on the Hub: `train-00000-of-00002.parquet`, `test/a.jsonl`."""
MADE, MADE_DATA = ("manifest.json", "rejected.jsonl"), "data"
"""Files by which a folder that `olmes data` has made is known; name of its data file without the ending."""
_NUMBERED = re.compile(r"([a-z]+)(?:[-_.]?\d.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Block:
    """A part of one file that can be read alone: some row groups, a range of bytes, or the whole file."""

    path: Path
    kind: str
    """parquet, arrow, jsonl or csv."""
    first: int = 0
    """First row group or byte."""
    end: int | None = None
    """The row group or byte after the last; None: all."""
    content: str = ""
    """Hash of the file's content where it is known, otherwise its signature on the machine that plans the scan: other
    machines may see other inodes."""

    @property
    def packing(self) -> str:
        """`gz`, `zst`, or an empty string."""
        return self.path.suffix[1:].lower() if self.path.suffix.lower() in PACKED else ""

    @property
    def key(self) -> str:
        """A key that changes with the file and the range."""
        return f"{self.content or file_signature(self.path)} {self.kind} {self.first} {self.end}"


def stem(path: Path) -> Path:
    """Return the path without the ending of its compression."""
    return path.with_suffix("") if path.suffix.lower() in PACKED else path


def kind_of(path: Path) -> str | None:
    """Return the kind of a file by its name; None for a file that contains no rows."""
    kind = KINDS.get(stem(path).suffix.lower())
    return None if path.suffix.lower() in PACKED and kind not in ("jsonl", "csv") else kind


def known_kinds() -> str:
    """List the endings of files that hold rows, for messages."""
    return f"{', '.join(KINDS)}, and {', '.join(PACKED)} of text"


def in_folder(folder: Path, skip: Callable[[Path], bool] = lambda path: False) -> list[Path]:
    """List the files with rows of a folder, by name, without hidden ones and those that `skip` names.

    For a `datasets` directory of one split, these are the files of its state; for a folder that `olmes data` has made,
    the data file without the held-out rows and the rejected ones. Raises DataError for a damaged state.
    """
    if (folder / saved_datasets.STATE).is_file():
        return saved_datasets.data_files(folder)
    if all((folder / name).is_file() for name in MADE):
        return [file for file in sorted(folder.glob(f"{MADE_DATA}.*")) if kind_of(file)]
    return [
        path for path in sorted(folder.rglob("*"))
        if path.is_file() and kind_of(path) and not path.name.startswith("_")
        and path.name not in saved_datasets.ABOUT and not in_hidden(path, folder) and not skip(path)
    ]  # fmt: skip


def in_hidden(path: Path, folder: Path) -> bool:
    """Whether a file of the folder is hidden, or in a hidden folder (`.git`, `.ipynb_checkpoints`)."""
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def of_split(folder: Path, split: str) -> tuple[list[Path], int]:
    """Return the files of one split of a folder, and how many files belong to other splits.

    A `datasets` directory names its splits; elsewhere files and folders are named after theirs (`SPLITS`). Files that
    are not named after any split belong to `train`, unless others are named so. Raises DataError if the folder has
    splits, but not this one.
    """
    if saved := saved_datasets.splits(folder):
        if split not in saved:
            raise DataError(f"{folder}: has no split {split!r}; it has {', '.join(saved)}")
        return in_folder(saved[split]), 0
    files = in_folder(folder)
    if (folder / saved_datasets.STATE).is_file():
        return files, 0
    owners = {file: _split_of(file.relative_to(folder), split) for file in files}
    chosen = [file for file in files if owners[file] == _usual(split)]
    if not chosen and (split == "train" or not any(owners.values())):
        chosen = [file for file in files if not owners[file]]
    if files and not chosen:
        raise DataError(
            f"{folder}: has no split {split!r}; it has {', '.join(sorted({*filter(None, owners.values())}))}"
        )
    return chosen, len(files) - len(chosen)


def _usual(name: str) -> str:
    folded = name.lower()
    return next((split for split, names in SPLITS.items() if folded in names), folded)


def _split_of(path: Path, wanted: str) -> str:
    """Return the split that a file or one of its folders is named after; an empty string for none."""
    for part in (*path.parts[:-1], path.name.partition(".")[0]):
        match = _NUMBERED.fullmatch(part)
        name = match[1] if match else part
        if (usual := _usual(name)) in SPLITS or name == wanted:
            return usual
    return ""
