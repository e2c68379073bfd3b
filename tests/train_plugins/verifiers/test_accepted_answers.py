"""docs/verifiers.md says which answers are accepted; each line of its table is verified here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest

from olmes_suite.errors import MissingData
from train_plugins.verifiers import Call, Verifiers
from train_plugins.verifiers.numbers import last_number, only_number
from train_plugins.verifiers.registry import BUILT_IN, SANDBOXED

pytestmark = pytest.mark.xdist_group("accepted answers")  # its processes take seconds to start

PAGE = Path(__file__).parents[3] / "docs/verifiers.md"
Case = tuple[str, object, str, float]


def cases() -> list[Case]:
    """The lines of the page's table: verifier, truth, response, reward."""
    section = PAGE.read_text(encoding="utf-8").partition("## What is accepted")[2].partition("\n## ")[0]
    found: list[Case] = []
    for line in section.splitlines():
        if match := re.fullmatch(r"\| `(\w+)` \| (`+)(.+?)\2 \| (`+)(.+?)\4 \| ([\d.]+) \|", line):
            truth, response = (match[at].replace("⏎", "\n") for at in (3, 5))
            whole = json.loads(truth) if match[1].startswith("string") and truth.startswith("[") else truth
            found.append((match[1], whole, response.strip(), float(match[6])))
        assert match or not line.startswith("| `"), line
    return found


@pytest.fixture(scope="module")
def verifiers() -> Iterator[Verifiers]:
    with Verifiers(list(BUILT_IN), workers=1, timeout=20) as made:
        yield made


def wrong(verifiers: Verifiers, names: dict[str, str]) -> list[object]:
    chosen = [case for case in cases() if case[0] in names]
    given = verifiers.verify([Call(name, response, truth, {}) for name, truth, response, _ in chosen])
    return [(case, value) for case, value in zip(chosen, given, strict=True) if value != case[3]]


def test_the_page_says_what_is_accepted(verifiers: Verifiers) -> None:
    assert not wrong(verifiers, BUILT_IN)


@pytest.mark.long
def test_the_page_says_which_programs_are_accepted() -> None:
    try:
        with Verifiers(list(SANDBOXED), workers=1, timeout=20) as made:
            assert not wrong(made, SANDBOXED)
    except MissingData as error:
        pytest.skip(str(error))


def test_the_page_has_right_and_wrong_answers_for_each_verifier() -> None:
    for name in BUILT_IN | SANDBOXED:
        rewards = {reward for verifier, _, _, reward in cases() if verifier == name}
        assert len(rewards) > 1 or (0 < min(rewards) < 1), name


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("- 5 apples", 5), ("3 - 5", 5), ("(-3)", -3), ("**-5**", -5), ("answer:-5", -5), ("\u20135", -5),
        ("-\\$5", -5), ("$-1,234.50", Fraction(-2469, 2)), ("1,00,000", 100000), ("on 12/05/2024", 2024),
        ("1 1/2.", Fraction(3, 2)), ("-\\frac{1}{2}", Fraction(-1, 2)), ("1\\,234", 1234), ("the 5th", 5),
        ("1e3x", 3), (".5", Fraction(1, 2)), ("1/0", None), ("9" * 500, None), ("1e999", None), ("none", None),
    ],
)  # fmt: skip
def test_the_last_number(text: str, value: object) -> None:
    assert last_number(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("$5", 5), ("- 5", -5), ("5 %", 5), ("5.", 5), ("x = 5", None), ("5 or 6", None), ("1-2", None), ("", None)],
)
def test_a_text_that_is_one_number(text: str, value: object) -> None:
    assert only_number(text) == value
