"""Loading of a task from its YAML file."""

from __future__ import annotations

import logging
from pathlib import Path

from olmes_suite.errors import UsageError
from olmes_suite.lm_eval_api import load_yaml
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.external import LmEvalTask
from olmes_suite.tasks.task import SuiteTask


def load_task(path: Path, source: DataSource) -> SuiteTask:
    """Build the task of a YAML file. Raises MissingData or DataError for its data, UsageError for the file."""
    config = load_yaml(path)
    config["metadata"] = {**(config.get("metadata") or {}), "config_source": str(path)}
    kind = config.get("class")
    if not (isinstance(kind, type) and issubclass(kind, SuiteTask)):
        if kind is not None:
            raise UsageError(f"{path}: tasks with their own Python class are not supported; remove `class`")
        kind = LmEvalTask
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its warnings concern files that the user did not write
    cls = type("SuiteTask", (kind,), {"source": source})
    task: SuiteTask = cls(config=config)
    task.set_fewshot_seed(1234)
    return task
