"""Numbers with their nouns."""

from __future__ import annotations

from olmes_suite.wording import count, size


def test_one_is_singular_and_other_numbers_are_plural() -> None:
    assert [count(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
    assert [count(2, noun) for noun in ("process", "pass", "entry", "day")] == [
        "2 processes", "2 passes", "2 entries", "2 days",
    ]  # fmt: skip
    assert count(1234, "token", separated=True) == "1,234 tokens"


def test_sizes_have_the_unit_that_keeps_a_digit() -> None:
    sizes = (0, 1, 999, 1000, 46_321, 999_499, 999_500, 1_450_000, 999_949_999, 2_000_000_000)
    assert [size(number) for number in sizes] == [
        "0 bytes", "1 byte", "999 bytes", "1 kB", "46 kB", "999 kB", "1.0 MB", "1.4 MB", "999.9 MB", "2.0 GB",
    ]  # fmt: skip
