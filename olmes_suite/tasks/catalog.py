"""Lookup of tasks by name: shipped with the package, added by the user, or shipped with lm-eval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from olmes_suite.errors import UsageError
from olmes_suite.extras import installed
from olmes_suite.tasks.index import PREFIX, TaskEntry, full_name, index, nearest

if TYPE_CHECKING:
    from olmes_suite.tasks.external import Names

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
    if entry is not None:
        if include_paths and not Path(entry.file).is_absolute():
            _refuse_second(name, entry)
        return entry
    shipped = [task.removeprefix(PREFIX) for task in index()]
    if not installed("lm_eval"):
        raise UsageError(f"unknown task {name!r}{nearest(name, shipped)}; `olmes tasks` lists them")
    from olmes_suite.tasks import external

    entries = external.find(name, tuple(include_paths)) if name else []
    if not entries:
        raise UsageError(_unknown(name, shipped, external.names(tuple(include_paths)) if name else external.Names()))
    index().update({e.name: e for e in entries})
    return entries[0]


def _refuse_second(name: str, entry: TaskEntry) -> None:
    """Raise UsageError where a folder of the user's defines a shipped task's name, which would not be found."""
    if not installed("lm_eval"):
        return
    from olmes_suite.tasks import external

    for own_name in {name, entry.name} & external.own_names(tuple(include_paths)):
        raise UsageError(
            f"--include-path: a task file in {', '.join(map(str, include_paths))} has the name {own_name!r}, which is "
            "that of a shipped task; give yours another"
        )


def own(
    folders: Iterable[Path],
    unusable: Callable[[str], None] | None = None,
    without_data: Callable[[str], None] | None = None,
) -> list[TaskEntry]:
    """Return the tasks and groups in the user's folders, by name, without the sub-tasks of those groups.

    `unusable` is called with a line on each group that has no average here; its tasks are listed. `without_data` is
    called with a line on each task whose file of questions does not exist, if any other task is left. Raises UsageError
    for a folder without tasks, for a damaged task file, and for such a task without `without_data`.
    """
    from olmes_suite.tasks import external
    from olmes_suite.tasks.question_file import NoQuestions

    folders = list(folders)
    include(folders)
    names = sorted(name for folder in folders for name in external.names_in(folder).tasks)
    if not names:
        raise UsageError(f"--include-path {', '.join(map(str, folders))}: no task file (a YAML file with `task: NAME`)")
    entries, lacking = [], {}
    for name in dict.fromkeys(names):
        try:
            entries.append(find(name))
        except external.UnusableGroup as error:
            if unusable is not None:
                unusable(str(error))
        except NoQuestions as error:
            lacking[str(error)] = error
    for text, missing in lacking.items():
        if without_data is None or not entries:
            raise missing
        without_data(text)
    members = {member for entry in entries for member in entry.members}
    return [entry for entry in entries if entry.name not in members]


def _unknown(name: str, shipped: list[str], others: Names) -> str:
    """Return the message for a name that is no task here."""
    if tagged := others.tags.get(name):
        return f"{name!r} is a tag of lm-eval, not a task; name its tasks one by one, such as {min(tagged)}"
    near = nearest(name, [*shipped, *others.tasks])
    return f"unknown task {name!r}{near}; `olmes tasks` lists ours, --include-path DIR adds files of your own"
