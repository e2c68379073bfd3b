"""Options in lm-eval's form, `--model-args name=value,name=value`."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from olmes_suite.errors import UsageError


def parse(text: str, option: str = "--model-args") -> dict[str, Any]:
    """Parse names and values: numbers, true, false, null, JSON in braces or brackets, else text. Raises UsageError.

    `option` begins errors.
    """
    arguments: dict[str, Any] = {}
    for part in _parts(text):
        name, sign, value = part.partition("=")
        name = name.strip()
        if not sign or not name.isidentifier():
            raise UsageError(f"{option} {text}: {part.strip()!r} is not name=value")
        if name in arguments:
            raise UsageError(f"{option} {text}: {name} is given twice")
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
    """Split the text at commas outside braces, brackets and quotation marks; a mark opens a value or an entry only."""
    parts, depth, start, quote = [], 0, 0, ""
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
            continue
        if letter in "\"'" and text[:place].rstrip()[-1:] in ("=", "[", "{", ":", ","):
            quote = letter
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
    if isinstance(value, str) and text[:1] in ("'", '"'):
        return value
    if isinstance(value, list | dict) and text[:1] not in ("[", "{"):  # `Question:` is a text
        return text
    return value if value is None or isinstance(value, bool | int | float | list | dict) else text
