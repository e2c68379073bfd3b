"""An error's text on one line."""

from __future__ import annotations

import pytest

from olmes_suite.errors import first_line, one_line


@pytest.mark.parametrize(
    ("error", "first", "whole"),
    [
        (ValueError("a\nb  c"), "a", "a b c"),
        (ValueError("\n\n  a \nb"), "a", "a b"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError(" \n "), "ValueError", "ValueError"),
        (KeyError("k"), "'k'", "'k'"),
    ],
)
def test_an_error_on_one_line(error: Exception, first: str, whole: str) -> None:
    assert first_line(error) == first
    assert one_line(error) == whole


def test_long_texts_are_cut() -> None:
    assert first_line(ValueError("x" * 301)) == "x" * 300 + "…"
    assert first_line(ValueError("x" * 300)) == "x" * 300
    assert one_line(ValueError("x" * 201)) == "x" * 200 + "…"
    assert one_line(ValueError("x" * 999), None) == "x" * 999
