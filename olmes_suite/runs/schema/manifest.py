"""manifest.json: what is needed to repeat a run, and what it cost."""

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
    """What ran the model. The backend's settings stand beside these keys."""

    backend: str | None = None
    chat: bool = True
    """Prompts went through a chat template."""
    fingerprint: str | None = None
    """Hash of the weights and of all that can change a response."""

    @classmethod
    def of(cls, backend: str, chat: bool, settings: Mapping[str, Any], fingerprint: str) -> Self:
        """The engine of a backend; settings of the same names go first, but for the fingerprint."""
        return cls.from_json({"backend": backend, "chat": chat, **settings, "fingerprint": fingerprint})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLeaf(Record):
    """A leaf task of the plan."""

    task: str
    cluster: str | None = None
    """What its documents are clustered by."""


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
class DataUsed(Record):
    """The data of a leaf task."""

    path: str | None = None
    """Name of the data set."""
    config: str | None = None
    revision: str | None = None
    origin: str | None = field(default=None, metadata=named("from"))
    """mirror, hub, sample or lm-eval."""
    files: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    """Split to the mirror's file that was read."""
    documents: int | None = field(default=None, metadata=OPTIONAL)

    @classmethod
    def of_lm_eval(cls, path: str | None, config: str | None, documents: int) -> Self:
        """The data of a task that lm-eval ships; lm-eval pins no revision."""
        return cls.from_json({"path": path, "config": config, "from": "lm-eval", "documents": documents})


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringModel(Record):
    """A judge, classifier or encoder that scored, and what it was asked in all."""

    model: str | None = None
    base_url: str | None = field(default=None, metadata=OPTIONAL)
    fingerprint: str | None = field(default=None, metadata=OPTIONAL)
    asked: int | None = field(default=None, metadata=OPTIONAL)
    retries: int | None = field(default=None, metadata=OPTIONAL)
    prompt_tokens: int | None = field(default=None, metadata=OPTIONAL)
    completion_tokens: int | None = field(default=None, metadata=OPTIONAL)
    cost_usd: float | None = field(default=None, metadata=OPTIONAL)

    def after(self, before: ScoringModel | None) -> Self:
        """The scorer with what it was asked before added to its counts, where it is the same as `before`."""
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
    """When the run was made, and how long it took."""

    started: float | None = None
    """Seconds since 1970."""
    seconds: float | None = None
    processor_seconds: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest(Record):
    """The content of manifest.json. An imported run has no more than is known of it."""

    schema: str = SCHEMA
    run: str = ""
    imported: bool = field(default=False, metadata=OPTIONAL)
    """The scores come from another evaluation."""
    command: tuple[str, ...] = ()
    folder: str = ""
    """The working folder; relative paths are relative to it."""
    source: Mapping[str, Any] | None = field(default=None, metadata=OPTIONAL)
    """Path and SHA-256 of the file that was imported."""
    model: ModelName = field(default_factory=ModelName)
    engine: Engine = field(default_factory=Engine)
    suites: tuple[str, ...] = ()
    tasks: Mapping[str, Mapping[str, str] | None]
    """Leaf task to its fingerprint; null in imported runs."""
    plan: tuple[PlannedTask, ...]
    """The top-level tasks in their order."""
    data: Mapping[str, DataUsed] = field(default_factory=dict)
    """Leaf task to its data."""
    limit: int | None = None
    """Documents of every leaf task; null for all."""
    seed: int | None = None
    sample: bool = False
    """The documents are those that ship with the tasks."""
    mirrors: tuple[str, ...] = ()
    sandbox: Mapping[str, Any] | None = None
    """What held the programs; null where none ran."""
    judge: Mapping[str, ScoringModel] | None = None
    """The models that scored, by what they were needed for."""
    lineage: Lineage = NO_LINEAGE
    """The checkpoint's lineage file; an empty object where it has none."""
    packages: Mapping[str, str] | None = None
    git: Mapping[str, Any] | None = None
    """Commit of the working folder; null outside a repository."""
    hardware: Mapping[str, Any] | None = None
    suite_tasks: Mapping[str, tuple[str, ...]] | None = None
    """Suite to its tasks, as the run was made; absent in runs of earlier versions."""
    time: Time | None = None
    tokens: Mapping[str, int] | None = None
    """Tokens of prompts and of responses."""
    floor: Mapping[str, str] | None = field(default=None, metadata=OPTIONAL)
    """Constant answer to its run; only in a run of the floor."""

    @classmethod
    def of_import(
        cls, run: str, tasks: Iterable[str], command: Sequence[str], folder: str, source: Mapping[str, str]
    ) -> Self:
        """The manifest of scores from another evaluation."""
        names = [*tasks]
        plan = [PlannedTask(task=task).as_json() for task in names]
        return cls.from_json({
            "schema": SCHEMA, "run": run, "imported": True, "command": command, "folder": folder, "source": source,
            "model": {"path": run}, "engine": {}, "suites": [], "tasks": dict.fromkeys(names), "plan": plan,
            "limit": None, "seed": None, "sample": False, "mirrors": [], "lineage": {},
        })  # fmt: skip

    def scored_again(self, judge: Mapping[str, ScoringModel]) -> Self:
        """The manifest with the models that scored the run again; what the same models were asked before is added."""
        before = self.judge or {}
        return self.but(judge={need: used.after(before.get(need)) for need, used in judge.items()})

    def suite(self, name: str) -> tuple[str, ...]:
        """Tasks of a suite as the run was made; of an old record that does not say, all that ran."""
        return (self.suite_tasks or {}).get(name) or tuple(plan.task for plan in self.plan)


def read_manifest(run: Path) -> Manifest:
    """The manifest in a run's folder. Raises DataError for a damaged file, UsageError for a newer major version."""
    return read_record(Manifest, run / MANIFEST)


def write_manifest(run: Path, manifest: Manifest) -> None:
    """Write the manifest into a run's folder, whole or not at all."""
    write_json(run / MANIFEST, manifest.as_json())
