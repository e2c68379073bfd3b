"""Planning: sizes and powers that simulation confirms."""

from __future__ import annotations

import numpy as np
import pytest

from olmes_suite.comparison import paired_tests, power
from olmes_suite.comparison.gate_rules import Rules, TaskRule
from olmes_suite.comparison.power import PlannedTask
from olmes_suite.errors import UsageError
from olmes_suite.tasks import suites
from olmes_suite.tasks.sizes import leaf_sizes


@pytest.mark.parametrize(("delta", "flips"), [(0.02, 0.1), (0.05, 0.3), (0.03, 0.08)])
def test_the_items_that_are_needed_give_the_power(delta: float, flips: float) -> None:
    """By simulation through the same test that `olmes compare` calls."""
    n, rng = power.items_needed(delta, flips), np.random.default_rng(1)
    losses = rng.binomial(n, (flips + delta) / 2, 20_000)
    wins = rng.binomial(n - losses, (flips - delta) / 2 / (1 - (flips + delta) / 2))
    found = (paired_tests.mcnemar(wins, losses)[1] <= 0.05).mean()
    assert found == pytest.approx(0.8, abs=0.03)
    assert power.power_of(n, delta, flips) == pytest.approx(0.8, abs=0.005)


@pytest.mark.parametrize(("delta", "flips"), [(0.2, 0.1), (0.0, 0.1), (0.1, 0.0), (0.1, 1.5)])
def test_impossible_plans_are_refused(delta: float, flips: float) -> None:
    with pytest.raises(UsageError):
        power.items_needed(delta, flips)


def test_a_required_task_makes_green_rarer() -> None:
    tasks = [PlannedTask("big", (10_000,)), PlannedTask("small", (300,))]
    free = power.gate_power(tasks, Rules())
    bound = power.gate_power(tasks, Rules(tasks={"small": TaskRule(required=True)}))
    assert bound.green < free.green
    assert bound.green == pytest.approx(free.tasks["small"], abs=0.1)


def test_verdicts_add_up_and_a_large_drop_is_red() -> None:
    tasks = [PlannedTask(f"t{i}", (1000,)) for i in range(5)]
    same, worse = power.gate_power(tasks, Rules()), power.gate_power(tasks, Rules(), delta=0.05)
    assert same.green + same.red + same.inconclusive == pytest.approx(1)
    assert same.red <= 0.05 + 0.01
    assert worse.red > 0.95


@pytest.mark.parametrize("suite", ["dev", "unseen", "safety"])
def test_every_task_of_a_suite_can_be_planned(suite: str) -> None:
    for entry in suites.load(suite).tasks:
        assert leaf_sizes(entry.task), entry.task


def test_samples_shrink_the_error() -> None:
    one, four = PlannedTask("t", (164,)), PlannedTask("t", (164,), samples=4)
    assert one.stderr(0.1) == pytest.approx(2 * four.stderr(0.1))
    assert power.samples_needed(1000, 164) == 7
