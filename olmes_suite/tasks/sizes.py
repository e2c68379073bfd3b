"""The number of documents of each leaf task, stored in a file because planning must work without the data sets.

`python -m olmes_suite.tasks.sizes MIRROR …` counts the documents in the mirrors; other tasks keep their number, which
is the published one. The size of IFEval-OOD, 284, is not published: between 100 and 567 it is the only number of
documents that is consistent with all of its scores in the Tülu 3 paper.
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
    """Read the number of documents of each leaf task."""
    path = index.tasks_folder() / SIZES
    recorded: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return recorded


def leaf_sizes(task: str) -> list[int] | None:
    """Return the number of documents of each leaf of a task, prefix optional; None if one is not known.

    Raises UsageError for an unknown task.
    """
    name = index.full_name(task)
    leaves = catalog.find(name).leaves
    known_sizes = [sizes().get(leaf) or _own(leaf) for leaf in leaves]
    return None if None in known_sizes else [size for size in known_sizes if size is not None]


def _own(leaf: str) -> int | None:
    """Count the rows of a user's task that is a file of questions; None for another task."""
    from olmes_suite.tasks.question_file import is_question_task
    from olmes_suite.training_rows.reading import rows_of

    entry = index.index()[leaf]
    return sum(1 for _ in rows_of(Path(entry.dataset))) if is_question_task(entry) else None


def count(mirrors: list[Path]) -> dict[str, int]:
    """Count the documents of all tasks whose data is in the mirrors."""
    from olmes_suite.tasks.documents import DataSource
    from olmes_suite.tasks.load import load_task

    counts, source = dict(sizes()), DataSource(tuple(mirrors))
    for entry in index.index().values():
        if entry.members:
            continue
        try:
            counts[entry.name] = len(load_task(index.task_file(entry), source).task_docs)
        except OlmesError as error:
            print(f"{entry.name}: {error}", file=sys.stderr)
    return counts


if __name__ == "__main__":
    counted = count([Path(argument) for argument in sys.argv[1:]])
    text = json.dumps(counted, indent=0, sort_keys=True) + "\n"
    (index.tasks_folder() / SIZES).write_text(text, encoding="utf-8")
