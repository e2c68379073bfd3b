"""Log-probabilities of the answers under the reference model, computed once and kept by content.

The reference is the checkpoint that the stage starts from, so the policy itself computes them before its first step,
and no second model is ever in memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from olmes_suite.files import storage
from olmes_suite.records import canonical_json, sha256

COLUMNS = ("ref_chosen_logps", "ref_rejected_logps")


def key(rows: Any, reference: str) -> str:
    """SHA-256 over the reference's weights and every pair in token ids: data, tokenizer, template and lengths decide
    the ids, so a change of any of them, and of nothing else, is another key.

    `reference` is a hash of the weights and of how they are run.
    """
    import hashlib

    total = hashlib.sha256(reference.encode())
    for row in rows:
        ids = [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]]
        total.update(canonical_json(ids).encode())
    return sha256(total.digest())


def read(name: str, count: int) -> dict[str, list[float]] | None:
    """The kept columns; None where there are none, or not `count` of them."""
    import pyarrow.parquet as pq

    try:
        found = pq.read_table(_file(name)).to_pydict()
    except (OSError, ValueError):
        return None
    columns = {column: found.get(column, []) for column in COLUMNS}
    return columns if all(len(values) == count for values in columns.values()) else None


def write(name: str, columns: dict[str, list[float]]) -> None:
    """Keep the columns."""
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
