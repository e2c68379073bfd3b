"""The stages by name: ours, then entry points of the group `olmes.stages`. Nothing heavy is imported for a name."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points

from olmes_suite.errors import UsageError
from olmes_suite.tasks.index import nearest
from train_plugins.stages.base import Stage

BUILT_IN = {
    "sft": "train_plugins.stages.sft:Sft",
    "rm": "train_plugins.stages.rm:RewardModel",
    "dpo": "train_plugins.stages.dpo:Dpo",
    "rlvr": "train_plugins.stages.rlvr:Rlvr",
}
"""Also entry points; the table finds them where the package runs from its source, without installation."""
GROUP = "olmes.stages"


def names() -> list[str]:
    """Every known stage."""
    return [*BUILT_IN, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in BUILT_IN)]


def find(name: str) -> Stage:
    """The stage of that name. Raises UsageError naming the known ones."""
    if name in BUILT_IN:
        module, _, cls = BUILT_IN[name].partition(":")
        built: Stage = getattr(import_module(module), cls)()
        return built
    for point in entry_points(group=GROUP):
        if point.name == name:
            installed: Stage = point.load()()
            return installed
    raise UsageError(f"unknown stage {name!r}{nearest(name, names())}; known: {', '.join(names())}")
