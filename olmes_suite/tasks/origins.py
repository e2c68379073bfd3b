"""Where each setting of a task's answers comes from: the command, its profile or the task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from olmes_suite.tasks.settings import Settings, effective

if TYPE_CHECKING:
    from olmes_suite.tasks.task import SuiteTask


@dataclass(frozen=True, slots=True)
class Origin:
    """A setting in effect."""

    value: Any
    origin: str
    """command, profile or task."""
    own: Any = None
    """The task's own value, where another one is in effect."""

    def as_json(self) -> dict[str, Any]:
        """Return the setting in the form of `olmes tasks show --json`."""
        return {"value": self.value, "from": self.origin} | ({"task": self.own} if self.own is not None else {})


def applied(task: SuiteTask, settings: Settings) -> dict[str, Origin]:
    """Put the settings over a task, and return all that are in effect by name. Raises UsageError."""
    before = effective(task) or {}
    settings.apply(task)
    settings.check_tasks([task])
    after = effective(task) or {}
    found: dict[str, Origin] = {}
    after.pop("chat_template_args", None)
    for name in dict.fromkeys([*after, *before]):
        value, own = after.get(name), before.get(name)
        origin = "task" if value == own else _origin(name, settings)
        found[name] = Origin(value, origin, own if value != own else None)
    if settings.system is not None:
        found["system"] = Origin(settings.system or "none", _origin("system", settings))
    for name, argument in settings.chat_template_args.items():
        found[f"chat_template_args.{name}"] = Origin(argument, _origin(name, settings))
    return found


def _origin(name: str, settings: Settings) -> str:
    own = {*settings.gen_kwargs, *settings.commanded}
    decided_together = {"temperature": "do_sample"}
    return "command" if name in own or decided_together.get(name) in own else "profile"
