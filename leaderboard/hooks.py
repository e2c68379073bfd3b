"""The hook after a training stage: it writes the page of the stage's run store again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from leaderboard.build import build
from olmes_suite.hooks import Stage, hookimpl

PAGE = "leaderboard.html"


@hookimpl(trylast=True)
def olmes_after_stage(stage: Stage, checkpoint: Path, run: Mapping[str, Any]) -> None:
    """Write `<runs>/leaderboard.html`, where the recipe evaluates and its run store exists."""
    evaluation = stage.recipe.get("eval")
    runs = Path(str((evaluation or {}).get("runs", "runs"))).expanduser()
    if evaluation and runs.is_dir():
        build(runs, runs / PAGE)
