"""Weights & Biases. Its own variables apply: WANDB_PROJECT, WANDB_ENTITY, WANDB_MODE, WANDB_API_KEY, WANDB_DIR."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import wandb

from olmes_suite.errors import UsageError
from olmes_suite.trackers.base import PROJECT, STEP, Table, TrackedRun, Tracker

NOT_ONLINE = ("offline", "disabled", "dryrun")


class Wandb(Tracker):
    """A run of Weights & Biases, independent of one that the trainer has in the same process."""

    name: ClassVar[str] = "wandb"

    def __init__(self) -> None:
        self.run: Any = None

    @classmethod
    def check(cls) -> None:
        """Raise UsageError without an API key, unless nothing is sent."""
        if os.environ.get("WANDB_MODE", "online") in NOT_ONLINE:
            return
        try:
            found = wandb.login(verify=False, prompt=False)
        except wandb.errors.UsageError:
            found = False
        if not found:
            raise UsageError("no API key: run `wandb login`, or set WANDB_API_KEY or WANDB_MODE=offline")

    def start(self, run: TrackedRun, known: Mapping[str, str]) -> Mapping[str, str]:
        """Start or continue a run."""
        self.run = wandb.init(
            project=known.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT,
            entity=known.get("entity") or None,
            id=known.get("id"),
            name=run.name,
            config=dict(run.config),
            resume="allow",
            reinit="create_new",
            job_type="evaluation",
            settings=wandb.Settings(silent=True, console="off"),
        )
        self.run.define_metric(STEP)
        self.run.define_metric("*", step_metric=STEP)
        found = {"id": self.run.id, "project": self.run.project, "entity": self.run.entity}
        return {name: str(value) for name, value in found.items() if value}

    def log_scores(self, scores: Mapping[str, float], step: int) -> None:
        """Record numbers, drawn over the steps of the checkpoints."""
        self.run.log({**scores, STEP: step})

    def log_facts(self, facts: Mapping[str, str]) -> None:
        """Record texts in the run's summary."""
        self.run.summary.update(dict(facts))

    def log_table(self, table: Table, step: int) -> None:
        """Record a table."""
        rows = [list(row) for row in table.rows]
        self.run.log({table.name: wandb.Table(list(table.columns), rows, allow_mixed_types=True), STEP: step})

    def finish(self) -> str:
        """Send what is left and return the run's URL, or the command that uploads it."""
        if self.run.offline:
            place = f"offline; upload it with: wandb sync {os.path.dirname(self.run.dir)}"
        else:
            place = str(self.run.url)
        self.run.finish()
        return place
