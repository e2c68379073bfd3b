"""Whether the documents of a stage's evaluation are there, asked before a model is loaded."""

from __future__ import annotations

from pathlib import Path

from olmes_suite.errors import UsageError
from olmes_suite.tasks import catalog, index
from train_plugins.config.evaluation import Evaluation


def check(evaluation: Evaluation, model: str, where: str) -> list[str]:
    """Read the documents of all tasks as `olmes eval` will; those of the Hub are fetched.

    `where` begins the error and ends with the key of the evaluation. Returns notes on what `missing: skip` leaves out.
    Raises UsageError for other tasks without documents, and where no task has any; DataError for malformed ones.
    """
    lacking, number = lacks(evaluation, model)
    if not lacking:
        return []
    task, why = next(iter(lacking.items()))
    others = f"; also without documents: {', '.join(list(lacking)[1:])}" if len(lacking) > 1 else ""
    said = f"{where}: {task} cannot be evaluated: {why}{others}"
    left = len(lacking) < number
    if left and evaluation.missing == "skip":
        return [f"{said}; the other tasks are evaluated (`missing: skip`)"]
    key = where.rpartition(": ")[2]
    if left and evaluation.missing is None:
        said += f"; `missing: skip` under {key} goes on without them"
    if evaluation.data is None:
        said += f"; to try the recipe out, `data: sample` under {key} uses the few documents that ship with each task"
    raise UsageError(said)


def notes(evaluation: Evaluation, model: str, where: str) -> list[str]:
    """Return what `check` would refuse as a note of a dry run. Raises DataError for malformed documents."""
    try:
        return [f"note: {line}" for line in check(evaluation, model, where)]
    except UsageError as error:
        return [f"note: not on this machine: {error}"]


def lacks(evaluation: Evaluation, model: str) -> tuple[dict[str, str], int]:
    """Return the top-level tasks without documents, and why, and the number of all; unknown tasks are left out."""
    from olmes_suite.evaluation.plan import Options, choose, load_leaves
    from olmes_suite.tasks.documents import DataSource

    options = Options(
        model, suite_names=(evaluation.suite,) if evaluation.suite else (), task_names=evaluation.tasks,
        source=DataSource.from_environment(evaluation.data_dir, evaluation.data),
    )  # fmt: skip
    lacking: dict[str, str] = {}
    with catalog.including(map(Path, evaluation.include_path)):
        plans = [plan for plan in choose(options)[0] if plan.error is None]
        for plan in plans:
            load_leaves(plan, options)
            if plan.error is not None:
                lacking[plan.name.removeprefix(index.PREFIX)] = plan.error
            plan.leaves = []  # the documents are not needed any more
    return lacking, len(plans)
