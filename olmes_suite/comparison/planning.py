"""Allocation of documents to the tasks of a suite, at least cost. Pure functions; scores are fractions.

The error of a suite's average is ruled by its small tasks, and its cost by its large ones. With a task's weight W, the
variance S² of a document's score and the cost c of a document, the variance of the average is the sum of W² S² / n. It
is smallest for a given cost where n is proportional to W S / sqrt(c) (Neyman 1934, J. R. Stat. Soc. 97, 558, with the
costs of Cochran 1977, Sampling Techniques, § 5.5). The bounds of each n, a floor and the size of the task, keep this
rule for the tasks that are at neither bound: the problem is convex and separable, so one multiplier serves all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from olmes_suite.errors import UsageError
from olmes_suite.stats import Floats, normal_quantile

FLOOR = 50
"""Smallest number of documents of a task: with fewer, its own interval says little, and projections are not checked."""
LEAST_OF_LEAF = 2
"""Smallest number of documents of a sub-task: with one, it has no variance."""
WORST = 0.25
"""Largest variance of a score from 0 to 1, that of a right answer as often as not."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)  # no slots: cached properties
class Candidate:
    """A task that a plan may ask for."""

    name: str
    leaves: Mapping[str, int]
    """Sub-task to its number of documents; a task without sub-tasks is its own."""
    macro: bool = True
    """Whether sub-tasks have equal weights; otherwise they weigh by their documents."""
    weights: tuple[float, ...] = ()
    """The weight of each sub-task, where it is neither of these; they sum to 1."""
    variance: float = WORST
    """Variance of a document's value about the mean of its sub-task."""
    fixed: float = 0.0
    """The part of the variance of the task's value that fewer documents do not change: that of clusters."""
    cost: float = 1.0
    """Generated tokens of a document, over all of its samples."""
    samples: int = 1
    within: float = 0.0
    """Variance of one answer's score about its document's mean, where a plan chooses `samples`; else 0."""
    most: int = 0
    """Largest number of samples where a plan has chosen a smaller one; else 0."""
    whole: str | None = None
    """Why all documents are asked, if they are."""
    least: int = FLOOR
    """Smallest number of documents."""

    @property
    def size(self) -> int:
        """The number of documents."""
        return sum(self.leaves.values())

    @cached_property
    def shares(self) -> Floats:
        """The weight of each sub-task in the task's score; they sum to 1."""
        if self.weights:
            return np.array(self.weights)
        sizes = np.array(list(self.leaves.values()), dtype=float)
        return np.full(len(sizes), 1 / len(sizes)) if self.macro else sizes / sizes.sum()

    @cached_property
    def bounds(self) -> tuple[Counts, Counts]:
        """The smallest and the largest number of documents of each sub-task."""
        sizes = np.array(list(self.leaves.values()), dtype=np.int64)
        if self.whole is not None or self.least >= self.size:
            return sizes, sizes
        least, shares = float(self.least), self.shares
        while True:  # small sub-tasks may not have their share: the others make up for it
            floor = np.minimum(np.maximum(np.ceil(least * shares - 1e-9), LEAST_OF_LEAF).astype(np.int64), sizes)
            if floor.sum() >= self.least:
                return floor, sizes
            least *= 1.02

    def sampled(self, scale: float) -> Candidate:
        """Return the task with the number of samples that is best where the multiplier is `scale`.

        With n documents of m samples the variance is (between + within / m) / n at a cost of n m. Another document
        takes off more than another sample, so that there is one sample until all documents are asked.
        """
        if not self.within or self.whole is not None or math.isinf(scale):
            return self
        one = self._with_samples(1)
        if (one.counts(scale) < one.bounds[1]).any():
            return one
        return self._with_samples(min(max(1, math.floor(scale / self._per_sample)), self.samples))

    @property
    def _per_sample(self) -> float:
        """The multiplier for each sample where all documents are asked."""
        spread = float((self.shares**2 / self.bounds[1]).sum())
        return math.sqrt(self.cost / self.samples * self.size / (self.within * spread))

    def _with_samples(self, number: int) -> Candidate:
        variance = self.variance + self.within * (1 / number - 1 / self.samples)
        cost = max(1.0, self.cost / self.samples * number)
        return replace(self, variance=variance, cost=cost, samples=number, most=self.samples)

    def variance_of(self, counts: Counts) -> float:
        """Return the variance of the task's value from so many documents of each sub-task."""
        return float((self.shares**2 * self.variance / counts).sum()) + self.fixed

    def counts(self, scale: float) -> Counts:
        """Return the documents of each sub-task where the multiplier is `scale`."""
        low, high = self.bounds
        ideal = scale * self.shares * math.sqrt(self.variance / self.cost)
        return np.clip(np.floor(np.minimum(ideal, high) + 1e-9).astype(np.int64), low, high)


@dataclass(frozen=True, slots=True)
class TaskAllocation:
    """The number of documents that a plan takes from one task."""

    task: Candidate
    leaves: Mapping[str, int]
    """Sub-task to its number of documents."""
    stderr: float
    """Expected standard error of the task's value."""
    stderr_of_all: float
    """The same with all documents."""

    @property
    def documents(self) -> int:
        """The number of documents."""
        return sum(self.leaves.values())

    @property
    def tokens(self) -> float:
        """Expected generated tokens."""
        return self.documents * self.task.cost


