"""Data sets whose files of JSON lines have no common schema, so that `datasets` does not load them from the Hub.

A task file lists the files that make up its configuration, each with the file of answers to join by `id`::

    json_files:
      - {rows: [simple.json, simple_v4.json], answers: [answers/simple.json, answers/simple_v4.json]}

The names of one file are those of its versions; the Hub has the first. The text of a row's members stays text; other
members become JSON, because they differ from row to row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

ID = "id"
Listed = Sequence[Mapping[str, Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Files:
    """A file of rows with its answers, on this machine."""

    rows: Path
    answers: Path | None = None


def find(folder: Path, listed: Listed) -> list[Files]:
    """Find the files in a folder. Empty if any of them is missing."""
    found = [
        Files(rows, answers)
        for names in listed
        if (rows := _first(folder, names["rows"])) is not None
        and ((answers := _first(folder, names.get("answers", ()))) is not None or "answers" not in names)
    ]
    return found if len(found) == len(listed) else []


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def fetch(repository: str, revision: str, listed: Listed, *, cached_only: bool = False) -> list[Files]:
    """Download the files from the Hub, the first name of each. Raises what the Hub's client raises.

    With `cached_only`, files that were downloaded before are found, and the Hub is not asked.
    """
    from huggingface_hub import hf_hub_download

    def path(names: Sequence[str]) -> Path:
        return Path(
            hf_hub_download(repository, names[0], repo_type="dataset", revision=revision, local_files_only=cached_only)
        )

    return [Files(path(names["rows"]), path(names["answers"]) if "answers" in names else None) for names in listed]


def read(files: Sequence[Files]) -> pa.Table:
    """Read the rows of all files, one after another. Raises DataError for lines that are not JSON objects."""
    import pyarrow as pa

    rows: list[dict[str, str]] = []
    for file in files:
        answers = {row[ID]: row for row in _lines(file.answers)} if file.answers else {}
        for row in _lines(file.rows):
            if file.answers and row[ID] not in answers:
                raise DataError(f"{file.answers} has no answer for {row[ID]!r} of {file.rows}")
            rows.append({name: _text(value) for name, value in {**answers.get(row[ID], {}), **row}.items()})
    return pa.Table.from_pylist(rows)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _lines(path: Path) -> list[dict[str, Any]]:
    rows = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON ({error})") from error
        if not isinstance(row, dict) or not isinstance(row.get(ID), str):
            raise DataError(f"{path}, line {number}: expected an object with a text `{ID}`")
        rows.append(row)
    return rows
