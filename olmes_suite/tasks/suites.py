"""Suites: which tasks, which skill, how they average. One YAML file each; a user's own suite is a path.

suite: mine
unseen: false            # true: every look is written to the ledger
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
from olmes_suite.tasks import index

SHIPPED = Path(__file__).parent.parent / "suites"
UNSEEN_TOO = ("bigcodebench", "ifbench", "gpqa", "mmlu_pro", "deepmind_math")
"""Families of tasks that are no part of the unseen suite, and ask what it asks."""
Aggregate = Literal["mean", "macro", "micro", "stratified"]


@dataclass(frozen=True, slots=True)
class SuiteEntry:
    """One task of a suite. None: as the task itself declares."""

    task: str
    skill: str = "other"
    primary: str | None = None
    aggregate: Aggregate | None = None
    """macro (unweighted mean of sub-tasks); micro and stratified (sub-tasks weighted by their documents)."""
    cluster: str | None = None
    """Column whose value the documents of one cluster share."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A named list of tasks; its average is their unweighted mean."""

    name: str
    tasks: tuple[SuiteEntry, ...]
    about: str = ""
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys of a suite's file."""

    tasks: list[str | SuiteEntry]
    suite: str | None = None
    about: str = ""
    unseen: bool = False


def names() -> list[str]:
    """The suites that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(name: str) -> Suite:
    """A suite by name, or a user's own by path. Raises UsageError for anything wrong with it."""
    return _load(name, ())


@lru_cache(maxsize=1)
def unseen_tasks() -> frozenset[str]:
    """Top-level tasks of the unseen suite and their sub-tasks: looking at any of them is written to the ledger."""
    listed: set[str] = set()
    for entry in load("unseen").tasks:
        listed.add(entry.task)
        if entry.task in index.index():
            listed.update(index.index()[entry.task].leaves)
    return frozenset(listed)


@lru_cache(maxsize=1024)
def asks_unseen(name: str) -> bool:
    """The task is one of the unseen suite, or a variant or sibling that asks what it asks: it must choose no
    checkpoint and reward no response. A group is one if any of its sub-tasks is."""
    known = index.index().get(name)
    families = {*(task.removeprefix(index.PREFIX) for task in unseen_tasks()), *UNSEEN_TOO}
    plain = [one.removeprefix(index.PREFIX) for one in (name, *(known.leaves if known else ()))]
    return any(one == family or one.startswith(f"{family}_") for one in plain for family in families)


def _load(name: str, inside: tuple[str, ...]) -> Suite:
    path = _path_of(name)
    if name in inside:
        raise UsageError(f"suite {name!r} contains itself ({' > '.join((*inside, name))})")
    file = yaml_files.read(path, "suite file")
    keys = yaml_files.typed(_Keys, file.data, file.place)
    if not keys.tasks:
        raise UsageError(f"{file.place.line(('tasks',))}: tasks: at least one is needed")
    entries: dict[str, SuiteEntry] = {}
    for item in keys.tasks:
        for entry in _entries(item, path, (*inside, name)):
            entries.setdefault(entry.task, entry)
    title = path.stem if keys.suite is None else keys.suite
    return Suite(title, tuple(entries.values()), keys.about, keys.unseen)


def _path_of(name: str) -> Path:
    if name in names():
        return SHIPPED / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    raise UsageError(
        f"unknown suite {name!r}{index.nearest(name, names())}; known: {', '.join(names())}, or a YAML file's path"
    )


def _entries(item: str | SuiteEntry, path: Path, inside: tuple[str, ...]) -> list[SuiteEntry]:
    if isinstance(item, SuiteEntry):
        return [replace(item, task=index.full_name(item.task))]
    if item in names():
        return list(_load(item, inside).tasks)
    if item.endswith((".yaml", ".yml")):
        return list(_load(str(path.parent / item), inside).tasks)
    return [SuiteEntry(index.full_name(item))]
