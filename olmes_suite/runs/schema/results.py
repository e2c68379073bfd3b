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
ENDINGS = ("length", "unclosed", "empty")
"""How a generated answer can end badly; flags of a document, and counts of `Answers`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Record):
    """A score with its error bar, as fractions."""

    value: float | None = None
    stderr: float | None = None
    """Standard error; like `ci95`, null if there is too little data."""
    ci95: tuple[float, float] | None = None
    room: tuple[float, float] | None = field(default=None, metadata=OPTIONAL)
    """How far sub-tasks without variance widen `ci95` below and above the value, beside the standard error.

    Absent where each sub-task has variance."""

    @classmethod
    def of(cls, estimate: Estimate) -> Self:
        """Convert an estimate to a metric."""
        return cls(value=estimate.value, stderr=estimate.stderr, ci95=estimate.ci95 or None, room=estimate.room)


@dataclass(frozen=True, slots=True, kw_only=True)
class Projected(Record):
    """The estimated score on all documents, from those that were asked and a baseline's scores on all of them.

    The error bar is about the score that asking the rest would give, not about other documents of the same kind.
    """

    value: float | None = None
    stderr: float | None = None
    ci95: tuple[float, float] | None = None
    n: int = 0
    """Number of documents that were asked."""
    of: int = 0
    """Number of documents of the whole task or suite."""
    baseline: str = ""
    """Run with the scores on all documents."""
    method: str = "difference"
    """difference, regression, or mixed for a suite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteResult(Metric):
    """The unweighted mean of a suite's tasks; null unless every task has its score."""

    missing: tuple[str, ...] = ()
    """Tasks without a score."""
    planned: bool = field(default=False, metadata=OPTIONAL)
    """Whether a plan chose the documents of some task."""
    projected: Projected | None = field(default=None, metadata=OPTIONAL)
    """Absent without a baseline, and where all documents were asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clean(Record):
    """Scores without the documents that the checkpoint's training data contains."""

    n: int = 0
    """Number of remaining documents."""
    flagged: int = 0
    """Number of documents left out."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    empty: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Sub-tasks of a group without remaining documents."""
    unscanned: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Sub-tasks of a group that were not compared with the training data and count in full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens(Record):
    """Mean generated tokens per answer."""

    thinking: float = 0.0
    """Tokens of the thought and its marks."""
    answer: float = 0.0
    """Tokens of the rest of the answer."""

    @property
    def total(self) -> float:
        """All generated tokens per answer."""
        return self.thinking + self.answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed(Metric):
    """The score over the answers that ended by themselves and not at the token limit."""

    n: int = 0
    """Number of such answers; the value is null if there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers(Record):
    """How the generated answers ended. With several samples of a document, each one counts."""

    n: int = 0
    """Number of answers."""
    length: int = 0
    """Number of answers that ended at the token limit."""
    unclosed: int = 0
    """Number of answers that ended inside a thought."""
    empty: int = 0
    """Number of answers with nothing to score."""

    def share(self, ending: str) -> float:
        """Return the share of answers with one of `ENDINGS`."""
        return float(getattr(self, ending)) / max(self.n, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost(Record):
    """Tokens of a task's answers and how the answers ended; a part is absent if the source does not record it."""

    answers: Answers | None = field(default=None, metadata=OPTIONAL)
    tokens: Tokens | None = field(default=None, metadata=OPTIONAL)
    completed: Completed | None = field(default=None, metadata=OPTIONAL)
    correct_per_million_tokens: float | None = field(default=None, metadata=OPTIONAL)
    """Sum of the answers' primary scores per million generated tokens."""

    @property
    def known(self) -> bool:
        """Whether any part is known."""
        return self != Cost()


