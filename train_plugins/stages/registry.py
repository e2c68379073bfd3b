"""The stages by name: built-in ones, then entry points of the group `olmes.stages`. Listing names imports nothing."""

from __future__ import annotations

from olmes_suite.plugins import Plugins
from train_plugins.stages.base import Stage

BUILT_IN = {
    "sft": "train_plugins.stages.sft:Sft",
    "rm": "train_plugins.stages.rm:RewardModel",
    "dpo": "train_plugins.stages.dpo:Dpo",
    "rlvr": "train_plugins.stages.rlvr:Rlvr",
}
"""The built-in stages, which are entry points too; this table serves a package that runs without installation."""
STAGES = Plugins("stage", "olmes.stages", BUILT_IN)


def names() -> list[str]:
    """Return the names of all known stages."""
    return STAGES.names()


def find(name: str) -> Stage:
    """Return the stage of that name. Raises UsageError for an unknown stage or an installed one that is broken."""
    stage: Stage = STAGES.load(name)()
    return stage
