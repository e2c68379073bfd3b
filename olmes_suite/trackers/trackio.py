"""Trackio. Its own variables apply: TRACKIO_PROJECT, TRACKIO_DIR, TRACKIO_SPACE_ID, TRACKIO_SERVER_URL."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextvars import Context
from typing import Any, ClassVar

import trackio

from olmes_suite.trackers.base import PROJECT, Table, TrackedRun, Tracker


class Trackio(Tracker):
    """A run of Trackio, in its folder of this machine or in a Space."""

    name: ClassVar[str] = "trackio"

    def __init__(self) -> None:
        self.run: Any = None
        self.project = PROJECT

    def start(self, run: TrackedRun, known: Mapping[str, str]) -> Mapping[str, str]:
        """Start or continue a run, which Trackio knows by its project and name."""
        self.project = known.get("project") or os.environ.get("TRACKIO_PROJECT") or PROJECT
        name = known.get("name") or run.name
        # in an empty context: `init` ends the run of the current one, which may be the trainer's
        self.run = Context().run(
            trackio.init,
            project=self.project,
            name=name,
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return {"project": self.project, "name": name}

    def log_scores(self, scores: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        self.run.log(dict(scores), step=step)

    def log_facts(self, facts: Mapping[str, str]) -> None:
        """Record texts as a table of one row, because Trackio fixes a run's configuration at its start."""
        self.log_table(Table("facts", tuple(facts), (tuple(facts.values()),)), 0)

    def log_table(self, table: Table, step: int) -> None:
        """Record a table."""
        import pandas as pd

        frame = pd.DataFrame(list(table.rows), columns=list(table.columns))
        self.run.log({table.name: trackio.Table(dataframe=frame)}, step=step)

    def finish(self) -> str:
        """Send what is left and return the command that shows the project."""
        self.run.finish()
        return f"trackio show --project {self.project}"
