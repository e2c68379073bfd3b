"""The interface of a tracker, and the records that are sent to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

PROJECT = "olmes"
"""Project or experiment, unless the tracker's own environment variable names another."""
STEP = "checkpoint_step"
"""Name of the axis on which trackers with axes of their own draw scores."""
Cell = str | float | int | None


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """The run of a tracker: an evaluation, or all evaluations of a training stage."""

    name: str
    folder: Path
    """Folder for what a tracker writes to local files."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Facts that do not change while the run lasts, as JSON-like data."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of texts and numbers. The texts come from models and data sets: they are data, never markup."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The scores and tables that are sent for one step."""

    scores: Mapping[str, float] = field(default_factory=dict)
    """Finite numbers by name, such as `score/tulu3_gsm8k`. Scores are fractions."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Short texts about the run, such as the gate's verdict. A later one replaces an earlier one."""
    tables: tuple[Table, ...] = ()


class Tracker(ABC):
    """A connection to one tracker. Its methods may raise any error: `Session` turns errors into warnings."""

    name: ClassVar[str]
    """Name in `--report-to`; for built-in trackers also the extra that brings the client."""

    @classmethod
    def check(cls) -> None:
        """Raise UsageError for settings with which nothing could be reported. The client is installed."""
        return  # most trackers have nothing to check

    @abstractmethod
    def start(self, run: TrackedRun, known: Mapping[str, str]) -> Mapping[str, str]:
        """Start or continue a run.

        Returns what identifies the run. `known` is what an earlier start returned, empty for a new run.
        """

    @abstractmethod
    def log_scores(self, scores: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""

    @abstractmethod
    def log_facts(self, facts: Mapping[str, str]) -> None:
        """Record texts about the whole run."""

    @abstractmethod
    def log_table(self, table: Table, step: int) -> None:
        """Record a table at a step."""

    @abstractmethod
    def finish(self) -> str:
        """Send what is left and end the connection. Returns where the run can be seen: a URL, or a command."""
