"""Evaluations whose documents are files on this machine: which files, and the columns that a prompt shows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.tasks.documents import reads_files
from olmes_suite.training_rows.files import kind_of, of_split

_SHOWN = re.compile(r"\{\{-?\s*([A-Za-z_]\w*)")


def files_of(config: Mapping[str, Any], split: str, path: Path) -> tuple[Path, ...]:
    """Return the files of a split that the task file at `path` names; empty for a data set of the Hub.

    Raises UsageError for one that does not exist, or whose kind has no rows.
    """
    where = str(config["dataset_path"])
    if not reads_files(where):
        return ()
    named = (config.get("dataset_kwargs") or {}).get("data_files")
    if named is None:
        found = (
            [Path(where)] if Path(where).is_file() else of_split(Path(where), split)[0] if Path(where).is_dir() else []
        )
    else:
        of_this = named.get(split, []) if isinstance(named, Mapping) else named
        found = [Path(name) for name in ([of_this] if isinstance(of_this, str) else of_this)]
    for file in found:
        if not file.is_file():
            raise UsageError(f"{path}: data_files: there is no file {file}")
        if kind_of(file) is None:
            raise UsageError(f"{path}: {file}: not a file of rows")
    if not found:
        raise UsageError(f"{path}: names no file of the split {split!r}")
    return tuple(found)


def shown_columns(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns that a task's prompt shows, as far as its template tells; empty for a function."""
    text = config.get("doc_to_text")
    if not isinstance(text, str):
        return ()
    return tuple(dict.fromkeys(_SHOWN.findall(text))) or ((text,) if text.isidentifier() else ())
