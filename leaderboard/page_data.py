"""What the page shows: rows (checkpoints), cells (scores with what they can be trusted for), columns. Frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from olmes_suite.runs.schema import Lineage, Manifest

Kind = Literal["measured", "imported", "floor", "published"]
SKILLS = ("knowledge", "reasoning", "math", "code", "instruction following", "safety")
"""Skills in the order in which the page shows them; others follow by name."""
PARTS = ("prompt", "data", "scorer", "settings")


@dataclass(frozen=True, slots=True)
class Clean:
    """The score without the documents that the checkpoint was trained on."""

    value: float | None
    lo: float | None
    hi: float | None
    n: int
    flagged: int


@dataclass(frozen=True, slots=True)
class Cell:
    """One task's score of one row. Scores are fractions."""

    value: float | None
    lo: float | None = None
    hi: float | None = None
    stderr: float | None = None
    n: int = 0
    of: int | None = None
    """Documents of the whole split, where fewer were scored."""
    metric: str = ""
    flags: Mapping[str, int] = field(default_factory=dict)
    """Documents by what befell them; as in results.json."""
    clean: Clean | None = None
    fingerprint: tuple[str, ...] | None = None
    """One hash per part of PARTS; None for scores that carry none."""
    judged: bool = False
    """A judge or classifier model scored it."""
    floor: float | None = None
    """What a constant answer scores on the same data."""
    error: str | None = None
    run: str = ""
    """The run that it comes from."""
    note: str = ""
    """What its source says of it."""


@dataclass(frozen=True, slots=True)
class Average:
    """The unweighted mean of a suite."""

    value: float | None
    lo: float | None = None
    hi: float | None = None
    stderr: float | None = None
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded run, read."""

    name: str
    path: Path
    model: str
    model_path: str
    kind: Kind
    started: float
    """Seconds since 1970."""
    cells: Mapping[str, Cell]
    suites: Mapping[str, Average]
    skills: Mapping[str, str]
    """Task to skill."""
    checkpoint: str
    """Runs with the same value are of the same checkpoint, looked at in the same way."""
    manifest: Manifest = field(repr=False)

    @property
    def lineage(self) -> Lineage:
        """What stands in the checkpoint's olmes_lineage.json."""
        return self.manifest.lineage


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint: all of its runs that do not contradict each other."""

    id: str
    """The name of its newest run."""
    name: str
    kind: Kind
    runs: tuple[Run, ...] = ()
    started: float = 0.0
    stage: str = ""
    step: int | None = None
    parent: str | None = None
    """The row that it was trained from, or the checkpoint's path where that has no run."""
    lineage: str = ""
    """Rows with the same value come from one base model."""
    looks: int = 0
    """How often the lineage has been scored on the unseen suite."""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    suites: Mapping[str, Average] = field(default_factory=dict)
    source: str = ""
    """Where published numbers stand."""


@dataclass(frozen=True, slots=True)
class Column:
    """One task."""

    task: str
    skill: str
    suite: str
    """dev, unseen or other."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A run that the page could not take in."""

    run: str
    reason: str


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that the page shows, but for documents."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    suites: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
