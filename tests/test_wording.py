"""Numbers with their nouns."""

from __future__ import annotations

from olmes_suite.wording import count


def test_one_is_singular_and_other_numbers_are_plural() -> None:
    assert [count(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [count(2, noun) for noun in ("process", "pass", "entry", "day")] == [
        "2 processes", "2 passes", "2 entries", "2 days",
    ]  # fmt: skip
    assert count(1234, "token", separated=True) == "1,234 tokens"
