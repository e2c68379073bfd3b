"""Whether the files are there that a user's task file names as its data, told without reading them."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.tasks.documents import BUILDERS
from olmes_suite.tasks.index import TaskEntry


def check(entry: TaskEntry) -> None:
    """Raise UsageError where a file or folder on this machine that holds a user's task is missing.

    Data sets of the Hub, addresses and shipped tasks are let through.
    """
    if not Path(entry.file).is_absolute():
        return
    where = f"as in lm-eval, paths are relative to the current folder, {Path.cwd()}"
    if entry.dataset.startswith(("/", "./", "../")) and not Path(entry.dataset).exists():
        raise UsageError(f"{entry.file}: dataset_path {entry.dataset}: no such file or folder; {where}")
    if entry.dataset not in BUILDERS:
        return
    from olmes_suite.tasks.task_file import read_task_file

    arguments = read_task_file(Path(entry.file), functions=False).get("dataset_kwargs")
    if not isinstance(arguments, Mapping):
        return
    folder = arguments.get("data_dir") or ""
    for name in _texts(arguments.get("data_files")):
        place = Path(str(folder), name)
        if "://" not in name and not place.exists() and not glob.has_magic(name):
            raise UsageError(f"{entry.file}: data_files: there is no file {place}; {where}")


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in a text, a list or a mapping, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts(list(value.values()))
    elif isinstance(value, Sequence):
        for one in value:
            yield from _texts(one)
