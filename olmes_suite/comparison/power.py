"""Planning: the documents that a difference needs, and the power of a gate. Pure functions, in fractions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from olmes_suite.comparison import paired_tests
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.errors import UsageError
from olmes_suite.stats import Floats, normal_quantile
from olmes_suite.wording import points

DRAWS = 20_000
"""The number of simulated candidates: shares have a standard error of at most 0.35 points."""
FLIPS = 0.10
"""The assumed share of documents whose score changes between two checkpoints."""


def items_needed(delta: float, flips: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Return the documents that McNemar's test needs for a difference `delta` where a share `flips` of them changes.

    Connor 1987 (Biometrics 43, 207), two-sided: n = ((z_(1-alpha/2) sqrt(flips) + z_power sqrt(flips - delta²)) /
    delta)². Raises UsageError where the flips are too few for the difference.
    """
    _check(delta, flips)
    a, b = normal_quantile(1 - alpha / 2), normal_quantile(power)
    return math.ceil(((a * math.sqrt(flips) + b * math.sqrt(flips - delta**2)) / delta) ** 2)


def power_of(n: float, delta: float, flips: float, alpha: float = 0.05) -> float:
    """Return the power of McNemar's test with n documents, by Connor's formula solved for the power."""
    _check(delta, flips)
    spread = math.sqrt(flips - delta**2)
    distance = delta * math.sqrt(n) - normal_quantile(1 - alpha / 2) * math.sqrt(flips)
    return float(ndtr(distance / spread)) if spread else float(distance > 0)


def _check(delta: float, flips: float) -> None:
    if not 0 < flips <= 1:
        raise UsageError(f"--flips must be a share between 0 and 1, not {flips:g}")
    if not 0 < delta <= flips:
        raise UsageError(
            f"a difference of {points(delta)} cannot come from {100 * flips:g} % flipped documents: "
            "give a smaller --delta above 0 or a larger --flips"
        )


def samples_needed(items: int, have: int) -> int:
    """Return the samples per document with which `have` documents replace `items` documents.

    Assumes that only sampling causes flips, so that the variance of a document's mean of k samples is 1/k of that of
    one sample.
    """
    return math.ceil(items / have)


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """A task of a gate before any run."""

    name: str
    leaves: tuple[int, ...]
    """The number of documents of each leaf task."""
    macro: bool = True
    skill: str = "other"
    samples: int = 1

    def stderr(self, flips: float, delta: float = 0.0) -> float:
        """Return the standard error of the paired difference where a share `flips` of documents changes."""
        per_document = (flips - delta**2) / self.samples
        if self.macro:
            return math.sqrt(sum(per_document / n for n in self.leaves)) / len(self.leaves)
        return math.sqrt(per_document / sum(self.leaves))


@dataclass(frozen=True, slots=True)
class GatePower:
    """The shares of a gate's verdicts."""

    green: float
    red: float
    inconclusive: float
    tasks: Mapping[str, float]
    """The share of draws in which each task passes."""
    average_passes: float
    """The share of draws in which the suite average passes; a green gate also requires that no task fails."""
    average_stderr: float


def gate_power(
    tasks: Sequence[PlannedTask],
    rules: Rules,
    flips: float = FLIPS,
    delta: float = 0.0,
    *,
    draws: int = DRAWS,
    seed: int = paired_tests.SEED,
) -> GatePower:
    """Simulate `draws` candidates whose true score is lower by `delta` on every task, and judge them as the gate does.

    Tasks with binary scores of single documents are drawn as counts and judged by the gate's functions. Grouped or
    sampled tasks and the average are drawn as normal variables with the standard error of their sizes.
    """
    if not 0 < flips <= 1 or not 0 <= delta <= flips:
        raise UsageError(f"--flips must be a share between 0 and 1 and at least the drop, not {flips:g}")
    rng = np.random.default_rng(seed)
    z = normal_quantile(1 - rules.alpha)
    drawn = [_draw(task, flips, delta, draws=draws, z=z, rng=rng) for task in tasks]
    deltas, lowers, drops = zip(*drawn, strict=True)
    stderr = math.sqrt(sum(task.stderr(flips, delta) ** 2 for task in tasks)) / len(tasks)
    average = np.mean(deltas, axis=0)
    margin = rules.suite_margin if rules.suite_margin is not None else rules.margin
    margins = np.array([rules.margin_of(task.name, task.skill) for task in tasks] + [margin])
    lower = np.array([*lowers, average - z * stderr])
    p = np.array([*drops, ndtr(average / stderr)])
    passed = lower > -margins[:, None]
    failed = ~passed & (_holm(p) <= rules.alpha)
    red = failed.any(axis=0)
    needed = [rules.task(task.name).required for task in tasks] + [True]
    green = passed[needed].all(axis=0) & ~red
    each = {task.name: float(share) for task, share in zip(tasks, passed.mean(axis=1), strict=False)}
    return GatePower(
        float(green.mean()), float(red.mean()), float((~green & ~red).mean()), each, float(passed[-1].mean()), stderr
    )


def _draw(
    task: PlannedTask, flips: float, delta: float, *, draws: int, z: float, rng: np.random.Generator
) -> tuple[Floats, Floats, Floats]:
    """Return (difference, lower bound, one-sided p) of each draw."""
    n = sum(task.leaves)
    if task.samples == 1 and (len(task.leaves) == 1 or not task.macro):
        losses = rng.binomial(n, (flips + delta) / 2, draws)
        wins = rng.binomial(n - losses, (flips - delta) / 2 / (1 - (flips + delta) / 2))
        lower = paired_tests.tango_lower(wins, losses, n, z)
        return (wins - losses) / n, lower, paired_tests.drop_p(wins, losses)
    stderr = task.stderr(flips, delta)
    differences = rng.normal(-delta, stderr, draws)
    return differences, differences - z * stderr, ndtr(differences / stderr)


def _holm(p: Floats) -> Floats:
    """Return Holm's adjusted p-values of each column."""
    order = np.argsort(p, axis=0)
    steps = np.take_along_axis(p, order, axis=0) * np.arange(len(p), 0, -1)[:, None]
    adjusted = np.empty_like(p)
    np.put_along_axis(adjusted, order, np.minimum(1.0, np.maximum.accumulate(steps, axis=0)), axis=0)
    return adjusted
