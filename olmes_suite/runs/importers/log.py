"""The data that readers of other tools' logs return, and functions to read unchecked files, numbers and texts."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError, one_line
from olmes_suite.records import Response

DocId = int | str
WITHOUT_SAMPLES = "task without samples"
"""Why a task is left out whose log has its figure and no documents."""
GROUP = "average of a group, whose tasks are imported"
"""Why a figure is left out that is the average of a group."""


@dataclass(slots=True)
class Document:
    """A document of a task, with the answers and scores of one model."""

    doc_id: DocId
    scores: dict[str, float] = field(default_factory=dict)
    """Metric to score; of several answers the mean."""
    samples: dict[str, list[float]] = field(default_factory=dict)
    """Metric to the scores of several answers (epochs, repeats); empty for one answer."""
    responses: list[tuple[int, int, Response]] = field(default_factory=list)
    """(index of the request, sample, response)."""
    question: str | None = None
    extracted: str | None = None
    reference: str | None = None


@dataclass(slots=True)
class Task:
    """A task of a log."""

    name: str
    documents: dict[DocId, Document] = field(default_factory=dict)
    metrics: list[str] = field(default_factory=list)
    """The metrics in the order of preference."""
    reported: dict[str, float] = field(default_factory=dict)
    """Metric to the figure in the log."""
    counted: int | None = None
    """Number of documents on which the reported figures rest, where the log tells it."""


@dataclass(slots=True)
class Log:
    """The evaluation of one model, in one or several files."""

    model: str
    files: list[Path]
    tasks: dict[str, Task] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason to the number of documents (or of tasks, for reported figures without documents) that are not imported."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What the log says of the model and its settings."""
    started: float | None = None
    """Seconds since 1970; None where the log does not tell it."""


def left_out_line(reason: str, number: int) -> str:
    """Say what is not imported, and how often. The average of a group is no loss: its tasks are here."""
    if reason != GROUP:
        return f"left out: {number} × {reason}"
    if number == 1:
        return "the average of 1 group is not imported: it follows from the group's tasks, which are"
    return f"averages of {number} groups are not imported: they follow from the groups' tasks, which are"


def given(path: Path) -> Path:
    """Return the path. Raises UsageError if there is nothing."""
    if not path.exists():
        raise UsageError(f"{path}: no such file or folder")
    return path


def read_text(path: Path) -> str:
    """Read a file, unpacked if it ends in `.gz`. Raises UsageError."""
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as handle:
                return handle.read()
        return path.read_text(encoding="utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error, 200)}") from error


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises UsageError."""
    return as_object(read_text(path), str(path))


def as_object(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object. Raises UsageError naming the place."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON ({one_line(error, 200)})") from error
    if not isinstance(value, dict):
        raise UsageError(f"{where}: expected a JSON object")
    return value


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (place, object) for each JSON line of a file, unpacked if it ends in `.gz`. Raises UsageError."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if line.strip():
                    yield f"{path}, line {number}", as_object(line, f"{path}, line {number}")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error, 200)}") from error


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping, an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def number(value: Any) -> float | None:
    """Return a finite number or truth value as a float, None for anything else."""
    if isinstance(value, (bool, int, float)) and math.isfinite(value):
        return float(value)
    return None


def seconds(value: Any) -> float | None:
    """Return a time as seconds since 1970: a number, or a date and time in ISO form; None for anything else."""
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except ValueError:
            return None
    return number(value)


def text(value: Any) -> str | None:
    """Return text as it is, other values as JSON, None for None."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def doc_id(value: Any, where: str) -> DocId:
    """Check a document's id. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, (int, str)) or (isinstance(value, int) and abs(value) >= 2**63):
        raise UsageError(f"{where}: a document's id must be an integer or text, not {value!r:.60}")
    return value


def no_logs(path: Path, expected: str) -> UsageError:
    """Return the error for a path without logs of a format."""
    return UsageError(f"{path}: no {expected}")
