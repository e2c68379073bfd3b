"""A callback that stops a training as a kill would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olmes_suite.hooks import hookimpl


class StopAfter:
    """A plugin that kills the stage when its checkpoint of a step was saved."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def olmes_after_checkpoint(self, stage: Any, checkpoint: Path) -> None:
        if checkpoint.name == f"checkpoint-{self.step}":
            raise KeyboardInterrupt
