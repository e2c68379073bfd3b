"""The hooks around a training stage, and the data that they exchange. pluggy loads the plugins of the group `olmes`.

A plugin is a module or an object with functions that have the names of `Specification` and the mark `@hookimpl`:

    from olmes_suite.hooks import hookimpl

    @hookimpl
    def olmes_after_checkpoint(stage, checkpoint): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pluggy

from olmes_suite.errors import StageRefused

__all__ = [
    "BadRow", "Specification", "Stage", "StageData", "StageRefused", "TrainingSet", "before_stage", "hookimpl",
    "manager",
]  # fmt: skip

PROJECT = "olmes"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Stage:
    """The stage that runs, as a hook sees it."""

    kind: str
    """sft, rm, dpo or the name of an installed stage."""
    parent: str
    """The checkpoint that the stage starts from: a folder or a Hub id."""
    output: Path
    final: bool
    """Whether the stage's last checkpoint may be evaluated on the unseen suite."""
    recipe: Mapping[str, Any]
    """The resolved recipe, `decontam` and `eval` among its keys, as JSON-like data."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that a stage does not train on."""

    row: int
    """Its number in the set, from 0."""
    reason: str
    file: str | None = None
    """The file that holds the row; None for a set from the Hub."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One entry of the recipe's `data`."""

    path: str
    """The path or Hub id, as in the recipe."""
    sha256: str
    """The hash of the file, or of the rows where there is no single file."""
    rows: Any
    """A `datasets.Dataset`: columns `messages`, or `chosen` and `rejected` (lists of {"role", "content"}), and `row`,
    the row's number in the set, from 0. Where rows say more, `fields` is JSON: reasoning and calls by turn, tools."""
    forms: Mapping[str, int] = field(default_factory=dict)
    """The forms in which the rows were read, with the number of rows of each."""
    bad: tuple[BadRow, ...] = ()
    """The rows that are left out because they cannot be trained on."""
    note: str = ""
    """What else to say about the set, such as files that were not read."""


@dataclass(frozen=True, slots=True)
class StageData:
    """All training data of a stage. A hook changes it with `dataclasses.replace`."""

    sets: tuple[TrainingSet, ...]
    decontam: Mapping[str, Any] | None = None
    """The decontamination report; None before a scan."""
    flags: Mapping[str, list[int]] = field(default_factory=dict)
    """The documents of benchmarks that the data is known to contain: task to doc_ids."""
    short: Mapping[str, list[int]] = field(default_factory=dict)
    """The documents in `flags` that match only as items too short for an n-gram."""
    scanned: tuple[str, ...] = ()
    """The tasks with which all of the data was compared."""


class Specification:
    """The hooks: one function and one sentence each."""

    @hookspec
    def olmes_before_stage(self, stage: Stage, data: StageData) -> StageData | None:
        """Return filtered data, or raise StageRefused to stop the stage; each hook gets the data of the one before."""

    @hookspec
    def olmes_after_checkpoint(self, stage: Stage, checkpoint: Path) -> None:
        """Called after a checkpoint and its lineage are saved; long work should run in the background."""

    @hookspec
    def olmes_after_stage(self, stage: Stage, checkpoint: Path, run: Mapping[str, Any]) -> None:
        """Called after the stage with its last checkpoint and the lineage written into the checkpoint."""


def manager(plugins: Iterable[object] = ()) -> pluggy.PluginManager:
    """Return a plugin manager with the installed plugins (entry points of the group `olmes`) and `plugins`."""
    plugin_manager = pluggy.PluginManager(PROJECT)
    plugin_manager.add_hookspecs(Specification)
    plugin_manager.load_setuptools_entrypoints(PROJECT)
    for plugin in plugins:
        plugin_manager.register(plugin)
    return plugin_manager


def before_stage(plugins: pluggy.PluginManager, stage: Stage, data: StageData) -> StageData:
    """Call `olmes_before_stage` of each plugin in pluggy's order, each with the data that the one before returned.

    The calls are made one by one because pluggy itself passes the same arguments to every plugin.
    """
    for implementation in reversed(plugins.hook.olmes_before_stage.get_hookimpls()):
        arguments = {"stage": stage, "data": data}
        answer: Any = implementation.function(*(arguments[name] for name in implementation.argnames))
        data = data if answer is None else answer
    return data
