"""Tasksets of Prime Intellect's package `verifiers` (its v1 interface), scored from the conversation alone.

A task is rebuilt from its data and scores a trace made of the prompt's messages and the answer. Nothing runs: no
harness, no tools, no server. The same functions serve a verifier of `olmes train rlvr` and a task of `olmes eval`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, UsageError, first_line
from olmes_suite.extras import require_module
from olmes_suite.records import Message, Scored
from olmes_suite.scoring.scorers import scorer


@dataclass(frozen=True, slots=True)
class Row:
    """A task of a taskset, as data."""

    messages: tuple[Message, ...]
    """The prompt, which ends with a user's turn."""
    data: Mapping[str, Any]
    """The task's data, from which `score_answer` rebuilds it."""


@lru_cache(maxsize=8)
def load(name: str) -> Any:
    """Import the taskset that a module named `name` exports, and check that its answers can be scored here.

    Modules are looked for among the installed ones, then in the working directory. Raises UsageError without the
    package `verifiers`, for a module without a taskset, and for a taskset that needs tools, a judge or a runtime.
    """
    require_module("verifiers", f"taskset {name}: needs the package verifiers")
    loaders: Any = import_module("verifiers.v1.utils.loaders")
    configs: Any = import_module("verifiers.v1.configs.taskset")
    generic: Any = import_module("verifiers.v1.utils.generic")
    logging.getLogger("verifiers").setLevel(logging.WARNING)
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # at the end, where it hides no installed module
    try:
        kind = loaders.taskset_class(name)
        config = (generic.concrete_type(kind, configs.TasksetConfig) or configs.TasksetConfig)(id=name)
        taskset = kind(config)
    except (Exception, SystemExit) as error:  # a module of another package can raise any type
        if isinstance(error, ModuleNotFoundError) and not _exists(name):
            raise UsageError(
                f"taskset {name}: there is no such module among the installed ones or in the working directory; "
                "install its package, or run the command beside it"
            ) from None
        raise UsageError(f"taskset {name}: cannot be loaded: {type(error).__name__}: {first_line(error)}") from None
    if kind.toolsets(config) or kind.task_type().toolsets(config.task):
        raise UsageError(f"taskset {name}: its tasks need tools, which run in a server of verifiers; not supported")
    return taskset


def _exists(name: str) -> bool:
    """Whether there is a module of that name, which may be spelled with hyphens."""
    root = name.rsplit("/", 1)[-1].split("@", 1)[0].split(".", 1)[0].replace("-", "_")
    return bool(root) and find_spec(root) is not None


def check_task(name: str, task: Any) -> None:
    """Raise UsageError unless a task's rewards need nothing but the conversation."""
    if task.plugged_judges():
        raise UsageError(f"taskset {name}: its tasks need a judge of verifiers; not supported")
    rewards = task.hooks("reward")
    if not rewards:
        raise UsageError(f"taskset {name}: its tasks have no reward")
    for reward in rewards:
        if not inspect.iscoroutinefunction(reward):
            raise UsageError(f"taskset {name}: its reward {reward.__name__!r} must be `async def`, as verifiers wants")
        runtime = inspect.signature(reward).parameters.get("runtime")
        if runtime is not None and runtime.default is inspect.Parameter.empty:
            raise UsageError(
                f"taskset {name}: its reward {reward.__name__!r} needs the runtime in which the answer was made; only "
                "rewards of the conversation alone can be computed here"
            )


def rows(name: str, limit: int | None = None) -> Iterator[Row]:
    """Yield the tasks of a taskset, at most `limit`.

    Raises UsageError for an endless taskset without a limit, DataError for a task without a prompt of text.
    """
    taskset = load(name)
    if not taskset.bounded and limit is None:
        raise UsageError(f"taskset {name}: is endless; give --limit")
    for number, task in enumerate(_tasks(name, islice(taskset, limit))):
        if number == 0:
            check_task(name, task)
        yield Row(_messages(name, task.data), task.data.model_dump(mode="json", exclude_defaults=True))


def _tasks(name: str, tasks: Iterable[Any]) -> Iterator[Any]:
    """Yield the tasks that a taskset loads. Raises UsageError in place of its own errors."""
    try:
        yield from tasks
    except (Exception, SystemExit) as error:  # a data set that is not at hand, a bug
        raise UsageError(
            f"taskset {name}: its tasks cannot be loaded: {type(error).__name__}: {first_line(error)}"
        ) from None


def _messages(name: str, data: Any) -> tuple[Message, ...]:
    """Return the prompt of a task. Raises DataError."""
    turns: list[Message] = [{"role": "system", "content": data.system_prompt}] if data.system_prompt else []
    given = data.prompt
    if isinstance(given, str):
        turns.append({"role": "user", "content": given})
    else:
        for turn in given or []:
            if not isinstance(turn.content, str):
                raise DataError(f"taskset {name}, task {data.idx}: its prompt holds more than text")
            turns.append({"role": turn.role, "content": turn.content})
    if not turns or turns[-1]["role"] != "user":
        raise DataError(f"taskset {name}, task {data.idx}: its prompt does not end with a user's turn")
    return tuple(turns)


def score_answer(
    name: str, data: Mapping[str, Any], messages: Sequence[Mapping[str, str]], answer: str
) -> tuple[float, dict[str, float]]:
    """Return the reward of an answer, the weighted sum of the task's rewards, and the task's metrics.

    Raises UsageError as `load` does, DataError for data that the task cannot read,
    ValueError for a reward that is not finite.
    """
    taskset = load(name)
    kind = taskset.task_type()
    try:
        task = kind(kind.data_type().model_validate(dict(data)), taskset.config.task)
    except ValueError as error:
        raise DataError(f"taskset {name}: the task's data cannot be read: {first_line(error)}") from None
    check_task(name, task)
    trace = _trace(task, messages, answer)
    asyncio.run(task.score(trace))
    if not math.isfinite(trace.reward):  # fails its task alone, like an error that a reward raises
        raise ValueError(f"taskset {name}: its rewards sum to {trace.reward}, which is no finite number")
    metrics = {key: float(value) for key, value in trace.metrics.items() if value is not None}
    return float(trace.reward), metrics


def _trace(task: Any, messages: Sequence[Mapping[str, str]], answer: str) -> Any:
    """Return the record of a conversation in which the model gave one answer."""
    traces: Any = import_module("verifiers.v1.trace")
    types: Any = import_module("verifiers.v1.types")
    kinds = {"system": types.SystemMessage, "user": types.UserMessage, "assistant": types.AssistantMessage}
    said = [kinds[turn["role"]](content=turn["content"]) for turn in messages]
    nodes = [
        traces.MessageNode(parent=number - 1 if number else None, message=message)
        for number, message in enumerate(said)
    ]
    nodes.append(traces.MessageNode(parent=len(said) - 1, message=types.AssistantMessage(content=answer), sampled=True))
    about = traces.TraceTask(type=type(task).__name__, data=task.data)
    # the agent is not read by rewards of the conversation, and its configuration names a provider
    trace = traces.Trace(task=about, agent=traces.AgentInfo.model_construct(), nodes=nodes)
    trace.is_completed = trace.ok = True
    return trace


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score an answer to a document that `olmes tasks taskset` has written: the reward, cut to 0 to 1."""
    import json

    reward, _ = score_answer(doc["taskset"], json.loads(doc["data"]), json.loads(doc["messages"]), response)
    return Scored({"reward": min(max(reward, 0.0), 1.0)})
