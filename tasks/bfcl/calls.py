"""Calls in a response of the Berkeley Function-Calling Leaderboard, in the code format of OLMo 3.

Each line holds one call: `name(key=value, …)` or `module.name(key=value, …)`. The reference parses lines with libcst,
which refuses indented ones, counts blank lines as calls that lack, and evaluates the values as Python. Here values are
read without running anything: literals, and arithmetic of numbers. A response with another value, such as a variable or
a comprehension, does not decode.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

TAGS = re.compile(r"</?function_calls>")
_LONGEST_LINE = 100_000
_MOST_LINES = 2000
"""Answers beyond these two do not decode, so that no answer takes long to score."""
_LARGEST = 10**18
"""Numbers beyond this are not calculated with, so that `9**9**9` takes no time."""
_ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
Call = dict[str, dict[str, Any]]
"""Name of the function to its arguments."""


class NoCalls(ValueError):
    """The response does not decode into calls."""


def decode(response: str) -> list[Call]:
    """Return the calls of a response, one of each line; none for an empty one.

    Raises NoCalls where a line is not Python, is indented, has no call, or has a value that is not a literal.
    """
    lines = TAGS.sub("", without_thoughts(response)).strip().splitlines()
    if len(lines) > _MOST_LINES:
        raise NoCalls(f"{len(lines)} lines")
    return [_first_call(line) for line in lines]


def without_thoughts(text: str) -> str:
    """Remove each `<think>` with all that follows it up to the next `</think>`; an open thought stays."""
    kept, place = [], 0
    while (start := text.find("<think>", place)) >= 0 and (end := text.find("</think>", start)) >= 0:
        kept.append(text[place:start])
        place = end + len("</think>")
    return "".join(kept) + text[place:]


def _first_call(line: str) -> Call:
    if len(line) > _LONGEST_LINE:
        raise NoCalls(f"a line of {len(line)} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes such as "\\d" in a model's text
            tree = ast.parse(line)
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if not found:
            raise NoCalls("a line without a call")
        call = min(found, key=lambda node: (node.lineno, node.col_offset, -(node.end_col_offset or 0)))
        return {_name(call.func): {word.arg: _value(word.value) for word in call.keywords if word.arg}}
    except NoCalls:
        raise
    except (SyntaxError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError) as error:
        raise NoCalls(f"a line that is not Python: {type(error).__name__}") from error


def _name(function: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        raise NoCalls("a call without a plain name")
    return ".".join([function.id, *reversed(parts)])


def _value(node: ast.expr) -> Any:
    """Evaluate literals, their containers, signs and arithmetic. Raises NoCalls for anything else."""
    match node:
        case ast.Constant():
            return node.value
        case ast.List():
            return [_value(item) for item in node.elts]
        case ast.Tuple():
            return tuple(_value(item) for item in node.elts)
        case ast.Set():
            return {_value(item) for item in node.elts}
        case ast.Dict():
            if None in node.keys:
                raise NoCalls("a dictionary that unpacks another")
            return {_value(k): _value(v) for k, v in zip(node.keys, node.values, strict=True) if k is not None}
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() | ast.Not()):
            value = _value(node.operand)
            if isinstance(node.op, ast.Not):
                return not value
            return -value if isinstance(node.op, ast.USub) else +value
        case ast.BinOp():
            return _calculated(node)
        case _:
            raise NoCalls(f"a value that is not a literal: {type(node).__name__}")


def _calculated(node: ast.BinOp) -> Any:
    left, right, operation = _value(node.left), _value(node.right), _ARITHMETIC.get(type(node.op))
    if isinstance(left, str) and isinstance(right, str) and isinstance(node.op, ast.Add):
        return left + right
    if operation is None or not all(isinstance(side, int | float) and abs(side) <= _LARGEST for side in (left, right)):
        raise NoCalls("arithmetic of other values than numbers of ordinary size")
    if isinstance(node.op, ast.Pow) and abs(right) > 64:
        raise NoCalls("a power that is too large")
    return operation(left, right)
