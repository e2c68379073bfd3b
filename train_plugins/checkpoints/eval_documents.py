"""Whether the documents of a stage's evaluation are there, asked before a model is loaded."""

from __future__ import annotations

from pathlib import Path

from olmes_suite.errors import UsageError
from olmes_suite.tasks import catalog, index
from train_plugins.config.evaluation import Evaluation

ADVICE = "`data: sample` under eval uses the few documents that ship with each task"


def check(evaluation: Evaluation, model: str, where: str) -> None:
    """Read the documents of all tasks as `olmes eval` will; those of the Hub are fetched.

    `where` begins the error. Raises UsageError for tasks without documents, DataError for malformed ones.
    """
    lacking = lacks(evaluation, model)
    if not lacking:
        return
    task, why = next(iter(lacking.items()))
    others = f"; also without documents: {', '.join(list(lacking)[1:])}" if len(lacking) > 1 else ""
    advice = "" if evaluation.data is not None else f"; to try the recipe out, {ADVICE}"
    raise UsageError(f"{where}: {task} cannot be evaluated: {why}{others}{advice}")


def notes(evaluation: Evaluation, model: str, where: str) -> list[str]:
    """Return what `check` would refuse as a note of a dry run. Raises DataError for malformed documents."""
    try:
        check(evaluation, model, where)
    except UsageError as error:
        return [f"note: not on this machine: {error}"]
    return []


def lacks(evaluation: Evaluation, model: str) -> dict[str, str]:
    """Return the top-level tasks without documents, and why; tasks that are not of this version are left out."""
    from olmes_suite.evaluation.plan import Options, choose, load_leaves
    from olmes_suite.tasks.documents import DataSource

    options = Options(
        model, suite_names=(evaluation.suite,) if evaluation.suite else (), task_names=evaluation.tasks,
        source=DataSource.from_environment(evaluation.data_dir, evaluation.data),
    )  # fmt: skip
    lacking = {}
    with catalog.including(map(Path, evaluation.include_path)):
        plans, _ = choose(options)
        for plan in (plan for plan in plans if plan.error is None):
            load_leaves(plan, options)
            if plan.error is not None:
                lacking[plan.name.removeprefix(index.PREFIX)] = plan.error
            plan.leaves = []  # the documents are not needed any more
    return lacking
