"""What a verdict that needs more answers is told to do."""

from __future__ import annotations

import numpy as np
import pytest

from olmes_suite.comparison.room import Room, advice, joined, room
from olmes_suite.runs.scores import LeafScores, TaskScores


@pytest.mark.parametrize(
    ("more", "left", "what", "words"),
    [
        (1994, Room(0, False), "task", "1,994 more documents would decide it, and the task has no more: only a wider"),
        (1994, Room(600, False), "task", "and the task has 600 more: only a wider margin decides it"),
        (1994, Room(0, True), "suite", "and the suite has no more: take 4 samples of each"),
        (400, Room(600, False), "task", "about 400 of the 600 documents that were not compared decide it"),
        (400, Room(600, True), "task", "not compared, or 2 samples of each of these, decide it"),
        (400, Room(None, False), "task", "about 400 more documents like these decide it"),
        (1, Room(None, False), "task", "about 1 more document like these decides it"),
        (1, Room(3, False), "task", "about 1 of the 3 documents that were not compared decides it"),
        (1, Room(0, False), "task", "about 1 more document would decide it, and the task has no more"),
        (
            5,
            Room(0, False, 817),
            "task",
            "about 5 more documents would decide it: evaluate on the benchmark itself (817",
        ),
        (5, Room(0, False, 900), "suite", "evaluate on the benchmarks themselves (900 documents)"),
        (9999, Room(22, False, 817), "task", "and the benchmark has 817: only a wider margin decides it"),
    ],
)
def test_only_what_can_be_done_is_advised(more, left, what, words):
    said = advice(more, 817, left, what)
    assert words in said and ("samples" in said) == left.sampled


def leaf(n: int, of: int | None, settings: dict | None, fingerprint: dict | None) -> LeafScores:
    zeros = np.zeros(n, dtype=np.int64)
    return LeafScores(np.arange(n), np.zeros(n), zeros, zeros, fingerprint, settings, of=of)


@pytest.mark.parametrize(
    ("of", "settings", "fingerprint", "expected"),
    [
        (None, {"temperature": 0.7}, {"prompt": "a"}, Room(0, True)),
        (1319, {"temperature": 0.0}, {"prompt": "a"}, Room(1299, False)),
        (1319, None, {"prompt": "a"}, Room(1299, False)),  # log-likelihoods
        (None, None, None, Room(None, False)),  # imported scores: the size of the task is not known
    ],
)
def test_what_a_task_has_left(of, settings, fingerprint, expected):
    task = TaskScores("t", {"t": leaf(20, of, settings, fingerprint)})
    assert room(task, task, 20) == expected


def test_the_samples_of_a_task_are_not_all_that_its_benchmark_has():
    one = leaf(24, None, None, {"prompt": "a"})
    task = TaskScores("tulu3_gsm8k", {"tulu3_gsm8k": one})
    assert room(task, task, 24) == Room(0, False, 1319)


def test_rooms_of_a_suite_add_up():
    assert joined([Room(3, True, 9), Room(4, True, 9)]) == Room(7, True, 18)
    assert joined([Room(3, True, 9), Room(4, True)]) == Room(7, True)
    assert joined([Room(3, True), Room(4, True)]) == Room(7, True)
    assert joined([Room(3, True), Room(None, False)]) == Room(None, False)
