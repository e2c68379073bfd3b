"""The hooks around a training stage, and what travels through them. Plugins are found by pluggy, group `olmes`.

A plugin is a module or an object whose functions carry `@hookimpl` and have the names of `Specification`:

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

__all__ = ["Specification", "Stage", "StageData", "StageRefused", "TrainingSet", "before_stage", "hookimpl", "manager"]

PROJECT = "olmes"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Stage:
    """What a hook may know of the stage that is run."""

    kind: str
    """sft, rm, dpo or the name of an installed stage."""
    parent: str
    """The checkpoint that the stage starts from: a folder or a Hub id."""
    output: Path
    final: bool
    """The stage's last checkpoint may look at the unseen suite."""
    recipe: Mapping[str, Any]
    """The resolved recipe, `decontam` and `eval` among its keys, as JSON-like data."""


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """One entry of the recipe's `data`."""

    path: str
    """Path or Hub id, as the recipe names it."""
    sha256: str
    """Hash of the file, or of the rows where there is no single file."""
    rows: Any
    """A `datasets.Dataset`: columns `messages`, or `chosen` and `rejected` (lists of {"role", "content"}), and `row`,
    the row's number in the set, from 0."""


@dataclass(frozen=True, slots=True)
class StageData:
    """All that a stage is trained on; a hook changes it with `dataclasses.replace`."""

    sets: tuple[TrainingSet, ...]
    decontam: Mapping[str, Any] | None = None
    """The decontamination report; None as long as nobody has looked."""
    flags: Mapping[str, list[int]] = field(default_factory=dict)
    """Documents of benchmarks that the data is known to contain: task to doc_ids."""
    short: Mapping[str, list[int]] = field(default_factory=dict)
    """Those of them that match only as items too short for an n-gram."""
    scanned: tuple[str, ...] = ()
    """Tasks that all of the data was compared with."""


class Specification:
    """One function and one sentence per hook."""

    @hookspec
    def olmes_before_stage(self, stage: Stage, data: StageData) -> StageData | None:
        """Return replaced data to filter it, raise StageRefused to stop the stage; each sees what the last one left."""

    @hookspec
    def olmes_after_checkpoint(self, stage: Stage, checkpoint: Path) -> None:
        """A checkpoint of the running stage was saved, lineage and all; what takes long works beside the training."""

    @hookspec
    def olmes_after_stage(self, stage: Stage, checkpoint: Path, run: Mapping[str, Any]) -> None:
        """The stage is done: its last checkpoint, and the lineage that was written into it."""


def manager(plugins: Iterable[Any] = ()) -> pluggy.PluginManager:
    """A plugin manager with the installed plugins (entry points of the group `olmes`) and the given ones."""
    found = pluggy.PluginManager(PROJECT)
    found.add_hookspecs(Specification)
    found.load_setuptools_entrypoints(PROJECT)
    for plugin in plugins:
        found.register(plugin)
    return found


def before_stage(plugins: pluggy.PluginManager, stage: Stage, data: StageData) -> StageData:
    """Call `olmes_before_stage` of each plugin in pluggy's order, each with the data as the one before left it.

    pluggy itself hands every plugin the same arguments, which is why the calls are made one by one.
    """
    for implementation in reversed(plugins.hook.olmes_before_stage.get_hookimpls()):
        given = {"stage": stage, "data": data}
        answer: Any = implementation.function(*(given[name] for name in implementation.argnames))
        data = data if answer is None else answer
    return data
