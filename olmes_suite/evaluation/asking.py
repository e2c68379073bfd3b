"""The part of a run between plan and record: requests are answered, answers scored, failed tasks marked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from olmes_suite.errors import (
    DataError,
    MissingData,
    ModelError,
    OlmesError,
    RequestFailed,
    UnsuitableTask,
    UsageError,
)
from olmes_suite.evaluation.deferred_scoring import score_waiting
from olmes_suite.evaluation.generate import Part, Scoring, Waiting, generate
from olmes_suite.evaluation.plan import Options, TaskPlan
from olmes_suite.evaluation.pool import ScorerFailed, ScoringPool
from olmes_suite.evaluation.until_decided import Decider
from olmes_suite.models.base import Backend
from olmes_suite.records import Instance
from olmes_suite.runs.schema import Lineage
from olmes_suite.runs.scores import RunScores
from olmes_suite.runs.store import ResponseFile, put_in_order
from olmes_suite.scoring.tools import Tools
from olmes_suite.tasks import suites


class Watcher(Protocol):
    """Receives the progress of a run, for a display."""

    def note(self, text: str) -> None:
        """Take a note for the user."""

    def start(self, plans: Sequence[TaskPlan]) -> None:
        """Take the plan, before the first request."""

    def advance(self, task: str, documents: int, tokens: int) -> None:
        """Take the numbers of finished documents and generated tokens since the last call."""

    def stop(self) -> None:
        """Take the end of the run."""


@dataclass(slots=True)
class Gathered:
    """The results of a run so far, by top-level task."""

    scored: dict[str, list[Instance]] = field(default_factory=dict)
    waiting: dict[str, list[Waiting]] = field(default_factory=dict)
    """Documents that other models score after the candidate model is unloaded."""
    errors: dict[str, int] = field(default_factory=dict)
    """Failed tasks to their number of failed requests."""
    tokens: dict[str, int] = field(default_factory=lambda: {"prompt": 0, "completion": 0})


@dataclass(slots=True)
class Session:
    """One call of `evaluate`: its plan, its tools, and its results so far."""

    options: Options
    plans: list[TaskPlan]
    suites: list[suites.Suite]
    lineage: Lineage
    tools: Tools
    watcher: Watcher
    gathered: Gathered = field(default_factory=Gathered)
    baseline: RunScores | None = None
    """The run from which scores are projected."""
    decider: Decider | None = None
    """Chooses the documents of a run until it is decided."""
    said: list[str] = field(default_factory=list)
    """Notes of the engine and the tools that the user has seen."""


def look(session: Session, decider: Decider) -> None:
    """Let the gate look at the documents of a chunk. Models that score are asked between the chunks."""
    gathered = session.gathered
    run_deferred_tasks(session)
    decider.look(session.plans, gathered.scored, session.watcher.note)
    gathered.scored = dict(decider.scored)


def keep_asked(session: Session, folder: Path) -> None:
    """Leave only the answers that were asked before the verdict in a run's files, and count their tokens.

    Those of a larger planned run, from which the answers came, serve all chunks.
    """
    session.gathered.tokens = {"prompt": 0, "completion": 0}
    for plan in session.plans:
        if plan.error is None:
            file = folder / "responses" / f"{plan.name}.jsonl"
            _count(session, *put_in_order(file, plan.rank(), plan.asks()))


def _count(session: Session, prompt: int, completion: int) -> None:
    session.gathered.tokens["prompt"] += prompt
    session.gathered.tokens["completion"] += completion


def run_tasks(session: Session, plans: Sequence[TaskPlan], folder: Path, backend: Backend, pool: ScoringPool) -> None:
    """Generate and score tasks together. If that fails, run each task alone, so that only the failing one fails."""
    files = {plan.name: folder / "responses" / f"{plan.name}.jsonl" for plan in plans}
    with ExitStack() as stack:
        parts = [Part(plan, stack.enter_context(ResponseFile(files[plan.name])), Scoring(pool)) for plan in plans]
        try:
            generate(parts, backend, session.options.seed, session.watcher.advance)
            pool.join()
            failure = None
        except (RequestFailed, ScorerFailed, MissingData, UnsuitableTask) as error:
            pool.forget()
            failure = error
    if failure is not None:
        if len(plans) == 1:
            _mark_failed(session, plans[0], failure)
            return
        for plan in plans:
            run_tasks(session, [plan], folder, backend, pool)
        return
    gathered = session.gathered
    for part in parts:
        name = part.plan.name
        gathered.scored[name] = part.plan.in_order(part.scoring.instances.values())
        gathered.waiting[name] = part.scoring.waiting
        keep = part.plan.asks() if session.decider is None else None
        _count(session, *put_in_order(files[name], part.plan.rank(), keep))


def run_deferred_tasks(session: Session) -> None:
    """Have models score the documents that wait for them. A task whose scoring fails is marked as failed."""
    for plan in session.plans:
        if plan.error is None and session.gathered.waiting.get(plan.name):
            _run_deferred_task(session, plan)
    for need, usage in (session.tools.record() or {}).items():
        if usage.get("truncated"):
            session.watcher.note(
                f"{need}: {usage['truncated']} questions did not fit its context and were cut on the left"
            )


def _run_deferred_task(session: Session, plan: TaskPlan) -> None:
    gathered, watcher = session.gathered, session.watcher
    watcher.note(f"{plan.name}: scoring {len(gathered.waiting[plan.name])} documents with other models")
    session.tools.tell(lambda line: watcher.note(f"{plan.name}: {line}"))
    try:
        judged = score_waiting(gathered.waiting.pop(plan.name), session.tools)
    except (RequestFailed, ScorerFailed, MissingData, ModelError, DataError, UsageError) as error:
        _mark_failed(session, plan, error)
        return
    gathered.scored[plan.name] = plan.in_order([*gathered.scored[plan.name], *judged])


def _mark_failed(session: Session, plan: TaskPlan, error: OlmesError) -> None:
    plan.error = str(error)
    session.gathered.errors[plan.name] = 1 if isinstance(error, RequestFailed) else 0
    session.watcher.note(f"{plan.name}: {error}")
