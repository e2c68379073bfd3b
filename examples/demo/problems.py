"""Self-written problems for the demo: two-digit sums in words, and short instructions.

A sum is answered in one of two ways: at once ("So the answer is 83."), or worked out digit by digit. The training texts
mix both, each template in its own proportion, so that a model learns both and may later learn which one is right.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana")
THINGS = ("apples", "books", "coins", "stones", "shells", "cards", "eggs", "keys")
WORDS = (
    "red",
    "blue",
    "green",
    "cat",
    "dog",
    "horse",
    "owl",
    "fish",
    "stone",
    "river",
    "lamp",
    "door",
    "cloud",
    "tree",
)
MORE = (
    ("{name} has {a} {thing} and gets {b} more. How many {thing} does {name} have now?", 0.15),
    ("There are {a} {thing} in a box and {b} {thing} beside it. How many {thing} are there?", 0.35),
    ("{name} found {a} {thing} on Monday and {b} on Tuesday. How many {thing} is that together?", 0.65),
    ("What is {a} plus {b}?", 0.85),
)
"""Templates of additions, and the share of worked answers in the training texts."""
LESS = (
    ("{name} has {a} {thing} and loses {b}. How many {thing} are left?", 0.15),
    ("Of {a} {thing}, {b} are sold. How many {thing} remain?", 0.35),
    ("{name} had {a} {thing} and gave away {b}. How many {thing} does {name} keep?", 0.65),
    ("What is {a} minus {b}?", 0.85),
)
"""Templates of subtractions."""
THINK = ("<think>", "</think>")
"""The marks of a thought."""


@dataclass(frozen=True)
class Sum:
    """A sum in words."""

    a: int
    b: int
    adds: bool
    question: str
    worked: float
    """Share of worked answers to questions of this template."""

    @property
    def key(self) -> tuple[int, int, bool]:
        """The two numbers and the operation, however the problem is worded."""
        return self.a, self.b, self.adds

    @property
    def value(self) -> int:
        """The answer."""
        return self.a + self.b if self.adds else self.a - self.b


def draw(rng: random.Random) -> Sum:
    """A random sum of two numbers from 10 to 99, never below zero."""
    a, b, adds = rng.randint(10, 99), rng.randint(10, 99), rng.random() < 0.5
    if not adds and a < b:
        a, b = b, a
    text, worked = rng.choice(MORE if adds else LESS)
    return Sum(a, b, adds, text.format(name=rng.choice(NAMES), thing=rng.choice(THINGS), a=a, b=b), worked)


def short(one: Sum) -> str:
    """The answer at once."""
    return f"So the answer is {one.value}."


def worked(one: Sum) -> str:
    """The sum again, then its answer digit by digit, ones first, with what is carried or borrowed."""
    return f"{steps(one)} {short(one)}"


def steps(one: Sum) -> str:
    """The working alone."""
    (tens_a, ones_a), (tens_b, ones_b) = divmod(one.a, 10), divmod(one.b, 10)
    if one.adds:
        carry = (ones_a + ones_b) // 10
        first = f"{ones_a} + {ones_b} = {ones_a + ones_b}."
        second = f"{tens_a} + {tens_b} + {carry} = {tens_a + tens_b + carry}."
    else:
        carry = int(ones_a < ones_b)
        first = f"{ones_a + 10 * carry} - {ones_b} = {ones_a + 10 * carry - ones_b}."
        second = f"{tens_a} - {tens_b} - {carry} = {tens_a - tens_b - carry}."
    return f"{one.a} {'+' if one.adds else '-'} {one.b}: {first} {second}"


def instruction(rng: random.Random) -> tuple[str, str]:
    """(request, answer): a request with one right answer."""
    word, other, count = rng.choice(WORDS), rng.choice(WORDS), rng.randint(2, 5)
    return rng.choice(
        [
            (f"Write the word {word} {count} times.", " ".join([word] * count)),
            (f"Write the word {word} in capital letters.", word.upper()),
            (f"Write the words {word} and {other}, separated by a comma.", f"{word}, {other}"),
        ]
    )


def sums(rng: random.Random, count: int, without: frozenset[tuple[int, int, bool]] = frozenset()) -> Iterator[Sum]:
    """`count` random sums, none of which asks what `without` holds."""
    while count:
        one = draw(rng)
        if one.key not in without:
            count -= 1
            yield one


def held_out(rng: random.Random, count: int) -> list[Sum]:
    """`count` sums, no two of which ask the same."""
    found: dict[tuple[int, int, bool], Sum] = {}
    while len(found) < count:
        one = draw(rng)
        found.setdefault(one.key, one)
    return list(found.values())
