"""The time that a run still takes."""

from __future__ import annotations

import pytest

from olmes_suite.cli.time_left import TimeLeft, duration


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_steady_pace() -> None:
    clock = Clock()
    left = TimeLeft(100, clock)
    assert left.seconds is None
    for _ in range(10):
        clock.now += 2
        left.advance(1)
    assert left.seconds == pytest.approx(180)
    left.advance(90)
    assert left.seconds is None


def test_documents_that_were_on_disk_are_no_pace() -> None:
    clock = Clock()
    left = TimeLeft(1000, clock)
    left.advance(900)
    for _ in range(10):
        clock.now += 10
        left.advance(1)
    assert left.seconds == pytest.approx(900)


def test_the_last_minutes_count() -> None:
    clock = Clock()
    left = TimeLeft(1000, clock)
    for pause in [1] * 300 + [10] * 60:
        clock.now += pause
        left.advance(1)
    assert left.seconds == pytest.approx(6400, rel=0.05)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (42, "42 s"), (89.9, "90 s"), (90, "2 min"), (3590, "1 h 0 min"), (7290, "2 h 2 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
