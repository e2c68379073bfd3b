"""Suites: lists of tasks with their skills and aggregates, in a YAML file each. Users name their suites by path.

suite: mine
unseen: false            # true: every look is written to the ledger
limit: 100               # documents of every leaf task, unless `--limit` gives another number
tasks:
  - dev                                          # another suite, nested
  - {task: gsm8k, skill: math, primary: exact_match, aggregate: macro, cluster: COLUMN}
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Literal

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError
from olmes_suite.tasks import catalog, index

SHIPPED = Path(__file__).parent.parent / "suites"
UNSEEN_TOO = ("bigcodebench", "ifbench", "gpqa", "mmlu_pro", "deepmind_math")
"""Families of tasks that are not in the unseen suite but have the same questions."""
UNSEEN_SUITES = ("unseen", "olmo3_unseen")
LATER_UNSEEN_TOO = ("ifbench", "mmlu_pro")
"""The same of OLMo 3's unseen suite. Its development suite holds sets that are unseen in the Tülu 3 paper."""
Aggregate = Literal["mean", "macro", "micro", "stratified", "nested"]


@dataclass(frozen=True, slots=True)
class SuiteEntry:
    """A task of a suite. None stands for the value that the task declares."""

    task: str
    skill: str = "other"
    """Heading of the task in tables, and its rule in `gate.yaml`."""
    primary: str | None = None
    """Metric that is the score."""
    aggregate: Aggregate | None = None
    """macro (unweighted mean of sub-tasks); micro and stratified (sub-tasks weighted by their documents); nested (macro
    within each data set, then over the data sets)."""
    cluster: str | None = None
    """Column whose value is equal for the documents of a cluster."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of tasks; its average is their unweighted mean."""

    name: str
    tasks: tuple[SuiteEntry, ...]
    about: str = ""
    unseen: bool = False
    limit: int | None = None
    """Number of documents of every leaf task; a suite that lists this one does not take it over."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a suite's file."""

    tasks: list[str | SuiteEntry]
    """Tasks, groups and other suites."""
    suite: str | None = None
    """The suite's name; by default the file's."""
    about: str = ""
    """One line for `olmes tasks`."""
    unseen: bool = False
    """Whether every run of the suite is recorded in the ledger."""
    limit: int | None = None
    """Documents of every leaf task, unless the command gives another limit."""


def names() -> list[str]:
    """Return the names of the suites that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(name: str) -> Suite:
    """Read a shipped suite by name or a user's suite by path. Raises UsageError for an unknown or invalid suite."""
    return _load(name, ())


def task_of(entry: SuiteEntry) -> index.TaskEntry | None:
    """Find the task of a suite's entry; None for one that a shipped suite names and this version lacks.

    Raises UsageError for a task that does not exist.
    """
    if (found := index.index().get(entry.task)) is not None:
        return found
    if entry.task.startswith(index.PREFIX) and any(entry in load(name).tasks for name in names()):
        return None
    return catalog.find(entry.task)


@lru_cache(maxsize=1)
def unseen_tasks() -> frozenset[str]:
    """Return the tasks of the unseen suites and their sub-tasks. The ledger records each look at one of them."""
    tasks_and_parts: set[str] = set()
    for entry in (entry for name in UNSEEN_SUITES for entry in load(name).tasks):
        tasks_and_parts.add(entry.task)
        if entry.task in index.index():
            tasks_and_parts.update(index.index()[entry.task].leaves)
    return frozenset(tasks_and_parts)


@lru_cache(maxsize=1024)
def asks_unseen(name: str) -> bool:
    """Tell whether a task, or a sub-task of a group, is in an unseen suite or has the same questions as one that is.

    Such a task must not choose a checkpoint or reward a response. Tasks of OLMo 3 are held against its own suite.
    """
    entry = index.index().get(name)
    prefix, too = (index.LATER, LATER_UNSEEN_TOO) if name.startswith(index.LATER) else (index.PREFIX, UNSEEN_TOO)
    families = {*(task.removeprefix(prefix) for task in unseen_tasks() if task.startswith(prefix)), *too}
    short_names = [short_name.removeprefix(prefix) for short_name in (name, *(entry.leaves if entry else ()))]
    return any(
        short_name == family or short_name.startswith(f"{family}_") for short_name in short_names for family in families
    )


def _load(name: str, parents: tuple[str, ...]) -> Suite:
    path = _path_of(name)
    if name in parents:
        raise UsageError(f"suite {name!r} contains itself ({' > '.join((*parents, name))})")
    file = yaml_files.read(path, "suite file")
    keys = yaml_files.typed(_Keys, file.data, file.place)
    if not keys.tasks:
        raise UsageError(f"{file.place.line(('tasks',))}: tasks: at least one is needed")
    if keys.limit is not None and keys.limit < 1:
        raise UsageError(f"{file.place.line(('limit',))}: limit: must be at least 1, not {keys.limit}")
    entries: dict[str, SuiteEntry] = {}
    for item in keys.tasks:
        for entry in _entries(item, path, (*parents, name)):
            entries.setdefault(entry.task, entry)
    title = path.stem if keys.suite is None else keys.suite
    return Suite(title, tuple(entries.values()), keys.about, keys.unseen, keys.limit)


def _path_of(name: str) -> Path:
    if name in names():
        return SHIPPED / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    if path.suffix in (".yaml", ".yml"):
        raise UsageError(f"suite {name}: no such file")
    raise UsageError(
        f"unknown suite {name!r}{index.nearest(name, names())}; known: {', '.join(names())}, or a YAML file's path"
    )


def _entries(item: str | SuiteEntry, path: Path, parents: tuple[str, ...]) -> list[SuiteEntry]:
    if isinstance(item, SuiteEntry):
        return [replace(item, task=index.full_name(item.task))]
    if item in names():
        return list(_load(item, parents).tasks)
    if item.endswith((".yaml", ".yml")):
        return list(_load(str(path.parent / item), parents).tasks)
    return [SuiteEntry(index.full_name(item))]
