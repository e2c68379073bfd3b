"""Values between processes: what is encoded comes back equal, of the same types, however long lists are sent."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from olmes_suite.sandbox.inside import wire


def made(draw: random.Random, depth: int = 0) -> Any:
    """A random plain value; lists are often of one kind."""
    simple = (None, True, False, 0, -7, 2**62, -(2**62), 2**61, 1.5, float("inf"), "", "text", "é\ud800")
    if depth > 3 or draw.random() < 0.3:
        return draw.choice(simple)
    size = draw.randrange(4)
    if draw.random() < 0.4:
        one = draw.choice(simple)
        items = [one] * size
    else:
        items = [made(draw, depth + 1) for _ in range(size)]
    kind = draw.randrange(4)
    if kind == 3:
        return {str(at): item for at, item in enumerate(items)}
    return items if kind == 0 else tuple(items) if kind == 1 else {draw.choice(simple) for _ in range(size)}


def same(a: Any, b: Any) -> bool:
    """Whether two values and their types are equal, down to the items."""
    if type(a) is not type(b):
        return False
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b) if not isinstance(a, dict) else a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)


def test_values_come_back_equal() -> None:
    draw = random.Random(5)
    for _ in range(3000):
        value = made(draw)
        assert same(wire.decode(json.loads(json.dumps(wire.encode(value)))), value), value


def test_lists_of_plain_values_are_sent_as_they_are() -> None:
    numbers = list(range(1000))
    assert wire.encode(numbers) is numbers and wire.encode([1, True]) == [1, True]
    assert wire.encode([1, 2**62]) == [1, {"i": hex(2**62)}]
    assert wire.encode((1.0, None)) == {"t": (1.0, None)}


@pytest.mark.parametrize(
    "node", [{"l": 5}, {"l": [{"?": 1}]}, {"l": [[{"i": "x"}]]}, {"s": [[1]]}, {"t": [1], "l": []}]
)
def test_forms_that_nothing_encodes_to_are_malformed(node: Any) -> None:
    with pytest.raises(wire.Malformed):
        wire.decode(node)
