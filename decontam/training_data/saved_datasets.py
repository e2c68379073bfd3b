"""A `datasets` directory (`save_to_disk`): which files are its data, and its descriptions once rows are gone.

`datasets` keeps the results of `map` and `filter` beside the data, under the fingerprint of `state.json`. A copy with
fewer rows is other data: it needs another fingerprint, or those results are taken for its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError
from olmes_suite.files import read_json, write_text
from olmes_suite.records import canonical_json, sha256

STATE, INFO, SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
ABOUT = frozenset({STATE, INFO, SPLITS, "dataset_infos.json"})
"""Files that describe data and hold none."""


def data_files(folder: Path) -> list[Path]:
    """The files of one split, as its state lists them. Raises DataError."""
    state = folder / STATE
    try:
        listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return [folder / entry["filename"] for entry in listed]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{state}: not the state of a datasets directory ({error})") from error


def is_cache(path: Path) -> bool:
    """Is it a result that `datasets` keeps, or a leftover: an arrow file that is none of its folder's data?"""
    if path.suffix != ".arrow":
        return False
    if path.name.startswith(("cache-", "tmp")):
        return True
    return (path.parent / STATE).is_file() and path not in data_files(path.parent)


def renew(folder: Path, removed: Mapping[str, list[int]], rows: Mapping[str, int]) -> None:
    """Bring the descriptions of a copy up to date.

    `removed`: the rows that are gone from each file, `rows`: how many are left, by path below the folder.
    """
    counts: dict[str, int] = {}
    for state in sorted(folder.rglob(STATE)):
        files = [str(file.relative_to(folder)) for file in data_files(state.parent)]
        told = read_json(state)
        if not any(removed.get(file) for file in files):
            continue
        gone = {file: removed.get(file, []) for file in files}
        told["_fingerprint"] = sha256(canonical_json([told.get("_fingerprint"), gone]))[:16]
        write_text(state, json.dumps(told, indent=2, sort_keys=True))
        counts[str(told.get("_split"))] = sum(rows[file] for file in files)
    for info in sorted(folder.rglob(INFO)) if counts else ():
        write_text(info, json.dumps(_counted(read_json(info), counts), indent=2, sort_keys=True))


def _counted(info: Any, counts: Mapping[str, int]) -> Any:
    """The description with the new numbers of rows; sizes in bytes, which nobody knows before a download, go."""
    splits = info.get("splits") if isinstance(info, dict) else None
    if not isinstance(splits, dict) or not set(splits) & set(counts):
        return info
    renewed = {
        name: {**{key: value for key, value in told.items() if key not in ("num_bytes", "shard_lengths")},
               "num_examples": counts[name]} if name in counts else told
        for name, told in splits.items()
    }  # fmt: skip
    kept = {name: value for name, value in info.items() if name not in ("dataset_size", "size_in_bytes")}
    return {**kept, "splits": renewed}
