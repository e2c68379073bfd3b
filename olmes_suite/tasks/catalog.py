"""Lookup of tasks by name: shipped with the package, added by the user, or shipped with lm-eval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from olmes_suite.errors import UsageError
from olmes_suite.extras import installed
from olmes_suite.tasks.index import PREFIX, TaskEntry, full_name, index, nearest

include_paths: list[Path] = []
"""Folders of the user's lm-eval task files, searched before lm-eval's tasks. Commands extend it with `include`."""


def include(folders: Iterable[Path]) -> None:
    """Add folders to the search."""
    include_paths.extend(folder for folder in folders if folder not in include_paths)


@contextmanager
def including(folders: Iterable[Path]) -> Iterator[None]:
    """Add folders to the search inside the block, and restore the search and the index after it."""
    previous_paths, previous_names = list(include_paths), set(index())
    include(folders)
    try:
        yield
    finally:
        include_paths[:] = previous_paths
        for name in set(index()) - previous_names:
            del index()[name]


def find(name: str) -> TaskEntry:
    """Find the entry of a task, prefix optional, among shipped tasks, the user's tasks and lm-eval's tasks.

    Raises UsageError naming the nearest task for an unknown name.
    """
    entry = index().get(full_name(name))
    if entry is None and installed("lm_eval"):
        from olmes_suite.tasks import external

        entries = external.find(name, tuple(include_paths))
        index().update({e.name: e for e in entries})
        entry = entries[0] if entries else None
    if entry is None:
        raise UsageError(
            f"unknown task {name!r}{nearest(name, [n.removeprefix(PREFIX) for n in index()])}; `olmes tasks` lists them"
        )
    return entry
