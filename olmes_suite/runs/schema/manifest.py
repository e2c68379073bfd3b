"""manifest.json: the settings that repeat a run, and its cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from olmes_suite.files import write_json
from olmes_suite.runs.schema.lineage import NO_LINEAGE, Lineage
from olmes_suite.runs.schema.record import OPTIONAL, SCHEMA, Record, named, read_record

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelName(Record):
    """The model as the command named it."""

    path: str | None = None
    revision: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine(Record):
    """The engine that ran the model. The backend's settings are further keys."""

    backend: str | None = None
    chat: bool = True
    """Whether prompts went through a chat template."""
    fingerprint: str | None = None
    """Hash of the weights and of every setting that can change a response."""

    @classmethod
    def of(cls, backend: str, chat: bool, settings: Mapping[str, Any], fingerprint: str) -> Self:
        """Build the record of an engine. Settings replace the values of the same names, except the fingerprint."""
        return cls.from_json({"backend": backend, "chat": chat, **settings, "fingerprint": fingerprint})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLeaf(Record):
    """A leaf task of the plan."""

    task: str
    cluster: str | None = None
    """Column that defines the clusters of the documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedTask(Record):
    """A top-level task of the plan."""

    task: str
    primary: str = "score"
    aggregate: str = "mean"
    skill: str | None = "other"
    error: str | None = None
    leaves: tuple[PlannedLeaf, ...] | None = field(default=None, metadata=OPTIONAL)
    """Absent in imported runs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned(Record):
    """The plan of a run that asked some documents of each task (`olmes eval --plan`)."""

    purpose: str = ""
    """What the plan is for, as options of `olmes plan`."""
    documents: Mapping[str, int] = field(default_factory=dict)
    """Leaf task to its number of documents. Their weight is the task's number of documents divided by this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataUsed(Record):
    """The data of a leaf task."""

    path: str | None = None
    """Name of the data set."""
    config: str | None = None
    revision: str | None = None
    origin: str | None = field(default=None, metadata=named("from"))
    """mirror, hub, sample or lm-eval."""
    files: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    """Split to its file in a mirror."""
    documents: int | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def of_lm_eval(cls, path: str | None, config: str | None, documents: int) -> Self:
        """Build the record of data that lm-eval loads, which has no pinned revision."""
        return cls.from_json({"path": path, "config": config, "from": "lm-eval", "documents": documents})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringModel(Record):
    """A judge, classifier or encoder that scored, with its total usage."""

    model: str | None = None
    base_url: str | None = field(default=None, metadata=OPTIONAL)
    fingerprint: str | None = field(default=None, metadata=OPTIONAL)
    asked: int | None = field(default=None, metadata=OPTIONAL)
    retries: int | None = field(default=None, metadata=OPTIONAL)
    prompt_tokens: int | None = field(default=None, metadata=OPTIONAL)
    completion_tokens: int | None = field(default=None, metadata=OPTIONAL)
    cost_usd: float | None = field(default=None, metadata=OPTIONAL)

    def after(self, before: ScoringModel | None) -> Self:
        """Add the usage of `before` if it is the same model, by fingerprint."""
        if before is None or before.fingerprint is None or before.fingerprint != self.fingerprint:
            return self
        counts = ("asked", "retries", "prompt_tokens", "completion_tokens")
        changes: dict[str, Any] = {
            name: (getattr(before, name) or 0) + getattr(self, name)
            for name in counts
            if getattr(self, name) is not None
        }
        if self.cost_usd is not None:
            changes["cost_usd"] = self.cost_usd + (before.cost_usd or 0.0)
        return self.but(**changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Time(Record):
    """Start and duration of the run."""

    started: float | None = None
    """Seconds since 1970."""
    seconds: float | None = None
    processor_seconds: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Record):
    """The content of manifest.json. An imported run lacks the keys that are not known."""

    schema: str = SCHEMA
    run: str = ""
    imported: bool = field(default=False, metadata=OPTIONAL)
    """The scores come from another evaluation."""
    command: tuple[str, ...] = ()
    folder: str = ""
    """Working folder, to which relative paths refer."""
    source: Mapping[str, Any] | None = field(default=None, metadata=OPTIONAL)
    """Path and SHA-256 of the imported file."""
    model: ModelName = field(default_factory=ModelName)
    engine: Engine = field(default_factory=Engine)
    suites: tuple[str, ...] = ()
    tasks: Mapping[str, Mapping[str, str] | None]
    """Leaf task to its fingerprint; null in imported runs."""
    plan: tuple[PlannedTask, ...]
    """The top-level tasks in their order."""
    data: Mapping[str, DataUsed] = field(default_factory=dict)
    """Leaf task to its data."""
    limit: int | float | None = None
    """Number of documents of each leaf task, below 1 their share; null for all."""
    max_documents: int | None = field(default=None, metadata=OPTIONAL)
    """Largest number of documents of all tasks together; absent without one."""
    name: str | None = field(default=None, metadata=OPTIONAL)
    """The name that the user gave; absent where the run has the name of its model and tasks."""
    identity: str | None = field(default=None, metadata=OPTIONAL)
    """Of a run with such a name: the hash of model, tasks and settings by which the same command finds it again."""
    include_paths: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    """Folders of the user's tasks that the run asked."""
    planned: Planned | None = field(default=None, metadata=OPTIONAL)
    """The plan that chose the documents; absent without one."""
    projected_from: str | None = field(default=None, metadata=OPTIONAL)
    """The baseline of projected scores, as the command named it."""
    settings: Mapping[str, Any] | None = field(default=None, metadata=OPTIONAL)
    """What the user put over the tasks' settings: profile, gen_kwargs, samples, system, chat_template_args."""
    sampling: Mapping[str, Mapping[str, Any] | None] | None = field(default=None, metadata=OPTIONAL)
    """Leaf task to the settings in effect; null for log-likelihood tasks."""
    seed: int | None = None
    sample: bool = False
    """Whether the documents are the samples that ship with the tasks."""
    mirrors: tuple[str, ...] = ()
    sandbox: Mapping[str, Any] | None = None
    """Sandbox of model-written programs; null if none ran."""
    judge: Mapping[str, ScoringModel] | None = None
    """Models that scored, by need."""
    lineage: Lineage = NO_LINEAGE
    """Lineage of the checkpoint; an empty object without a lineage file."""
    packages: Mapping[str, str] | None = None
    git: Mapping[str, Any] | None = None
    """Commit of the working folder; null outside a repository."""
    hardware: Mapping[str, Any] | None = None
    suite_tasks: Mapping[str, tuple[str, ...]] | None = None
    """Suite to its tasks at the time of the run; absent in runs of earlier versions."""
    time: Time | None = None
    tokens: Mapping[str, int] | None = None
    """Tokens of prompts and of responses."""
    floor: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    """Constant answer to its run; present only in a run of the floor."""

    @classmethod
    def of_import(
        cls, run: str, tasks: Iterable[str], command: Sequence[str], folder: str, source: Mapping[str, str]
    ) -> Self:
        """Build the manifest of scores from another evaluation."""
        names = [*tasks]
        plan = [PlannedTask(task=task).as_json() for task in names]
        return cls.from_json({
            "schema": SCHEMA, "run": run, "imported": True, "command": command, "folder": folder, "source": source,
            "model": {"path": run}, "engine": {}, "suites": [], "tasks": dict.fromkeys(names), "plan": plan,
            "limit": None, "seed": None, "sample": False, "mirrors": [], "lineage": {},
        })  # fmt: skip

    def scored_by(self, judge: Mapping[str, ScoringModel]) -> Self:
        """Return the manifest with the models that scored the run again; usage of the same models adds up."""
        before = self.judge or {}
        return self.but(judge={need: used.after(before.get(need)) for need, used in judge.items()})

    def suite(self, name: str) -> tuple[str, ...]:
        """Return the tasks of a suite at the time of the run; all tasks of the run for an older record."""
        return (self.suite_tasks or {}).get(name) or tuple(plan.task for plan in self.plan)


def read_manifest(run: Path) -> Manifest:
    """Read the manifest of a run. Raises DataError for a damaged file, UsageError for a newer major version."""
    return read_record(Manifest, run / MANIFEST)


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Write the manifest of a run's folder atomically."""
    write_json(run / MANIFEST, manifest.as_json())
