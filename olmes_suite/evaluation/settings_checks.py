"""Checks of the user's settings against the planned tasks and the backend, before the model is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from olmes_suite.errors import UsageError
from olmes_suite.models.factory import UNSET, fields_of
from olmes_suite.tasks.settings import fields_in

if TYPE_CHECKING:
    from olmes_suite.evaluation.plan import Options, TaskPlan


def check_settings(plans: Sequence[TaskPlan], options: Options, note: Callable[[str], None]) -> None:
    """Check the settings, and mark tasks as failed that the backend cannot ask. Raises UsageError."""
    settings = options.settings
    tasks = [leaf.task for plan in plans for leaf in plan.leaves]
    settings.check_tasks(tasks)
    _check_backend(plans, options, note)
    for line in settings.notes(tasks):
        note(line)
    for plan in plans:
        k, samples = plan.primary.removeprefix("pass_at_"), settings.samples
        if samples and plan.leaves and k != plan.primary and k.isdigit() and samples < int(k):
            note(f"{plan.name}: {plan.primary} needs {k} samples, and --samples {samples} gives fewer")


def _check_backend(plans: Sequence[TaskPlan], options: Options, note: Callable[[str], None]) -> None:
    """Refuse sampling fields that the backend does not have: the user's with UsageError, a task's with its task."""
    asked = {plan.name: dict.fromkeys(name for leaf in plan.leaves for name in fields_in(leaf.task)) for plan in plans}
    if not any(asked.values()):
        return
    known = fields_of(options.backend)
    for plan in plans:
        name = next((name for name in asked[plan.name] if name not in known), None)
        if name == UNSET:
            raise UsageError(
                "--gen-kwargs temperature=default leaves the temperature to a server; give a number, or "
                "--backend openai"
            )
        if name in options.settings.sampled:
            raise UsageError(f"--gen-kwargs {name}: --backend {options.backend} does not have it; use hf or vllm")
        if name is not None:
            plan.error = f"generation_kwargs: --backend {options.backend} has no {name}; use hf or vllm"
            plan.leaves = []
            note(f"{plan.name}: {plan.error}")
