"""How many documents each leaf task has, as data: planning needs it before any data set is at hand.

`python -m olmes_suite.tasks.sizes MIRROR …` counts what the mirrors hold; other tasks keep the number that stands
there, which is the published one. IFEval-OOD's, 284, is published nowhere: from 100 to 567 it is the only number of
documents that gives every score of it in the Tülu 3 paper.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path

from olmes_suite.errors import OlmesError
from olmes_suite.tasks import catalog, index

SIZES = "sizes.json"


@lru_cache(maxsize=1)
def sizes() -> dict[str, int]:
    """Leaf task to its number of documents."""
    path = index.tasks_folder() / SIZES
    found: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def leaf_sizes(task: str) -> list[int] | None:
    """Documents of each leaf of a task (prefix optional), None where one is not known. Raises UsageError."""
    name = index.full_name(task)
    leaves = catalog.find(name).leaves
    found = [sizes().get(leaf) for leaf in leaves]
    return None if None in found else [size for size in found if size is not None]


def count(mirrors: list[Path]) -> dict[str, int]:
    """Count the documents of all tasks whose data the mirrors hold."""
    from olmes_suite.tasks.documents import DataSource
    from olmes_suite.tasks.load import load_task

    found, source = dict(sizes()), DataSource(tuple(mirrors))
    for entry in index.index().values():
        if entry.members:
            continue
        try:
            found[entry.name] = len(load_task(index.task_file(entry), source).task_docs)
        except OlmesError as error:
            print(f"{entry.name}: {error}", file=sys.stderr)
    return found


if __name__ == "__main__":
    counted = count([Path(argument) for argument in sys.argv[1:]])
    text = json.dumps(counted, indent=0, sort_keys=True) + "\n"
    (index.tasks_folder() / SIZES).write_text(text, encoding="utf-8")
