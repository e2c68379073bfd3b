"""A cache of the answers' log-probabilities under the reference model, keyed by content.

The reference is the checkpoint that the stage starts from, so the policy computes them before its first step, and no
second model has to be in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from olmes_suite.files import storage
from olmes_suite.records import canonical_json, sha256

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def key(rows: Iterable[Mapping[str, Any]], reference: str) -> str:
    """Return the SHA-256 over the reference's weights and the token ids of every pair.

    Data, tokenizer, template and lengths determine the ids, so the key changes with any of them and with nothing else.
    `reference` is a hash of the weights and of the precision that they run in.
    """
    import hashlib

    total = hashlib.sha256(reference.encode())
    for row in rows:
        ids = [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]]
        total.update(canonical_json(ids).encode())
    return sha256(total.digest())


def read(name: str, count: int) -> dict[str, list[float]] | None:
    """Return the cached columns; None if there are none, or if they do not have `count` rows."""
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(_file(name)).to_pydict()
    except (OSError, ValueError):
        return None
    columns = {column: table.get(column, []) for column in COLUMNS}
    return columns if all(len(values) == count for values in columns.values()) else None


def write(name: str, columns: dict[str, list[float]]) -> None:
    """Write the columns to the cache."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = _file(name)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    with storage(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({column: pa.array(columns[column], pa.float32()) for column in COLUMNS}), part)
        part.replace(file)


def _file(name: str) -> Path:
    from olmes_suite.files import cache_folder

    return cache_folder() / "reference" / f"{name}.parquet"
