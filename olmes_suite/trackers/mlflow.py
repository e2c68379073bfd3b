"""MLflow. Its own variables apply: MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME, and those of its credentials."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar

os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # not the creation of a local store, table by table

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from olmes_suite.errors import UsageError
from olmes_suite.extras import installed
from olmes_suite.trackers.base import PROJECT, Table, TrackedRun, Tracker

RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""MLflow's own number of retries keeps a finished run waiting for minutes where the server cannot be reached."""
BATCH = 100
"""Values of a request; servers take at most 100 parameters and 1,000 metrics."""
LONGEST = 500
"""Characters of a parameter or tag, for which old servers have this limit."""
DATABASES = ("sqlite", "mysql", "postgresql", "mssql")


class Mlflow(Tracker):
    """A run of an MLflow experiment. Only its client is used, which leaves the active run of a trainer alone."""

    name: ClassVar[str] = "mlflow"

    def __init__(self) -> None:
        os.environ.setdefault(RETRIES, "2")
        self.client = MlflowClient()
        self.run_id = ""

    @classmethod
    def check(cls) -> None:
        """Raise UsageError for a store whose packages are missing."""
        uri = mlflow.get_tracking_uri()
        if uri.startswith(DATABASES) and not (installed("sqlalchemy") and installed("alembic")):
            raise UsageError(
                f"the store {uri.partition(':')[0]} needs packages that are not installed: pip install sqlalchemy "
                "alembic; or set MLFLOW_TRACKING_URI to the address of a server"
            )

    def start(self, run: TrackedRun, known: Mapping[str, str]) -> Mapping[str, str]:
        """Start or continue a run."""
        if known.get("run_id"):
            self.run_id = known["run_id"]
            self.client.set_terminated(self.run_id, "RUNNING")
            return known
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        found = self.client.get_experiment_by_name(experiment)
        number = found.experiment_id if found is not None else self._create(experiment)
        self.run_id = self.client.create_run(number, run_name=run.name).info.run_id
        params = iter([Param(_name(key), str(value)[:LONGEST]) for key, value in run.config.items()])
        while batch := list(islice(params, BATCH)):
            self.client.log_batch(self.run_id, params=batch)
        return {"run_id": self.run_id, "experiment_id": number}

    def _create(self, experiment: str) -> str:
        try:
            return str(self.client.create_experiment(experiment))
        except MlflowException:  # another process was faster
            found = self.client.get_experiment_by_name(experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def log_scores(self, scores: Mapping[str, float], step: int) -> None:
        """Record numbers at a step."""
        now = int(1000 * time.time())
        metrics = iter([Metric(_name(name), value, now, step) for name, value in scores.items()])
        while batch := list(islice(metrics, BATCH)):
            self.client.log_batch(self.run_id, metrics=batch)

    def log_facts(self, facts: Mapping[str, str]) -> None:
        """Record texts as tags."""
        for name, text in facts.items():
            self.client.set_tag(self.run_id, _name(name), text[:LONGEST])

    def log_table(self, table: Table, step: int) -> None:
        """Record a table as an artifact, which MLflow's page shows as a table. One of the same step is replaced."""
        file = f"{_name(table.name)}/step-{step}.json"
        present = {item.path for item in self.client.list_artifacts(self.run_id, _name(table.name))}
        if file in present:  # log_table would append to it
            self.client.log_dict(self.run_id, {"columns": list(table.columns), "data": _rows(table)}, file)
        else:
            columns = zip(*table.rows, strict=True) if table.rows else ([] for _ in table.columns)
            data = dict(zip(table.columns, map(list, columns), strict=True))
            self.client.log_table(self.run_id, data, file)

    def finish(self) -> str:
        """End the run and return where it is."""
        self.client.set_terminated(self.run_id)
        return f"run {self.run_id} in {mlflow.get_tracking_uri()}"


def _rows(table: Table) -> list[list[Any]]:
    return [list(row) for row in table.rows]


def _name(text: str) -> str:
    """Replace the characters that names of metrics and files may not have."""
    return re.sub(r"[^\w\-. /]", "_", text)[:250]
