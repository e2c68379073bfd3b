"""A `datasets` directory (`save_to_disk`): its splits and its data files."""

from __future__ import annotations

import json
from pathlib import Path

from olmes_suite.errors import DataError

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
ABOUT = frozenset({STATE, INFO, SPLITS, "dataset_infos.json"})
"""Files that describe data and contain no rows."""


def data_files(folder: Path) -> list[Path]:
    """List the files of one split, as in its state. Raises DataError."""
    state = folder / STATE
    try:
        entries = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return [folder / entry["filename"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{state}: not the state of a datasets directory ({error})") from error


def splits(folder: Path) -> dict[str, Path]:
    """Return the folder of each split of a `DatasetDict`, in order of their names; empty for any other folder."""
    if not (folder / SPLITS).is_file():
        return {}
    return {path.name: path for path in sorted(folder.iterdir()) if (path / STATE).is_file()}


def is_cache(path: Path) -> bool:
    """Whether a file is a cached result of `datasets`, or a leftover: an arrow file that the state does not list."""
    if path.suffix != ".arrow":
        return False
    if path.name.startswith(("cache-", "tmp")):
        return True
    return (path.parent / STATE).is_file() and path not in data_files(path.parent)
