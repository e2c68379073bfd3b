"""From plain data (YAML) to typed frozen dataclasses; what does not fit is one line that says where."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from olmes_suite.errors import UsageError
from olmes_suite.tasks.index import nearest

T = TypeVar("T")
INNER = "inner"
"""Metadata of a dataclass's field that is no key of the file."""


def read(kind: type[T], data: Any, where: str, also: Sequence[str] = ()) -> T:
    """An instance of the dataclass `kind`. Raises UsageError for unknown, missing or ill-typed keys.

    `also`: keys of the file that somebody else has taken out of `data`; a wrong key may mean one of them.
    """
    if not isinstance(data, Mapping):
        raise UsageError(f"{where}: expected a mapping, not {data!r}")
    known = {f.name: f for f in fields(kind) if not f.metadata.get(INNER)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    for key in data:
        if key not in known:
            names = [*known, *also]
            raise UsageError(f"{where}: unknown key {key!r}{nearest(str(key), names)}; known: {', '.join(names)}")
    for name, f in known.items():
        if name not in data and f.default is MISSING and f.default_factory is MISSING:
            raise UsageError(f"{where}: the key {name!r} is missing")
    return kind(**{key: convert(hints[key], value, f"{where}: {key}") for key, value in data.items()})


def convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the annotation `hint` wants it. Raises UsageError.

    Numbers in quotes count as numbers: YAML 1.1 reads 5e-6, which has no dot, as text.
    """
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _one_of(args, value, where)
    if origin is Literal:
        if value not in args:
            raise UsageError(f"{where}: {value!r} is none of {', '.join(map(str, args))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(convert(args[0], item, f"{where}[{number}]") for number, item in enumerate(items))
    if is_dataclass(hint):
        return read(hint, value, where)  # type: ignore[arg-type]
    if origin is not None or hint in (dict, list, Mapping):
        base = origin or hint
        if not isinstance(value, base):
            raise UsageError(f"{where}: expected a {base.__name__.lower()}, not {value!r}")
        return value
    return _scalar(hint, value, where)


def _one_of(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    problem: UsageError | None = None
    for option in options:
        if option is not type(None):
            try:
                return convert(option, value, where)
            except UsageError as error:
                problem = problem or error
    raise problem or UsageError(f"{where}: cannot be {value!r}")


def _scalar(hint: Any, value: Any, where: str) -> Any:
    if hint is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            pass
    right = {
        bool: isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        float: isinstance(value, int | float) and not isinstance(value, bool),
        str: isinstance(value, str),
    }
    if hint not in right:  # an enumeration, or a class of a library: its owner checks it
        return value
    if not right[hint]:
        raise UsageError(f"{where}: expected {_NAMES[hint]}, not {value!r}")
    return value


_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
