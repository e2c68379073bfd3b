"""When a gate may stop asking: group-sequential tests of a candidate against a baseline, look by look. Pure functions.

After each chunk of documents the gate looks. Error rates hold for the true difference over all looks together. Each
hypothesis spends its error rate over the looks as α t^1.5, where t is the share of the information that all documents
give (Kim & DeMets 1987, Biometrika 74, 149; Lan & DeMets 1983, Biometrika 70, 659). The looks need not be fixed in
advance.

A task, or the average, *fails* where its drop is significant at α divided by their number (Bonferroni; the first step
of Holm's procedure). The average, and every required task, *passes* where its lower bound lies above -margin. The gate
passes when these pass, nothing fails, and a large drop (`LARGE`) is excluded in every task.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.compare import TaskComparison, compare_average, with_normal_error
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.paired_tests import Difference
from olmes_suite.stats import Floats

LARGE = 0.10
"""The drop that a green gate excludes in every task, a fraction."""
LARGE_ALPHA = 0.05
POWER = 1.5
"""Exponent of the spending: 1 spends evenly, 3 almost all at the end."""
PRIOR = 20
"""Documents with the average variance that are added to a task's, for its share of information."""
_GRID: Floats = np.linspace(-8.0, 8.0, 1601)


class Spending:
    """The one-sided bounds of one hypothesis, look by look, by recursive integration.

    Armitage, McPherson & Rowe 1969 (J. R. Stat. Soc. A 132, 235): the density of the score process among the runs that
    have not crossed a bound is carried from look to look.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._time = 0.0
        self._spent = 0.0
        self._density: Floats | None = None

    def at(self, time: float) -> float:
        """Return the nominal one-sided level of a look at the information share `time`, from 0 to 1."""
        time = min(max(time, 1e-6), 1.0)
        step = time - self._time
        if step < 1e-4:
            return 0.0
        width = float(_GRID[1] - _GRID[0])
        if self._density is None:
            density = np.exp(-(_GRID**2) / (2 * time)) / math.sqrt(2 * math.pi * time)
        else:
            reach = min(len(_GRID) // 2, math.ceil(7 * math.sqrt(step) / width))
            kernel = np.exp(-((np.arange(-reach, reach + 1) * width) ** 2) / (2 * step))
            density = np.convolve(self._density, kernel / kernel.sum(), mode="same")
        above = (np.cumsum(density[::-1])[::-1] - density / 2) * width  # the trapezoid rule
        spend = self.alpha * time**POWER - self._spent
        place = int(np.searchsorted(-above, -spend))  # `above` falls: the first point with at most so much above it
        place = min(max(place, 1), len(_GRID) - 1)
        near = slice(place - 1, place + 1)
        bound = float(np.interp(-math.log(spend), -np.log(above[near] + 1e-300), _GRID[near]))
        self._density = density * np.clip((bound - _GRID) / width + 0.5, 0.0, 1.0)
        self._time, self._spent = time, self._spent + spend
        return float(ndtr(-bound / math.sqrt(time)))


@dataclass(frozen=True, slots=True)
class Target:
    """A task as the gate looks at it."""

    name: str
    margin: float
    required: bool
    information: float
    """The sum of squared weights of all of its documents: 1 / n for a task without sub-tasks."""
    by_document: bool = True
    """Whether the score is a mean over documents; otherwise all were asked before the first look."""


@dataclass(frozen=True, slots=True)
class Look:
    """The state of the run when the gate looked at it, after a chunk of documents."""

    verdict: str
    """pass, fail or inconclusive; "continue" where more answers may change it."""
    failed: tuple[str, ...] = ()
    """Tasks that failed; "" stands for the average."""


class Looks:
    """The looks of one run, in their order."""

    def __init__(self, rules: Rules, targets: Sequence[Target]) -> None:
        self.rules = rules
        self.targets = {target.name: target for target in targets}
        names = [*self.targets, ""]
        self._fail = {name: Spending(rules.alpha / len(names)) for name in names}
        self._pass = {name: Spending(rules.alpha) for name in names}
        self._large = {name: Spending(LARGE_ALPHA) for name in self.targets}
        self._passed: set[str] = set()
        self._excluded: set[str] = set()

    def look(self, tasks: Sequence[TaskComparison]) -> Look:
        """Judge the documents so far; `tasks` are all targets, each with some documents."""
        shares, share = self._information(tasks)
        done = all(value > 1 - 1e-9 for value in shares.values())
        failed = []
        for task in (*tasks, None):
            name = "" if task is None else task.task
            time = 1.0 if done else share if task is None else shares[name]
            target = self.targets.get(name)
            margin = self.average_margin if target is None else target.margin
            at_pass = _difference(task, tasks, self._pass[name].at(time))
            if at_pass is None:
                continue
            if at_pass.lower is not None and at_pass.lower > -margin:
                self._passed.add(name)
            if at_pass.p_drop is not None and at_pass.p_drop <= self._fail[name].at(time) and name not in self._passed:
                failed.append(name)
            if target is not None and name not in self._excluded:
                found = _difference(task, tasks, self._large[name].at(time))
                if found is not None and found.lower is not None and found.lower > -max(LARGE, margin):
                    self._excluded.add(name)
        if failed:
            return Look("fail", tuple(failed))
        needed = {"", *(name for name, target in self.targets.items() if target.required)}
        if needed <= self._passed and (done or self._excluded >= self.targets.keys()):
            return Look("pass")
        return Look("inconclusive" if done else "continue")

    @property
    def average_margin(self) -> float:
        """The margin of the average, a fraction."""
        return self.rules.suite_margin if self.rules.suite_margin is not None else self.rules.margin

    def _information(self, tasks: Sequence[TaskComparison]) -> tuple[dict[str, float], float]:
        """Return each task's share of the information of all documents, and that of the average."""
        raw, size, shares = {}, {}, {}
        fixed = 0.0
        for task in tasks:
            if task.aligned is None:
                shares[task.task] = 1.0
                stderr = task.difference.stderr if task.difference is not None else None
                fixed += (stderr or 0.0) ** 2
                continue
            pairs = task.aligned.pairs
            square = float((pairs.weight**2).sum())
            shares[task.task] = min(1.0, self.targets[task.task].information / square)
            raw[task.task], size[task.task] = float((pairs.weight * pairs.difference**2).sum()), 1 / square
        pooled = max(sum(raw[name] * size[name] for name in raw) / max(sum(size.values()), 1), 1e-4)
        whole = now = fixed
        for name, squares in raw.items():
            variance = (squares * size[name] + PRIOR * pooled) / (size[name] + PRIOR)
            whole += variance * self.targets[name].information
            now += variance * self.targets[name].information / shares[name]
        return shares, whole / now if now else 1.0


def _difference(task: TaskComparison | None, tasks: Sequence[TaskComparison], level: float) -> Difference | None:
    """Return the difference of a task, or of the average, with its bound at a level; None where nothing is spent."""
    if level <= 0:
        return None
    if task is None:
        return compare_average(tasks, level)
    if task.aligned is not None:
        return paired_tests.compare(task.aligned.pairs, level)
    start = task.difference
    return None if start is None or start.stderr is None else with_normal_error(start, start.stderr, level)
