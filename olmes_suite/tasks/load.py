"""Loading of a task from its YAML file."""

from __future__ import annotations

import logging
from pathlib import Path

from olmes_suite.errors import UnsuitableTask
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.external import LmEvalTask
from olmes_suite.tasks.task import SuiteTask
from olmes_suite.tasks.task_file import check_keys, problem, read_task_file


def load_task(path: Path, source: DataSource) -> SuiteTask:
    """Build the task of a YAML file. Raises MissingData or DataError for its data, UnsuitableTask for its class.

    UsageError names what is wrong with the file.
    """
    config = read_task_file(path)
    config["metadata"] = {**(config.get("metadata") or {}), "config_source": str(path)}
    kind = config.get("class")
    if not (isinstance(kind, type) and issubclass(kind, SuiteTask)):
        if kind is not None:
            raise UnsuitableTask(
                f"{path}: the task has a Python class of its own, which is not supported here: run it with lm_eval"
            )
        kind = LmEvalTask
        check_keys(config, path)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)  # its warnings concern files that the user did not write
    cls = type("SuiteTask", (kind,), {"source": source})
    try:
        task: SuiteTask = cls(config=config)
        if isinstance(task, LmEvalTask):
            task.check_examples()
            task.check_filters()
    except Exception as error:  # lm-eval's own, and those of the file's functions
        raise problem(path, error) from error
    task.set_fewshot_seed(1234)
    return task