@dataclass(frozen=True, slots=True)
class Allocation:
    """A plan: documents of each task, and the errors to expect."""

    tasks: Sequence[TaskAllocation]
    stderr: float
    """Expected standard error of the suite's average."""
    stderr_of_all: float
    """The same with all documents."""
    notes: Sequence[str] = field(default=())

    @property
    def documents(self) -> int:
        """The number of documents."""
        return sum(task.documents for task in self.tasks)

    @property
    def of(self) -> int:
        """The number of documents of the whole suite."""
        return sum(task.task.size for task in self.tasks)

    @property
    def tokens(self) -> float:
        """Expected generated tokens."""
        return sum(task.tokens for task in self.tasks)

    @property
    def tokens_of_all(self) -> float:
        """Expected generated tokens of the whole suite."""
        return sum(
            task.task.cost / task.task.samples * (task.task.most or task.task.samples) * task.task.size
            for task in self.tasks
        )


def half_width(stderr: float) -> float:
    """Return half the width of the 95 % interval of a standard error."""
    return normal_quantile(0.975) * stderr


def for_error(tasks: Sequence[Candidate], stderr: float) -> Allocation:
    """Return the cheapest plan whose average has at most this standard error.

    Raises UsageError with the smallest half-width that all documents give, if they do not suffice.
    """
    least = _allocation(tasks, math.inf)
    if least.stderr > stderr * (1 + 1e-12):
        raise UsageError(
            f"all {least.documents:,} documents have a standard error of {100 * least.stderr:.2f} points "
            f"(±{100 * half_width(least.stderr):.2f}); {100 * stderr:.2f} (±{100 * half_width(stderr):.2f}) would be "
            "needed"
        )
    return _smallest(tasks, lambda plan: plan.stderr <= stderr)


def for_tokens(tasks: Sequence[Candidate], tokens: float) -> Allocation:
    """Return the plan with the smallest error that costs at most `tokens`.

    Raises UsageError with the least cost, if the floors cost more.
    """
    least = _allocation(tasks, 0.0)
    if least.tokens > tokens:
        raise UsageError(
            f"the smallest plan takes {amount(_rounded_up(least.tokens))} tokens ({least.documents:,} documents: at "
            f"least {FLOOR} of each task, and whole tasks where the score is no mean over documents), more than the "
            f"{amount(tokens)} that are given"
        )
    if _allocation(tasks, math.inf).tokens <= tokens:
        return _allocation(tasks, math.inf)
    low, high = _range(tasks)
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if _allocation(tasks, middle).tokens <= tokens else (low, middle)
    return _allocation(tasks, low)


def chunks(tasks: Sequence[Candidate], growth: float = 1.35) -> list[Allocation]:
    """Return plans that contain each other, from the floors to all documents, each `growth` times as costly."""
    plans = [_allocation(tasks, 0.0)]
    whole = _allocation(tasks, math.inf)
    while (budget := growth * plans[-1].tokens) < 0.9 * whole.tokens:
        plans.append(for_tokens(tasks, budget))
    return [*plans, whole] if plans[-1].documents < whole.documents else plans


def documents_for(task: Candidate, stderr: float) -> int:
    """Return the documents with which the task alone has at most this standard error; all if none suffice."""
    if math.sqrt(task.variance_of(task.bounds[1])) > stderr:
        return task.size
    return _smallest([task], lambda plan: plan.tasks[0].stderr <= stderr).documents


def _smallest(tasks: Sequence[Candidate], enough: Callable[[Allocation], bool]) -> Allocation:
    """Return the plan of the smallest multiplier that is enough; that of all documents is."""
    low, high = _range(tasks)
    if enough(plan := _allocation(tasks, low)):
        return plan
    for _ in range(80):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(_allocation(tasks, middle)) else (middle, high)
    return _allocation(tasks, high)


def _range(tasks: Sequence[Candidate]) -> tuple[float, float]:
    """Return multipliers at which every task is at its floor, and at its size."""
    needed = [
        task.bounds[1].max() / (float(task.shares.min()) * math.sqrt(max(task.variance, 1e-12) / task.cost))
        for task in tasks
    ]
    needed += [task._per_sample * task.samples for task in tasks if task.within]
    return 1e-6, 2 * len(tasks) * max(needed)


def _allocation(tasks: Sequence[Candidate], scale: float) -> Allocation:
    weight = 1 / len(tasks)
    parts = []
    for full in tasks:
        task = full.sampled(scale * weight)
        counts = task.bounds[1] if math.isinf(scale) else task.counts(scale * weight)
        parts.append(
            TaskAllocation(
                task,
                dict(zip(task.leaves, counts.tolist(), strict=True)),
                math.sqrt(task.variance_of(counts)),
                math.sqrt(full.variance_of(full.bounds[1])),
            )
        )
    errors = (math.hypot(*(part.stderr for part in parts)), math.hypot(*(part.stderr_of_all for part in parts)))
    return Allocation(parts, weight * errors[0], weight * errors[1])


def _rounded_up(tokens: float) -> float:
    """Round up to three digits, so that the amount that is shown suffices."""
    unit = 10.0 ** max(0, math.floor(math.log10(tokens)) - 2)
    return math.ceil(tokens / unit) * unit


def amount(tokens: float) -> str:
    """Format a number of tokens: 940, 12.3k, 4.56M."""
    rounded = float(f"{tokens:.3g}")
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rounded >= size:
            return f"{rounded / size:.3g}{letter}"
    return f"{rounded:,.0f}"
