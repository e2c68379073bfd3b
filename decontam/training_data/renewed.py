"""The descriptions of a `datasets` directory after rows were removed.

`datasets` stores the results of `map` and `filter` beside the data, under the fingerprint of `state.json`. A copy with
fewer rows needs a new fingerprint, or `datasets` would use the results of the original for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmes_suite.files import read_json, write_text
from olmes_suite.records import canonical_json, sha256
from olmes_suite.training_rows.saved_datasets import INFO, STATE, data_files


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
