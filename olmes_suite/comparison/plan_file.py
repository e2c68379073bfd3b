"""Plans as files: what `olmes plan` writes and `olmes eval --plan` takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite import yaml_files
from olmes_suite.comparison.planning import Allocation
from olmes_suite.errors import UsageError
from olmes_suite.files import storage
from olmes_suite.runs.scores import RunScores
from olmes_suite.tasks import catalog, suites
from olmes_suite.tasks.index import index

VERSION = 1


@dataclass(frozen=True, slots=True)
class PlannedDocuments:
    """How many documents of a sub-task are asked, and what they are chosen from."""

    documents: int
    of: int
    revision: str = "main"
    """Revision of the data set."""
    version: float = 1.0
    """Version of the task."""
    data: str | None = None
    """Hash of the documents, from the fingerprint of the baseline; None without one."""
    samples: int | None = None
    """Answers to each document, where the plan chooses their number."""


@dataclass(frozen=True, slots=True)
class PlanFile:
    """The content of a plan's file."""

    plan: int
    """Version of the format."""
    suite: str
    """Name of the suite, or the path of its file."""
    tasks: Mapping[str, PlannedDocuments]
    """Sub-task to its documents."""
    purpose: str = ""
    documents: int = 0
    tokens: float = 0.0
    """Expected generated tokens."""
    stderr: float = 0.0
    """Expected standard error of the suite's average, a fraction."""
    of: Mapping[str, Any] = field(default_factory=dict)
    """The same of the whole suite: documents, tokens, stderr."""

    @property
    def counts(self) -> dict[str, int]:
        """Sub-task to its number of documents."""
        return {name: task.documents for name, task in self.tasks.items()}


def content(suite: str, purpose: str, allocation: Allocation, baseline: RunScores | None) -> PlanFile:
    """Build the content of the file of a plan."""
    prints = {
        name: leaf.fingerprint or {}
        for task in (baseline.tasks.values() if baseline is not None else ())
        for name, leaf in task.leaves.items()
    }
    tasks = {}
    for part in allocation.tasks:
        for name, documents in part.leaves.items():
            entry = index()[name]
            tasks[name] = PlannedDocuments(
                documents,
                part.task.leaves[name],
                entry.revision,
                entry.version,
                prints.get(name, {}).get("data"),
                part.task.samples if part.task.within else None,
            )
    return PlanFile(
        VERSION, suite, tasks, purpose, allocation.documents, round(allocation.tokens), round(allocation.stderr, 6),
        {
            "documents": allocation.of, "tokens": round(allocation.tokens_of_all),
            "stderr": round(allocation.stderr_of_all, 6),
        },
    )  # fmt: skip


def write(path: Path, plan: PlanFile) -> None:
    """Write a plan."""
    import yaml

    tasks = {
        name: {key: value for key in PlannedDocuments.__slots__ if (value := getattr(task, key)) is not None}
        for name, task in plan.tasks.items()
    }
    head = {key: getattr(plan, key) for key in ("plan", "suite", "purpose", "documents", "tokens", "stderr")}
    text = yaml.safe_dump({**head, "of": dict(plan.of)}, sort_keys=False, allow_unicode=True)
    text += "tasks:\n"
    for name, task in tasks.items():
        line = yaml.safe_dump(task, sort_keys=False, default_flow_style=True, width=1000).strip()
        text += f"  {yaml.safe_dump(name).splitlines()[0]}: {line}\n"
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def read(path: Path) -> PlanFile:
    """Read a plan. Raises UsageError for a file that is none, or is of another suite or version of a task than here."""
    file = yaml_files.read(path, "plan")
    if not isinstance(file.data, dict) or "plan" not in file.data:
        raise UsageError(f"{path} is not a plan: `olmes plan --out FILE` writes one")
    if file.data["plan"] != VERSION:
        raise UsageError(f"{path}: a plan of version {file.data['plan']!r}; this olmes-suite reads version {VERSION}")
    plan = yaml_files.typed(PlanFile, file.data, file.place)
    for name, task in plan.tasks.items():
        if not 1 <= task.documents <= task.of:
            raise UsageError(
                f"{file.place.line(('tasks', name, 'documents'))}: {name}: documents must be from 1 to {task.of}, "
                f"not {task.documents}"
            )
        if task.samples is not None and task.samples < 1:
            raise UsageError(f"{file.place.line(('tasks', name, 'samples'))}: {name}: samples must be at least 1")
    return plan


def check(path: Path, plan: PlanFile, suite_names: tuple[str, ...]) -> None:
    """Raise UsageError where the suite, its sub-tasks, their versions or data revisions are not those of the plan."""
    suite = suites.load(plan.suite)
    for name in suite_names:
        if suites.load(name).name != suite.name:
            raise UsageError(f"{path} is a plan of suite {plan.suite}, not of {name}; leave --suite out")
    leaves = [leaf for entry in suite.tasks for leaf in catalog.find(entry.task).leaves]
    if missing := [name for name in leaves if name not in plan.tasks]:
        raise UsageError(f"{path}: suite {plan.suite} has {missing[0]}, which is not in the plan; make the plan again")
    if unknown := [name for name in plan.tasks if name not in leaves]:
        raise UsageError(f"{path}: {unknown[0]} is not in suite {plan.suite}; make the plan again")
    for name, task in plan.tasks.items():
        entry = index()[name]
        for what, planned, here in (
            ("version", task.version, entry.version),
            ("data revision", task.revision, entry.revision),
        ):
            if planned != here:
                raise UsageError(f"{path}: {name}: the plan is of {what} {planned}, here it is {here}; make it again")


def check_documents(name: str, task: PlannedDocuments, documents: int, data: str | None) -> None:
    """Raise UsageError where a sub-task's documents are not those that the plan was made for."""
    if task.of != documents:
        raise UsageError(
            f"the plan is for other data: {name} has {documents:,} documents here and {task.of:,} in the plan; "
            "make the plan again"
        )
    if data is not None and task.data is not None and task.data != data:
        raise UsageError(f"the plan is for other data: the documents of {name} are not those of its baseline")
