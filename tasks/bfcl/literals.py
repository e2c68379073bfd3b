"""Values of Java and JavaScript in the arguments of a call, read as the leaderboard's converters read them.

Arguments of these languages are Python strings that hold a literal: `"5L"`, `"new int[]{1, 2}"`, `"{'a': true}"`. What
is not a literal of the declared type stays text, and then counts as a variable. Lists are split at every comma, those
inside strings too, and the elements of a Java array of strings keep their quotes, as in the leaderboard.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

_LONGEST = 4000
"""Characters up to which a literal is read; a longer one stays text."""
_WHOLE = re.compile(r"-?\d+$")
_LONG = re.compile(r"(-?\d+)[lL]$")
_BIG = re.compile(r"(-?\d+)n$")
_PLAIN = re.compile(r"-?\d+(\.\d+)?$")
_DECIMAL = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?$")
_FLOAT = re.compile(r"(-?\d+(\.\d+)?([eE][+-]?\d+)?)[fF]$")

_AS_LIST = re.compile(r"new\s++ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)")
_ADDED = re.compile(r"new\s++ArrayList<\w*>\(\)\s*+\{\{\s*+(.+?)\s*+\}\}", re.DOTALL)
_ADD = re.compile(r"add\((.+?)\)")
_NO_LIST = re.compile(r"new\s++ArrayList<\w*>\(\)")
_ARRAY = re.compile(r"new\s++\w+\[\]\s*+\{(.*?)\}")
_MAP = re.compile(r"new\s++HashMap<.*?>\s*+\(\)\s*+\{\s*+\{?\s*+(.*?)\s*+\}?\s*+\}", re.DOTALL)
_PUT = re.compile(r'put\("(.*?)",\s*+(.*?)\)')
_NO_MAP = re.compile(r"new\s++HashMap<.*?>\s*+\(\)")

_TABLE = re.compile(r"\[\s*+\[|new\s++Array\(\s*+\[")
_ROW = re.compile(r"\[([^\]]*)\]")
_ROW_ENDS = {"[": re.compile(r"\]\s*+\]"), "n": re.compile(r"\]\s*+\)")}
_LIST = re.compile(r"\[(.*?)\]|new\s++Array\((.*?)\)")
_OBJECT = re.compile(r"\{(.*?)\}")
_PAIR = re.compile(r"([^:]+):\s*(.*?)(?:,\s*(?=[^,]+:)|$)")


class Unsupported(ValueError):
    """The leaderboard has no reading of a type."""


def java(value: str, kind: str, inner: str | None = None) -> Any:
    """Read a Java literal of the type `kind`, of a collection with elements of the type `inner`.

    Raises Unsupported for types that have no reading.
    """
    if len(value) > _LONGEST or kind in ("String", "any", "char"):
        return value
    match kind:
        case "byte" | "short" | "integer":
            return int(value) if _WHOLE.match(value) else value
        case "long":
            return int(found[1]) if (found := _LONG.match(value)) else value
        case "float":
            return float(found[1]) if (found := _FLOAT.match(value)) else value
        case "double":
            return float(value) if _DECIMAL.match(value) else value
        case "boolean":
            return {"true": True, "false": False}.get(value, value)
        case "ArrayList":
            return _array_list(value, inner)
        case "Array":
            found = _ARRAY.search(value)
            return [java(part, inner) if inner else _java_guess(part) for part in _parts(found[1])] if found else value
        case "HashMap":
            return _hash_map(value)
    raise Unsupported(kind)


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _array_list(value: str, inner: str | None) -> Any:
    if found := _AS_LIST.search(value):
        items = found[1].split(",")
    elif found := _ADDED.search(value):
        items = _ADD.findall(found[1])
    else:
        return [] if _NO_LIST.search(value) else value
    return [_java_element(item.strip(), inner) for item in items]


def _java_element(text: str, inner: str | None) -> Any:
    if inner in ("char", "String"):
        return text[1:-1]
    return java(text, inner) if inner else _java_guess(text)


def _hash_map(value: str) -> Any:
    if found := _MAP.search(value):
        return {key: _java_guess(text.strip()) for key, text in _PUT.findall(found[1])}
    return {} if _NO_MAP.search(value) else value


def _java_guess(text: str) -> Any:
    """Read a value whose type is not declared."""
    if text in ("true", "false"):
        return text == "true"
    if text.startswith('"') and text.endswith('"'):
        return text[1:-1]
    if found := _LONG.match(text):
        return int(found[1])
    if found := _FLOAT.match(text):
        return float(found[1])
    return _number(text)


def _number(text: str) -> Any:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text


def javascript(value: str, kind: str, inner: str | None = None) -> Any:
    """Read a JavaScript literal of the type `kind`. Raises Unsupported for types that have no reading."""
    if kind == "any" or len(value) > _LONGEST:
        return value
    match kind:
        case "String":
            return value[1:-1] if _quoted(value) else value
        case "integer":
            return int(value) if _WHOLE.match(value) else value
        case "float":
            return float(value) if _PLAIN.match(value) else value
        case "Bigint":
            return int(found[1]) if (found := _BIG.match(value)) else value
        case "Boolean":
            return {"true": True, "false": False}.get(value, value)
        case "array":
            return _list(value.strip(), inner)
        case "dict":
            return _object(value.strip())
    raise Unsupported(kind)


def _quoted(text: str) -> bool:
    return any(text.startswith(mark) and text.endswith(mark) for mark in "\"'")


def _list(code: str, inner: str | None) -> Any:
    if (table := _table(code)) is not None:
        return table
    found = _LIST.match(code)
    if found is None:
        return code
    content = (found[1] or found[2] or "").strip()
    read: Callable[[str], Any] = (lambda text: javascript(text, inner)) if inner else _guess
    try:
        return [read(item.strip()) for item in content.split(",")] if content else []
    except ValueError:
        return code


def _table(code: str) -> list[list[Any]] | None:
    """Read a list of lists; None for anything else."""
    start = _TABLE.match(code)
    end = _ROW_ENDS[code[0]].search(code, start.end()) if start else None
    if start is None or end is None:
        return None
    rows = _ROW.findall(code[start.end() - 1 : end.start() + 1])
    if any("\n" in row for row in rows):
        return None
    return [[_guess(item) for item in row.split(",")] for row in rows]


def _object(code: str) -> Any:
    found = _OBJECT.match(code)
    if found is None:
        return code
    pairs = _PAIR.findall(found[1]) if found[1] else []
    return {key.strip().strip("'\""): _member(text.strip()) for key, text in pairs}


def _member(text: str) -> Any:
    if text.startswith("[") and text.endswith("]"):
        return _list(text, None)
    if text.startswith("{") and text.endswith("}"):
        return _object(text)
    return _guess(text.strip("'\""))


def _guess(text: str) -> Any:
    """Read a value whose type is not declared."""
    text = text.strip()
    if text in ("true", "false"):
        return text == "true"
    return text[1:-1] if _quoted(text) else _number(text)