@dataclass(frozen=True, slots=True, kw_only=True)
class FloorScore(Record):
    """Score of the best constant answer."""

    answer: str
    value: float | None = None
    scores: Mapping[str, float | None] = field(default_factory=dict)
    """Answer to its score."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult(Record):
    """A task, group or sub-task of a run."""

    n: int = 0
    """Number of documents."""
    primary: str = ""
    """Name of the task's primary metric."""
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    """Empty for a task that failed."""
    aggregate: str | None = field(default=None, metadata=OPTIONAL)
    """How a group's score is computed from its sub-tasks."""
    clean: Clean | None = None
    """Null if the task was not compared with the training data."""
    flags: Mapping[str, int] = field(default_factory=dict)
    """Flag to the number of documents that carry it."""
    fingerprint: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    """Hashes of prompt, data, scorer and settings; absent for a group."""
    of: int | None = field(default=None, metadata=OPTIONAL)
    """Number of documents of the whole task, if the run was limited or planned."""
    planned: bool = field(default=False, metadata=OPTIONAL)
    """Whether a plan chose the documents."""
    projected: Projected | None = field(default=None, metadata=OPTIONAL)
    """Absent without a baseline, and where all documents were asked."""
    left_out: Mapping[str, int] | None = field(default=None, metadata=OPTIONAL)
    """Missing scorer to the number of rows left out for it."""
    subtasks: tuple[str, ...] | None = field(default=None, metadata=OPTIONAL)
    """Sub-tasks of a group; each has an entry in `tasks`."""
    error: str | None = field(default=None, metadata=OPTIONAL)
    """Why the task has no score."""
    imported: bool = field(default=False, metadata=OPTIONAL)
    floor: FloorScore | None = field(default=None, metadata=OPTIONAL)
    """Present only in a run of the floor."""
    samples: int | None = field(default=None, metadata=OPTIONAL)
    """Number of answers per document, if there are several."""
    samples_sd: float | None = field(default=None, metadata=OPTIONAL)
    """Standard deviation of the score from one sample to the next: how much a run of one sample varies.

    Absent if a single sample has no score of this metric, as with pass@10."""
    answers: Answers | None = field(default=None, metadata=OPTIONAL)
    """Absent if the source does not tell how the answers ended."""
    tokens: Tokens | None = field(default=None, metadata=OPTIONAL)
    """Absent if the source does not count tokens."""
    completed: Completed | None = field(default=None, metadata=OPTIONAL)
    """Absent if the source does not tell how the answers ended."""
    correct_per_million_tokens: float | None = field(default=None, metadata=OPTIONAL)
    """Sum of the answers' primary scores per million generated tokens."""

    @property
    def cost(self) -> Cost:
        """The task's fields about answers and tokens, together."""
        return Cost(
            answers=self.answers,
            tokens=self.tokens,
            completed=self.completed,
            correct_per_million_tokens=self.correct_per_million_tokens,
        )

    @property
    def score(self) -> Metric | None:
        """The primary metric; None without a value."""
        return self.metrics.get(self.primary)

    @property
    def failed(self) -> bool:
        """Whether the task has no score."""
        return self.error is not None

    @property
    def flagged(self) -> int:
        """Number of documents that the checkpoint's training data contains."""
        return self.clean.flagged if self.clean is not None else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LookTaken(Record):
    """One look of the gate: the documents asked so far, their tokens, and the verdict."""

    documents: int = 0
    """Number of documents so far."""
    tokens: int = 0
    """Generated tokens so far."""
    verdict: str = ""
    """pass, fail, inconclusive or continue."""
    settled: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    """Tasks that have documents left and were asked no further after this look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped(Record):
    """The verdict of a run that asked until it was decided (`olmes eval --until-decided`)."""

    verdict: str
    """pass, fail or inconclusive; infrastructure if a task failed."""
    baseline: str = ""
    """Run that the gate held this one against."""
    failed: tuple[str, ...] = ()
    """Tasks that failed; an empty name stands for the average."""
    looks: tuple[LookTaken, ...] = ()
    of_looks: int = field(default=0, metadata=OPTIONAL)
    """Number of looks at most; 0 if it is not recorded."""
    documents: int = 0
    of: int = 0
    """Number of documents of the whole suite."""
    tokens: int = 0
    of_tokens: int = 0
    """Expected tokens of the whole suite."""
    alpha: float = 0.05
    margin: float = 0.01
    """Margin of the average, a fraction."""
    margins: Mapping[str, float] = field(default_factory=dict, metadata=OPTIONAL)
    """Margin of each task."""
    required: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    """Tasks that must pass on their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results(Record):
    """The content of results.json. It has no time, host or path: the same inputs give the same text."""

    schema: str = SCHEMA
    run: str
    model: str
    imported: bool = field(default=False, metadata=OPTIONAL)
    """The scores come from another evaluation."""
    tasks: Mapping[str, TaskResult]
    """Tasks, groups and sub-tasks by name."""
    suites: Mapping[str, SuiteResult] = field(default_factory=dict)
    stopped: Stopped | None = field(default=None, metadata=OPTIONAL)
    """Present only in a run that asked until it was decided."""
    version: int | None = field(default=None, metadata=OPTIONAL)
    """Number of times that the run was scored; absent until the run is scored again."""

    @property
    def top_tasks(self) -> dict[str, TaskResult]:
        """Tasks and groups, without the sub-tasks of groups."""
        parts = {part for entry in self.tasks.values() for part in entry.subtasks or ()}
        return {name: entry for name, entry in self.tasks.items() if name not in parts}

    @property
    def failed(self) -> list[str]:
        """Tasks that failed or lacked data."""
        return [name for name, entry in self.tasks.items() if entry.failed]

    def leaves(self, task: str) -> list[TaskResult]:
        """Return the entries of a group's sub-tasks, or of the task itself. Raises KeyError."""
        entry = self.tasks[task]
        return [self.tasks[part] for part in entry.subtasks or ()] or [entry]


def is_finished(run: Path) -> bool:
    """Tell whether the folder has a finished run."""
    return (run / RESULTS).is_file()


def read_results(run: Path) -> Results:
    """Read the scores of a run's folder. Raises DataError for a damaged file, UsageError for a newer major version."""
    return read_record(Results, run / RESULTS)


def write_results(run: Path, results: Results) -> None:
    """Write the scores of a run's folder atomically."""
    write_json(run / RESULTS, results.as_json())
