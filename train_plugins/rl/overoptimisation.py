"""Detection of over-optimisation: the reward rises while dev falls. Pure functions.

Each evaluated checkpoint is compared with each earlier one: has dev fallen between the two, on the same documents, by
more than chance explains, while the verified reward has risen? Dev's fall has a one-sided paired p-value
(`olmes_suite.comparison.compare`). With K evaluations planned there are K (K − 1) / 2 such pairs; Bonferroni's
correction keeps the probability of any false warning in a whole training at 5 % or less, whatever the reward does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from olmes_suite.comparison.paired_tests import Difference
from olmes_suite.stats import satterthwaite, t_quantile

ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Overoptimised:
    """A significant fall of dev with a rise of the reward."""

    since: int
    """Step of the earlier checkpoint."""
    step: int
    fall: Difference
    """Dev at `step` minus dev at `since`, as a fraction."""
    reward: tuple[float, float]
    """Mean verified reward before each of the two checkpoints, since the evaluation before it."""


def judge(
    step: int, falls: Mapping[int, Difference], rewards: Mapping[int, Sequence[float]], planned: int
) -> Overoptimised | None:
    """Return dev's largest significant fall from an earlier checkpoint since which the reward has risen, or None.

    `falls` maps the step of each earlier evaluation to dev's difference (`step` minus the earlier one). `rewards` maps
    the step of each evaluation to the verified rewards logged since the one before it. `planned` is the number of
    evaluations in the whole training.
    """
    share = allowed(max(planned, len(falls) + 1))
    warnings = [
        Overoptimised(since, step, fall, (float(np.mean(rewards[since])), float(np.mean(rewards[step]))))
        for since, fall in falls.items()
        if fall.p_drop is not None and fall.p_drop <= share and rose(rewards.get(since, ()), rewards.get(step, ()))
    ]
    return min(warnings, key=lambda warning: warning.fall.delta, default=None)


def allowed(evaluations: int) -> float:
    """Return the p-value up to which a pair of evaluations is significant, by Bonferroni over all pairs."""
    return ALPHA / max(evaluations * (evaluations - 1) // 2, 1)


def rose(before: Sequence[float], after: Sequence[float]) -> bool:
    """Test whether the mean has risen: Welch's one-sided test (1947, Biometrika 34, 28) at 5 %.

    With a single value on one side there is no error to test against, and the means are compared as they are.
    """
    if not before or not after:
        return False
    rise = float(np.mean(after) - np.mean(before))
    if min(len(before), len(after)) < 2:
        return rise > 0
    parts = [float(np.var(side, ddof=1)) / len(side) for side in (before, after)]
    if sum(parts) == 0:
        return rise > 0
    df = satterthwaite(parts, [len(before) - 1, len(after) - 1])
    return rise > t_quantile(1 - ALPHA, df) * math.sqrt(sum(parts))
