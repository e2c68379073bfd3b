"""Tools that the model may call in its rollouts: typed functions, by their import path or the name of a shipped one.

They reach the model through TRL's `tools`. What a tool raises becomes an error message to the model.
"""

from __future__ import annotations

import inspect
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError, first_line, nearest, one_line
from train_plugins.rl import import_paths

SHIPPED = {"python": "train_plugins.rl.python_tool:python"}
"""Tools that come with this package."""
LONGEST = 50_000
"""The largest number of characters of a result that the model gets; encoding many millions would take minutes."""
Tool = Callable[..., Any]
MODELS_FAULT = (ValueError, TypeError, LookupError, ArithmeticError, AssertionError)
"""Exceptions with which a method of an environment says that the model used it in a wrong way."""


def load(paths: Sequence[str], folder: Path | None = None) -> list[Tool]:
    """Return the functions of the recipe's `tools`. `folder` is the recipe's.

    Raises UsageError for a path that leads to no typed function, MissingData where a shipped tool cannot run.
    """
    found: list[Tool] = []
    for path in paths:
        where = f"rlvr.tools: {path}"
        if path not in SHIPPED and ":" not in path and "." not in path:
            raise UsageError(
                f"{where}: not a shipped tool ({', '.join(SHIPPED)}){nearest(path, list(SHIPPED))}, and not an import "
                "path, which is module:function"
            )
        tool = import_paths.load(SHIPPED.get(path, path), "rlvr.tools", folder)
        check_function(tool, where)
        if tool.__name__ in [one.__name__ for one in found]:
            raise UsageError(f"{where}: two tools are named {tool.__name__!r}, and the model could not tell them apart")
        found.append(tool)
        prepare = getattr(sys.modules[tool.__module__], "prepare", None) if path in SHIPPED else None
        if prepare is not None:
            prepare()
    return found


def check_function(tool: Any, where: str) -> None:
    """Raise UsageError unless a tool is a function whose description for the model can be made from its signature."""
    if inspect.isclass(tool) or not callable(tool) or not hasattr(tool, "__name__"):
        kind = "a class" if inspect.isclass(tool) else f"a {type(tool).__name__}"
        raise UsageError(f"{where}: {kind}, not a function; a tool is a function with typed arguments and a docstring")
    if tool.__name__ == "<lambda>":
        raise UsageError(f"{where}: a lambda has no name or types; write a function with `def`")
    if inspect.isgeneratorfunction(tool) or inspect.isasyncgenfunction(tool):
        raise UsageError(f"{where}: a generator, whose result is no text; return the text instead of yielding it")
    for name, parameter in inspect.signature(tool).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise UsageError(f"{where}: argument {name!r}: the model passes arguments by name, so each needs its own")
        if parameter.annotation is parameter.empty:
            raise UsageError(f"{where}: argument {name!r} has no type; write `{name}: str`, or what it is")
    try:
        schema(tool)
    except Exception as error:  # transformers' errors of docstrings and types, and those of a user's annotations
        raise UsageError(
            f"{where}: cannot be described to the model: {one_line(error, 200)}; its docstring needs a summary and, "
            "under `Args:`, a line for each argument"
        ) from None


def schema(tool: Tool) -> dict[str, Any]:
    """Return the JSON schema with which the chat template describes a tool."""
    from transformers.utils import get_json_schema

    described: dict[str, Any] = get_json_schema(tool)
    return described


def shortened(text: str, limit: int) -> str:
    """Return the text; of one above `limit` characters the start and the end."""
    if len(text) <= limit:
        return text
    return f"{text[: limit // 2]}\n… ({len(text) - limit} characters left out) …\n{text[-limit // 2 :]}"


@dataclass
class Calls:
    """Counts the calls of tools and their failures, by the tool's name."""

    calls: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    last: dict[str, str] = field(default_factory=dict)
    """The last error of each tool."""
    broken: str | None = None
    """The first error of an environment's method that is not the model's fault."""
    control: tuple[str, ...] = ()
    """Texts of the tokenizer's control tokens, which results must not contain."""

    def counted(self, tool: Tool, environment: bool = False) -> Tool:
        """Return the tool with its calls counted; `environment`: it is a method of one, which may be broken."""
        name = tool.__name__
        raised = (Exception, SystemExit)  # `sys.exit` in a user's tool would end the stage without a word
        if inspect.iscoroutinefunction(tool):

            @wraps(tool)
            async def later(*args: Any, **arguments: Any) -> Any:
                self.calls[name] += 1
                try:
                    return self.plain(await tool(*args, **arguments))
                except raised as error:
                    raise self._failed(name, error, environment) from error

            return later

        @wraps(tool)
        def now(*args: Any, **arguments: Any) -> Any:
            self.calls[name] += 1
            try:
                return self.plain(tool(*args, **arguments))
            except raised as error:
                raise self._failed(name, error, environment) from error

        return now

    def _failed(self, name: str, error: BaseException, environment: bool) -> Exception:
        """Note an error, and return it with the text for the model."""
        self.failures[name] += 1
        self.last[name] = f"{type(error).__name__}: {first_line(error)}"
        if environment and not isinstance(error, MODELS_FAULT):
            self.broken = self.broken or f"{name} raised {self.last[name]}"
        text = str(error)
        if isinstance(error, LookupError | SystemExit) or not text:  # str(KeyError("x")) is only 'x'
            text = f"{type(error).__name__}: {text}".removesuffix(": ")
        return RuntimeError(str(self.plain(text)))

    def plain(self, result: Any) -> Any:
        """Return a tool's text, shortened to `LONGEST` characters, with control tokens broken up.

        `<|im_end|>` in it would end the turn.
        """
        if isinstance(result, list) and result and all(isinstance(one, dict) and "type" in one for one in result):
            if any(one["type"] != "text" for one in result):  # content blocks, such as images
                return [{**one, "text": self.plain(one["text"])} if "text" in one else one for one in result]
            result = "".join(str(one.get("text", "")) for one in result)
        return self.broken_up(shortened(str(result), LONGEST))

    def broken_up(self, text: str) -> str:
        """Return the text with a space in each control token."""
        for token in self.control:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def summary(self) -> str:
        """Describe all calls in one line."""
        failed = [
            f"{name} {count} of {self.calls[name]} (last: {self.last[name][:120]})"
            for name, count in self.failures.most_common(3)
        ]
        total, lost = sum(self.calls.values()), sum(self.failures.values())
        return f"tools: {total} calls, {lost} failed" + (f": {'; '.join(failed)}" if failed else "")
