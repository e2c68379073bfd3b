"""The stages by name: ours, then entry points of the group `olmes.stages`. Nothing heavy is imported for a name."""

from __future__ import annotations

from olmes_suite.plugins import Plugins
from train_plugins.stages.base import Stage

BUILT_IN = {
    "sft": "train_plugins.stages.sft:Sft",
    "rm": "train_plugins.stages.rm:RewardModel",
    "dpo": "train_plugins.stages.dpo:Dpo",
    "rlvr": "train_plugins.stages.rlvr:Rlvr",
}
"""Also entry points; the table finds them where the package runs from its source, without installation."""
STAGES = Plugins("stage", "olmes.stages", BUILT_IN)


def names() -> list[str]:
    """Every known stage."""
    return STAGES.names()


def find(name: str) -> Stage:
    """The stage of that name. Raises UsageError naming the known ones, and for an installed one that is broken."""
    made: Stage = STAGES.load(name)()
    return made
