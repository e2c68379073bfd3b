"""Options of an engine in lm-eval's form, `--model-args name=value,name=value`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from olmes_suite.errors import UsageError


def parse(text: str) -> dict[str, Any]:
    """Parse names and values: numbers, true, false, null, JSON in braces or brackets, else text. Raises UsageError."""
    arguments: dict[str, Any] = {}
    for part in _parts(text):
        name, sign, value = part.partition("=")
        name = name.strip()
        if not sign or not name.isidentifier():
            raise UsageError(f"--model-args {text}: {part.strip()!r} is not name=value")
        if name in arguments:
            raise UsageError(f"--model-args {text}: {name} is given twice")
        arguments[name] = _value(value.strip())
    return arguments


def check_names(arguments: Mapping[str, object], known: Iterable[str], engine: str) -> None:
    """Raise UsageError for a name that the engine does not have."""
    names = sorted(known)
    for name in arguments:
        if name not in names:
            similar = difflib.get_close_matches(name, names, n=1)
            hint = f"did you mean {similar[0]}?" if similar else f"see the engine arguments of {engine}"
            raise UsageError(f"--model-args: {engine} has no argument {name!r}; {hint}")


def _parts(text: str) -> list[str]:
    """Split the text at commas outside braces and brackets."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(text):
        depth += (letter in "{[") - (letter in "}]")
        if letter == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [part for part in [*parts, text[start:]] if part.strip()]


def _value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if value is None or isinstance(value, bool | int | float | list | dict) else text
