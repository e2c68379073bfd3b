"""The rules of a gate: margins, required tasks, floors and health limits, from `gate.yaml` or by default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError, one_line
from olmes_suite.tasks.index import nearest

MARGIN = 0.01
"""Default margin: one point."""
MORE = 0.05
"""Without a limit of its own, a health share may exceed the baseline's by so much."""
HEALTH = ("truncated", "length", "empty", "extraction_failed")
"""Flags of answers, each as a share of the documents."""
CONTAMINATED = 0.02
"""Tülu 3's rule (§ 3.2): a training set is contaminated if it overlaps more than 2 % of an evaluation's instances."""
_INCONCLUSIVE = ("pass", "fail", "exit3")
_KEYS = ("alpha", "margin", "suite", "tasks", "skills", "health", "inconclusive")


@dataclass(frozen=True, slots=True)
class TaskRule:
    """What `gate.yaml` says of one task; fractions."""

    margin: float | None = None
    required: bool = False
    """The task must pass on its own."""
    floor: float | None = None
    """The candidate's score must not be below it."""


@dataclass(frozen=True, slots=True)
class Rules:
    """All rules of a gate; margins and floors are fractions."""

    alpha: float = 0.05
    margin: float = MARGIN
    suite_margin: float | None = None
    tasks: Mapping[str, TaskRule] = field(default_factory=dict)
    skills: Mapping[str, float] = field(default_factory=dict)
    health: Mapping[str, float] = field(default_factory=dict)
    """Largest share, for those that the file names."""
    inconclusive: str = "exit3"

    def task(self, name: str) -> TaskRule:
        """The rule of a task, named with or without prefix."""
        return self.tasks.get(name) or self.tasks.get(name.removeprefix("tulu3_")) or TaskRule()

    def margin_of(self, name: str, skill: str) -> float:
        """Margin of a task: its own, else its skill's, else the general one."""
        own = self.task(name).margin
        return own if own is not None else self.skills.get(skill, self.margin)


def read_rules(path: Path) -> Rules:
    """Rules from a YAML file. Raises UsageError naming the key that is wrong."""
    import yaml

    try:
        data = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read: {one_line(error, None)}") from error
    return parse_rules(data or {}, str(path))


def parse_rules(data: Any, where: str) -> Rules:
    """Rules from the content of `gate.yaml`; margins and floors are in points there, alpha and shares fractions."""
    _known(data, _KEYS, where)
    suite = data.get("suite") or {}
    _known(suite, ("margin",), f"{where}, suite")
    tasks = _mapping(data.get("tasks"), f"{where}, tasks")
    skills = _mapping(data.get("skills"), f"{where}, skills")
    health = _mapping(data.get("health"), f"{where}, health")
    _known(health, (*HEALTH, "request_errors", "contaminated"), f"{where}, health")
    inconclusive = data.get("inconclusive", "exit3")
    if inconclusive not in _INCONCLUSIVE:
        raise UsageError(f"{where}: inconclusive must be one of {', '.join(_INCONCLUSIVE)}, not {inconclusive!r}")
    return Rules(
        alpha=_number(data.get("alpha", 0.05), 1e-9, 0.5, f"{where}: alpha"),
        margin=_points(data.get("margin", 100 * MARGIN), f"{where}: margin"),
        suite_margin=None if "margin" not in suite else _points(suite["margin"], f"{where}: suite.margin"),
        tasks={str(name): _task_rule(rule, f"{where}, tasks.{name}") for name, rule in tasks.items()},
        skills={str(name): _skill_margin(rule, f"{where}, skills.{name}") for name, rule in skills.items()},
        health={str(name): _number(share, 0, 1, f"{where}: health.{name}") for name, share in health.items()},
        inconclusive=inconclusive,
    )


def _task_rule(data: Any, where: str) -> TaskRule:
    _known(data, ("margin", "required", "floor"), where)
    required = data.get("required", False)
    if not isinstance(required, bool):
        raise UsageError(f"{where}.required must be true or false, not {required!r}")
    return TaskRule(
        None if data.get("margin") is None else _points(data["margin"], f"{where}.margin"),
        required,
        None if data.get("floor") is None else _points(data["floor"], f"{where}.floor"),
    )


def _skill_margin(data: Any, where: str) -> float:
    _known(data, ("margin",), where)
    if "margin" not in data:
        raise UsageError(f"{where}: it needs `margin`")
    return _points(data["margin"], f"{where}.margin")


def _points(value: Any, where: str) -> float:
    return _number(value, 0, 100, f"{where} (in points)") / 100


def _number(value: Any, low: float, high: float, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise UsageError(f"{where} must be a number from {low:g} to {high:g}, not {value!r}")
    return float(value)


def _mapping(data: Any, where: str) -> Mapping[str, Any]:
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise UsageError(f"{where}: expected a mapping, not {type(data).__name__}")
    return data


def _known(data: Any, keys: tuple[str, ...], where: str) -> None:
    for key in _mapping(data, where):
        if key not in keys:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(str(key), list(keys))}; known: {', '.join(keys)}")


def rules(given: str | Mapping[str, Any], where: str) -> Rules:
    """The rules of a `gate.yaml`, or of its content in a recipe. Raises UsageError."""
    return read_rules(Path(given)) if isinstance(given, str) else parse_rules(given, where)
