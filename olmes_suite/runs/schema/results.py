"""results.json: the scores of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from olmes_suite.files import write_json
from olmes_suite.runs.schema.record import OPTIONAL, SCHEMA, Record, read_record

if TYPE_CHECKING:
    from olmes_suite.stats import Estimate

RESULTS = "results.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Record):
    """A score with its error bar, as fractions."""

    value: float | None = None
    stderr: float | None = None
    """Null where there is too little data for one, as is `ci95`."""
    ci95: tuple[float, float] | None = None

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """The metric of an estimate."""
        return cls(value=estimate.value, stderr=estimate.stderr, ci95=estimate.ci95 or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult(Metric):
    """The unweighted mean of a suite's tasks; null unless every task has its score."""

    missing: tuple[str, ...] = ()
    """Tasks without a score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean(Record):
    """The scores without the documents that the checkpoint's training data is known to contain."""

    n: int = 0
    """Documents that are left."""
    flagged: int = 0
    """Documents that are left out."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    empty: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Sub-tasks of a group of which no document is left."""
    unscanned: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Sub-tasks of a group that the training data was not compared with; they count in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorScore(Record):
    """What the best constant answer scores."""

    answer: str
    value: float | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Answer to its score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult(Record):
    """One task, group or sub-task of a run."""

    n: int = 0
    """Documents."""
    primary: str = ""
    """Name of the metric that stands for the task."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Empty for a task that failed."""
    aggregate: str | None = field(default=None, metadata=OPTIONAL)
    """How a group's score is made of its sub-tasks' scores."""
    clean: Clean | None = None
    """Null where the training data was not compared with the task."""
    flags: Mapping[str, int] = field(default_factory=dict)
    """Flag to the number of documents that carry it."""
    fingerprint: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    """The hashes of prompt, data, scorer and settings; a group has none of its own."""
    of: int | None = field(default=None, metadata=OPTIONAL)
    """Documents of the whole task, where the run was limited."""
    left_out: Mapping[str, int] | None = field(default=None, metadata=OPTIONAL)
    """What has no scorer here, to the number of rows that were left out for it."""
    subtasks: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Sub-tasks of a group; each has its own entry in `tasks`."""
    error: str | None = field(default=None, metadata=OPTIONAL)
    """Why the task has no score."""
    imported: bool = field(default=False, metadata=OPTIONAL)
    floor: FloorScore | None = field(default=None, metadata=OPTIONAL)
    """Only in a run of the floor."""

    @property
    def score(self) -> Metric | None:
        """The primary metric; None where it has no value here."""
        return self.metrics.get(self.primary)

    @property
    def failed(self) -> bool:
        """The task has no score."""
        return self.error is not None

    @property
    def flagged(self) -> int:
        """Documents that the checkpoint's training data is known to contain."""
        return self.clean.flagged if self.clean is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(Record):
    """The content of results.json. It names no time, host or path: the same inputs give the same text."""

    schema: str = SCHEMA
    run: str
    model: str
    imported: bool = field(default=False, metadata=OPTIONAL)
    """The scores come from another evaluation."""
    tasks: Mapping[str, TaskResult]
    """Tasks, groups and sub-tasks by name."""
    suites: Mapping[str, SuiteResult] = field(default_factory=dict)
    version: int | None = field(default=None, metadata=OPTIONAL)
    """Counts the times that the run was scored; absent until it was scored again."""

    @property
    def top_tasks(self) -> dict[str, TaskResult]:
        """The tasks and groups without the groups' sub-tasks."""
        parts = {part for entry in self.tasks.values() for part in entry.subtasks or ()}
        return {name: entry for name, entry in self.tasks.items() if name not in parts}

    @property
    def failed(self) -> list[str]:
        """Tasks that failed or lacked data."""
        return [name for name, entry in self.tasks.items() if entry.failed]

    def leaves(self, task: str) -> list[TaskResult]:
        """The entries that hold the fingerprints of a task: of a group, its sub-tasks'. Raises KeyError."""
        entry = self.tasks[task]
        return [self.tasks[part] for part in entry.subtasks or ()] or [entry]


def is_finished(run: Path) -> bool:
    """The folder holds a finished run."""
    return (run / RESULTS).is_file()


def read_results(run: Path) -> Results:
    """The scores in a run's folder. Raises DataError for a damaged file, UsageError for a newer major version."""
    return read_record(Results, run / RESULTS)


def write_results(run: Path, results: Results) -> None:
    """Write the scores into a run's folder, whole or not at all."""
    write_json(run / RESULTS, results.as_json())
