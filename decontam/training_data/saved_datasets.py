"""A `datasets` directory (`save_to_disk`): its data files, and its descriptions after rows were removed.

`datasets` stores the results of `map` and `filter` beside the data, under the fingerprint of `state.json`. A copy with
fewer rows needs a new fingerprint, or `datasets` would use the results of the original for it.
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
"""Files that describe data and contain no rows."""


def data_files(folder: Path) -> list[Path]:
    """List the files of one split, as in its state. Raises DataError."""
    state = folder / STATE
    try:
        entries = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
        return [folder / entry["filename"] for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{state}: not the state of a datasets directory ({error})") from error


def is_cache(path: Path) -> bool:
    """Whether a file is a cached result of `datasets`, or a leftover: an arrow file that the state does not list."""
    if path.suffix != ".arrow":
        return False
    if path.name.startswith(("cache-", "tmp")):
        return True
    return (path.parent / STATE).is_file() and path not in data_files(path.parent)


def renew(folder: Path, removed: Mapping[str, list[int]], rows: Mapping[str, int]) -> None:
    """Update the descriptions of a copy.

    `removed`: the rows removed from each file, `rows`: the number that remain, by path below the folder.
    """
    counts: dict[str, int] = {}
    for state in sorted(folder.rglob(STATE)):
        files = [str(file.relative_to(folder)) for file in data_files(state.parent)]
        description = read_json(state)
        if not any(removed.get(file) for file in files):
            continue
        removed_here = {file: removed.get(file, []) for file in files}
        description["_fingerprint"] = sha256(canonical_json([description.get("_fingerprint"), removed_here]))[:16]
        write_text(state, json.dumps(description, indent=2, sort_keys=True))
        counts[str(description.get("_split"))] = sum(rows[file] for file in files)
    for info in sorted(folder.rglob(INFO)) if counts else ():
        write_text(info, json.dumps(_counted(read_json(info), counts), indent=2, sort_keys=True))


def _counted(info: Any, counts: Mapping[str, int]) -> Any:
    """Set the new numbers of rows in a description and drop its sizes in bytes, which no longer hold."""
    splits = info.get("splits") if isinstance(info, dict) else None
    if not isinstance(splits, dict) or not set(splits) & set(counts):
        return info
    renewed = {
        name: {**{key: value for key, value in split.items() if key not in ("num_bytes", "shard_lengths")},
               "num_examples": counts[name]} if name in counts else split
        for name, split in splits.items()
    }  # fmt: skip
    unchanged = {name: value for name, value in info.items() if name not in ("dataset_size", "size_in_bytes")}
    return {**unchanged, "splits": renewed}
