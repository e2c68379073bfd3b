"""Environments of rollouts: a class (or a function that makes an instance) by its import path, as TRL takes them.

`reset(**row)` starts an episode with the columns of the data's row; its public methods are tools; `get_reward()`, which
is optional, adds to the reward. Instances are used again for later episodes.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from olmes_suite.errors import OlmesError, UsageError, first_line
from train_plugins.rl import import_paths, tools

NOT_TOOLS = ("reset", "get_reward")
Factory = Callable[[], Any]
Factories = Factory | dict[str, Factory]


class EnvironmentFailed(OlmesError):
    """An environment raised an error outside the methods that the model calls."""


def load(named: str | Mapping[str, str] | None, folder: Path | None = None) -> dict[str | None, Factory]:
    """Return the factories of the recipe's `environment`, by the name in the rows (None: for all rows).

    Each is called once as a check. Raises UsageError.
    """
    if named is None:
        return {}
    paths: dict[str | None, str] = {None: named} if isinstance(named, str) else dict(named.items())
    if not paths:
        raise UsageError("rlvr.environment names no environment")
    factories = {}
    for name, path in paths.items():
        key = "rlvr.environment" if name is None else f"rlvr.environment.{name}"
        factory = import_paths.load(path, key, folder)
        _check(factory, f"{key}: {path}")
        factories[name] = factory
    return factories


def _check(factory: Any, where: str) -> None:
    """Raise UsageError unless a factory makes a usable environment."""
    if not callable(factory):
        raise UsageError(f"{where}: a {type(factory).__name__}, not a class or a function that makes an environment")
    try:
        instance = factory()
    except OlmesError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UsageError(f"{where}: cannot be made without arguments: {reason}") from None
    if not inspect.isfunction(getattr(type(instance), "reset", None)):
        raise UsageError(f"{where}: {type(instance).__name__} has no method `reset`, which starts an episode")
    if inspect.iscoroutinefunction(type(instance).reset):
        raise UsageError(f"{where}: `reset` must not be asynchronous")
    for method in methods(instance):
        tools.check_function(method, f"{where}.{method.__name__}")


def methods(instance: Any) -> list[tools.Tool]:
    """Return the public methods of an environment, which are its tools, in the order in which TRL shows them."""
    found = inspect.getmembers(type(instance), predicate=inspect.isfunction)
    return [getattr(instance, name) for name, _ in found if not name.startswith("_") and name not in NOT_TOOLS]


def guarded(factory: Factory, calls: tools.Calls) -> Factory:
    """Return a factory of environments whose calls are counted and whose errors name them."""

    kinds: dict[type, type] = {}  # one class for each: TRL compares the types of instances

    def make() -> Any:
        try:
            instance = factory()
            kind = type(instance)
            if kind not in kinds:
                kinds[kind] = _guarded(kind, calls)
            instance.__class__ = kinds[kind]
        except OlmesError:
            raise
        except Exception as error:
            name = getattr(factory, "__name__", "the environment")
            raise EnvironmentFailed(f"{name} cannot be made: {type(error).__name__}: {first_line(error)}") from error
        return instance

    return make


def _guarded(kind: type, calls: tools.Calls) -> type:
    """Return a subclass, of the same name, that counts calls and converts errors."""
    space: dict[str, Any] = {"__slots__": (), "__doc__": kind.__doc__, "__module__": kind.__module__}
    for name, method in inspect.getmembers(kind, predicate=inspect.isfunction):
        if name == "reset":
            space[name] = _reset(kind, method, calls)
        elif name == "get_reward":
            space[name] = _reward(kind, method)
        elif not name.startswith("_"):
            space[name] = calls.counted(method, environment=True)
    return type(kind.__name__, (kind,), space)


def _reset(kind: type, method: Callable[..., Any], calls: tools.Calls) -> Callable[..., Any]:
    parameters = inspect.signature(method).parameters
    takes_all = any(one.kind is one.VAR_KEYWORD for one in parameters.values())

    def reset(self: Any, **row: Any) -> Any:
        columns = row_columns(row)
        wanted = {name: value for name, value in columns.items() if takes_all or name in parameters}
        try:
            shown = method(self, **wanted)
        except Exception as error:
            raise _failed(kind, "reset", error, f"row {row.get('row', '?')}: ") from error
        return calls.broken_up(shown) if isinstance(shown, str) else shown

    return reset


def row_columns(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the data's row, with its `prompt` as turns and its `ground_truth`."""
    return {
        **json.loads(row["extra"]), "prompt": row["prompt"], "ground_truth": json.loads(row["truth"]),
    }  # fmt: skip


def _reward(kind: type, method: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(method):

        async def later(self: Any) -> Any:
            try:
                return _number(await method(self))
            except Exception as error:
                raise _failed(kind, "get_reward", error) from error

        return later

    def now(self: Any) -> Any:
        try:
            return _number(method(self))
        except Exception as error:
            raise _failed(kind, "get_reward", error) from error

    return now


def _number(reward: Any) -> float | None:
    """Return a reward as a number. Raises ValueError for anything else, except None, which skips the row."""
    if reward is None:
        return None
    number = float(reward)
    if number != number or number in (float("inf"), float("-inf")):
        raise ValueError(f"the reward is {number}")
    return number


def _failed(kind: type, method: str, error: Exception, where: str = "") -> EnvironmentFailed:
    reason = f"{type(error).__name__}: {first_line(error)}"
    return EnvironmentFailed(f"{where}the environment {kind.__module__}:{kind.__name__} raised {reason} in {method}")
