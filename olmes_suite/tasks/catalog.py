"""Finding a task by name: one of ours, a user's own, or one that lm-eval ships."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from olmes_suite.errors import UsageError
from olmes_suite.extras import installed
from olmes_suite.tasks.index import PREFIX, TaskEntry, full_name, index, nearest

include_paths: list[Path] = []
"""Folders of the user's own lm-eval task files, searched before lm-eval's. Commands extend it by `include`."""


def include(folders: Iterable[Path]) -> None:
    """Search these folders too, from now on."""
    include_paths.extend(folder for folder in folders if folder not in include_paths)


@contextmanager
def including(folders: Iterable[Path]) -> Iterator[None]:
    """Search these folders too inside the block; after it everything is as before."""
    paths, known = list(include_paths), set(index())
    include(folders)
    try:
        yield
    finally:
        include_paths[:] = paths
        for name in set(index()) - known:
            del index()[name]


def find(name: str) -> TaskEntry:
    """The entry of a task, prefix optional: one of ours, a user's own, or one that lm-eval ships.

    Raises UsageError naming the nearest task.
    """
    entry = index().get(full_name(name))
    if entry is None and installed("lm_eval"):
        from olmes_suite.tasks import external

        found = external.find(name, tuple(include_paths))
        index().update({e.name: e for e in found})
        entry = found[0] if found else None
    if entry is None:
        raise UsageError(
            f"unknown task {name!r}{nearest(name, [n.removeprefix(PREFIX) for n in index()])}; `olmes tasks` lists them"
        )
    return entry
