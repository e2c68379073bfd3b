"""Transfer of values between processes that do not trust each other: tagged JSON, decoded without running code.

Plain builtin values pass, up to the size and nesting below. Any other value becomes an `Opaque`, which equals only
itself, so that no method of the program decides a comparison.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

MAX_BYTES = 16 * 2**20
"""Bytes of the largest frame."""
MAX_DEPTH = 150
MAX_ITERATOR = 100_000
"""Elements read from an iterator; an iterator with more becomes opaque."""
_WORD = 2**62
_SAME_IN_JSON = {str, float, bool, type(None)}
_WITHOUT_PARTS = {*_SAME_IN_JSON, int}
_DIGITS = 5_000
_HEAD = struct.Struct("!I")


class Malformed(Exception):
    """A frame or value is invalid or exceeds the limits."""


class Opaque:
    """A stand-in for a value that is not a plain builtin."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind}>"


def encode(value: Any, depth: int = 0) -> Any:
    """Convert a value to its JSON form. Subclasses of builtins (Counter, namedtuple) are read as their base."""
    kind = type(value)
    if value is None or kind is bool or kind is float:
        return value
    if kind is str:
        return value
    if kind is int:
        return value if -_WORD < value < _WORD else {"i": hex(value)}
    if depth >= MAX_DEPTH:
        raise Malformed("nested too deeply")
    if kind is list:
        return value if _ready(value) else [encode(item, depth + 1) for item in value]
    if kind is tuple:
        return {"t": value if _ready(value) else [encode(item, depth + 1) for item in value]}
    return _encode_rare(value, depth + 1)


def _ready(items: list[Any] | tuple[Any, ...]) -> bool:
    """Return whether the items are their own JSON forms: long lists of numbers and texts are frequent in tests."""
    kinds = set(map(type, items))
    return kinds <= _SAME_IN_JSON or (kinds == {int} and min(items) > -_WORD and max(items) < _WORD)


def _encode_rare(value: Any, depth: int) -> Any:
    collections: tuple[tuple[Any, str], ...] = ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "z"))
    for base, tag in collections:
        if isinstance(value, base):
            return {tag: [encode(item, depth) for item in base.__iter__(value)]}
    if isinstance(value, dict):
        return {"d": [[encode(key, depth), encode(item, depth)] for key, item in dict.items(value)]}
    if isinstance(value, (bytes, bytearray)):
        return {"y" if isinstance(value, bytes) else "Y": bytes(value).hex()}
    if isinstance(value, complex):
        return {"c": [value.real, value.imag]}
    for plain in (float, str, int):
        if isinstance(value, plain):
            return encode(_plain(plain, value), depth)
    if isinstance(value, range):
        return {"r": [encode(number) for number in (value.start, value.stop, value.step)]}
    if isinstance(value, Decimal):
        return {"D": Decimal.__str__(value)}
    if isinstance(value, Fraction):
        return {"F": [encode(int(value.numerator)), encode(int(value.denominator))]}
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        item = value.item()
        return encode(item, depth) if type(item) in (bool, int, float, complex, str) else _opaque(value)
    if isinstance(value, Iterator):
        return _encode_iterator(value, depth)
    return _opaque(value)


def _plain(base: type, value: Any) -> Any:
    """Return the builtin inside a subclass, read by the base's method whatever the subclass overrides."""
    if base is float:
        return float.__float__(value)
    return str.__str__(value) if base is str else int.__int__(value)


def _encode_iterator(value: Iterator[Any], depth: int) -> Any:
    items: list[Any] = []
    for item in value:
        if len(items) >= MAX_ITERATOR:
            return _opaque(value)
        items.append(encode(item, depth))
    return {"n": items}


def _opaque(value: object) -> dict[str, str]:
    return {"o": str(type(value).__name__)[:80]}


def decode(node: object) -> Any:
    """Convert a JSON form to its value. Raises Malformed for a form that `encode` does not produce."""
    try:
        return _decode(node, 0)
    except (TypeError, ValueError, KeyError, ArithmeticError, InvalidOperation, RecursionError) as error:
        raise Malformed(f"not a valid value: {type(error).__name__}") from None


def _decode(node: object, depth: int) -> Any:
    if type(node) is list:
        if depth > MAX_DEPTH:
            raise Malformed("nested too deeply")
        return _items(node, depth + 1)
    if type(node) is not dict:
        return node
    if depth > MAX_DEPTH or len(node) != 1:
        raise Malformed("not a valid value")
    ((tag, body),) = node.items()
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](_items(body, depth + 1))
    if tag == "d":
        return {_decode(key, depth + 1): _decode(item, depth + 1) for key, item in body}
    if tag in ("r", "F"):
        return (range if tag == "r" else Fraction)(*(_decode(item, depth + 1) for item in body))
    return _SCALARS[tag](body)


def _items(nodes: list[Any], depth: int) -> list[Any]:
    return nodes if set(map(type, nodes)) <= _WITHOUT_PARTS else [_decode(node, depth) for node in nodes]


def _decimal(text: str) -> Decimal:
    number = Decimal(text[:_DIGITS])
    if number.is_finite() and number != 0 and abs(number.adjusted()) > _DIGITS:
        raise Malformed("a number is too large")
    return number


def _integer(text: str) -> int:
    return int(text, 16)


def _complex(parts: list[float]) -> complex:
    return complex(float(parts[0]), float(parts[1]))


_SEQUENCES: dict[str, Any] = {
    "t": tuple, "l": list, "s": set, "z": frozenset, "n": lambda items: iter(list(items)),
}  # fmt: skip
_SCALARS: dict[str, Any] = {
    "i": _integer, "y": bytes.fromhex, "Y": bytearray.fromhex, "c": _complex, "D": _decimal, "o": Opaque,
}  # fmt: skip


def dumps(message: object) -> bytes:
    """Serialise a message as a frame. Raises Malformed where it is larger than MAX_BYTES."""
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > MAX_BYTES:
        raise Malformed("the frame is too large")
    return _HEAD.pack(len(body)) + body


def send(link: socket.socket, message: object) -> None:
    """Send one frame. Raises OSError where the other side has closed."""
    link.sendall(dumps(message))


def receive(link: socket.socket) -> Any:
    """Receive the next frame. Raises EOFError at the end, Malformed for an invalid frame."""
    (size,) = _HEAD.unpack(_exactly(link, _HEAD.size))
    if size > MAX_BYTES:
        raise Malformed("the frame is too large")
    try:
        return json.loads(_exactly(link, size))
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {type(error).__name__}") from None


def _exactly(link: socket.socket, size: int) -> bytes:
    parts, remaining = [], size
    while remaining:
        part = link.recv(min(remaining, 2**20))
        if not part:
            raise EOFError
        parts.append(part)
        remaining -= len(part)
    return b"".join(parts)
