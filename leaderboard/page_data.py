"""The data of the page: rows (checkpoints), cells (scores with the data behind their trust marks) and columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from olmes_suite.runs.schema import Cost, Lineage, Manifest, Projected

Kind = Literal["measured", "imported", "floor", "mock", "published"]
"""`mock`: made-up or gold answers, without a model."""
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
    """Number of documents of the whole split, where fewer were scored."""
    part: str = ""
    """How the documents were chosen where a plan did (`planned`) or the looks of a gate (`stopped`)."""
    stopped: str = ""
    """The verdict at which the run stopped asking, in words."""
    projected: Projected | None = None
    """The score on all documents, estimated from a baseline; never a cell's own value."""
    metric: str = ""
    flags: Mapping[str, int] = field(default_factory=dict)
    """Number of documents by flag, as in results.json."""
    clean: Clean | None = None
    fingerprint: tuple[str, ...] | None = None
    """One hash for each part of PARTS; None for scores without a fingerprint."""
    judged: bool = False
    """Whether a judge or classifier model gave the score."""
    floor: float | None = None
    """The score of a constant answer on the same data."""
    error: str | None = None
    run: str = ""
    """The run of the score."""
    note: str = ""
    """The source's remark about the score."""
    cost: Cost = field(default_factory=Cost)
    """Tokens and endings of the answers."""
    samples: int | None = None
    """Number of answers per document, where there are several."""
    samples_sd: float | None = None
    """Standard deviation of the score from one sample to the next."""


@dataclass(frozen=True, slots=True)
class Average:
    """The unweighted mean of a suite."""

    value: float | None
    lo: float | None = None
    hi: float | None = None
    stderr: float | None = None
    missing: tuple[str, ...] = ()
    part: str = ""
    """`planned` or `stopped` where it is over some of the documents."""
    projected: Projected | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One recorded run."""

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
    """Equal for runs of the same checkpoint with the same seed, limit and kind of documents."""
    manifest: Manifest = field(repr=False)

    @property
    def lineage(self) -> Lineage:
        """The contents of the checkpoint's olmes_lineage.json."""
        return self.manifest.lineage


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint, with runs of different tasks."""

    id: str
    """The name of its newest run."""
    name: str
    kind: Kind
    runs: tuple[Run, ...] = ()
    started: float = 0.0
    stage: str = ""
    step: int | None = None
    parent: str | None = None
    """The row of the checkpoint that it was trained from, or the path of a checkpoint without a run."""
    lineage: str = ""
    """Equal for rows that descend from one base model."""
    looks: int = 0
    """The number of times that the lineage has been scored on the unseen suite."""
    cells: Mapping[str, Cell] = field(default_factory=dict)
    suites: Mapping[str, Average] = field(default_factory=dict)
    source: str = ""
    """The source of published numbers."""
    watch: tuple[str, ...] = ()
    """What the watch over the checkpoint's training named."""
    recipe: str = ""
    """The keys in which the checkpoint's recipe differs from those of rows of the same stage and parent."""
    apart: str = ""
    """What tells the row apart from others of the same name: settings that differ, otherwise the run."""
    training: str = ""
    """Equal for the checkpoints that one training saved; "" for one whose training is not known."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """The settings of the newest run (`olmes_suite.runs.differences`)."""

    @property
    def sample(self) -> bool:
        """Whether the documents are the samples that ship with the tasks."""
        return any(run.manifest.sample for run in self.runs)

    @property
    def backend(self) -> str:
        """The backend of the newest run; "" where none is recorded."""
        return (self.runs[0].manifest.engine.backend or "") if self.runs else ""

    @property
    def limit(self) -> int | float | None:
        """Documents of each leaf task that the newest run was limited to; below 1, their share."""
        return self.runs[0].manifest.limit if self.runs else None

    @property
    def tokens(self) -> tuple[float, int] | None:
        """The mean of the tasks' generated tokens per answer, and the number of tasks that count them."""
        known = [cell.cost.tokens.total for cell in self.cells.values() if cell.cost.tokens is not None]
        return (sum(known) / len(known), len(known)) if known else None

    @property
    def at_limit(self) -> float | None:
        """The share of all answers that ended at the token limit."""
        known = [cell.cost.answers for cell in self.cells.values() if cell.cost.answers is not None]
        n = sum(answers.n for answers in known)
        return sum(answers.length for answers in known) / n if n else None


@dataclass(frozen=True, slots=True)
class Column:
    """One task."""

    task: str
    skill: str
    suite: str
    """dev, unseen or other."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A run that is not in the table, and the reason."""

    run: str
    reason: str


@dataclass(frozen=True, slots=True)
class Board:
    """The contents of the page, except for documents."""

    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    suites: tuple[str, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def costs(self) -> bool:
        """Whether any row counts tokens."""
        return any(row.tokens is not None for row in self.rows)
