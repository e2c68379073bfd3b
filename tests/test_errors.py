"""An error's text on one line."""

from __future__ import annotations

import pytest

from olmes_suite.errors import MissingData, first_line, one_line


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


def test_missing_data_takes_the_name_of_the_task() -> None:
    import pickle

    whole = MissingData("not --task TASK: fetch it with --task ", " --out DIR")
    assert str(whole) == "not --task TASK: fetch it with --task TASK --out DIR"
    assert whole.of("t") == "not --task TASK: fetch it with --task t --out DIR"
    assert MissingData("no sandbox").of("t") == str(MissingData("no sandbox")) == "no sandbox"
    again = pickle.loads(pickle.dumps(whole))
    assert (str(again), again.of("t")) == (str(whole), whole.of("t"))
