"""Plain values of a pickle from a data set, read without running any of it.

A pickle is a program for a small machine. Only the operations that make builtin values are allowed, checked before the
first one runs: no import, no call. Two more traps are refused: a memo of a huge size, which the machine would allocate,
and values that contain each other so often that walking through them never ends.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Mapping
from typing import Any

from train_plugins.verifiers.base import Malformed

LARGEST = 5_000_000
"""Operations of a pickle, and its values, each counted as often as it occurs."""
DEEPEST = 100
"""Lists and mappings inside each other."""
_ONLY = "only lists, mappings, texts and numbers are read"
_PLAIN = frozenset((
    "PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2",
    "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "EMPTY_LIST",
    "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_DICT", "DICT",
    "SETITEM", "SETITEMS", "GET", "BINGET", "LONG_BINGET", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "POP",
    "POP_MARK",
))  # fmt: skip
_IMPORTS = ("GLOBAL", "INST", "STACK_GLOBAL")


class _Unpickler(pickle.Unpickler):
    """The second lock behind the check of the operations."""

    def find_class(self, module: str, name: str) -> Any:
        raise Malformed(f"its pickle asks for {module}.{name}; {_ONLY}")


def plain_value(data: bytes) -> Any:
    """Return the value of a pickle. Raises Malformed for more than plain values, and any error for a damaged one."""
    texts: list[str] = []
    for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
        if operation.name in _IMPORTS:
            asked = argument.split(" ") if isinstance(argument, str) else texts[-2:]
            raise Malformed(f"its pickle asks for {'.'.join(asked)}; {_ONLY}")
        if operation.name not in _PLAIN:
            raise Malformed(f"its pickle uses {operation.name}; {_ONLY}")
        if count > LARGEST or (operation.name.endswith("PUT") and not 0 <= int(argument or 0) <= count):
            raise Malformed("its pickle is too large, or asks for more memory than it has values")
        if isinstance(argument, str):
            texts[:] = [*texts[-1:], argument]
    value = _Unpickler(io.BytesIO(data)).load()
    _check_size(value)
    return value


def _check_size(value: Any) -> None:
    """Raise Malformed for a value that has too many parts, of which some may be the same or the value itself."""
    waiting, count = [(value, 0)], 0
    while waiting:
        one, depth = waiting.pop()
        parts = [*one, *one.values()] if isinstance(one, Mapping) else one if isinstance(one, list | tuple) else ()
        count += len(parts)
        if count > LARGEST or depth > DEEPEST:
            raise Malformed("its pickle unfolds to more or deeper values than can be read")
        waiting.extend((part, depth + 1) for part in parts)
