"""When a gate may stop asking: group-sequential tests of a candidate against a baseline, look by look. Pure functions.

After each chunk of documents the gate looks. Error rates hold for the true difference over all looks together: each
hypothesis spends its error rate over the looks (`spending`).

A task, or the average, *fails* where its drop is significant at α divided by their number (Bonferroni; the first step
of Holm's procedure). The average, and every required task, *passes* where its lower bound lies above -margin. The gate
passes when these pass, nothing fails, and a large drop (`LARGE`) is excluded in every task.

A task is asked no further where more answers would not change what one should decide: a pass that it needs is reached
or has next to no predictive probability, and so has a fail; and it adds next to nothing to the average, or the average
is settled in the same way (stochastic curtailment for futility). Giving up is not binding: no bound takes it into
account, so that error rates hold whatever is asked after it. Significant results need no curtailment: with this
spending, they pass a look's bound long before the rest of the documents could not turn them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from olmes_suite.comparison import evidence
from olmes_suite.comparison.compare import TaskComparison
from olmes_suite.comparison.evidence import Evidence
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.planning import Allocation
from olmes_suite.comparison.spending import Spending

LARGE = 0.10
"""The drop that a green gate excludes in every task, a fraction."""
LARGE_ALPHA = 0.05
PRIOR = 20
"""Documents with the average variance that are added to a task's, for its share of information."""
FUTILE = 0.05
"""A verdict with a smaller predictive probability is given up."""
LITTLE = 0.01
"""A task is not asked for the average where its other documents take off a smaller share of the average's variance."""


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
    open: frozenset[str] = frozenset()
    """Tasks that are asked further."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """The evidence of a look: "" stands for the average."""

    found: Mapping[str, Evidence | None]
    time: Mapping[str, float]
    """Shares of the information of all documents."""
    gain: Mapping[str, float]
    """The share of the average's variance that the rest of a task's documents would take off."""


class Looks:
    """The looks of one run, in their order."""

    def __init__(self, rules: Rules, targets: Sequence[Target]) -> None:
        self.rules = rules
        self.targets = {target.name: target for target in targets}
        names = [*self.targets, ""]
        self._required = {"", *(name for name, target in self.targets.items() if target.required)}
        self._fail = {name: Spending(rules.alpha / len(names)) for name in names}
        self._pass = {name: Spending(rules.alpha) for name in names}
        self._large = {name: Spending(LARGE_ALPHA) for name in self.targets}
        self.last = Look("continue")
        self._passed: set[str] = set()
        self._excluded: set[str] = set()

    def look(self, tasks: Sequence[TaskComparison]) -> Look:
        """Judge the documents so far; `tasks` are all targets, each with some documents."""
        self.last = self._verdict(self._see(tasks))
        return self.last

    def _verdict(self, seen: _Seen) -> Look:
        failed = [name for name in seen.found if self._judge(name, seen)]
        if failed:
            return Look("fail", tuple(failed))
        asked = {name for name in self.targets if seen.time[name] > 1 - 1e-9}
        if self._required <= self._passed and self._excluded | asked >= self.targets.keys():
            return Look("pass")
        wanted = frozenset(self._wanted(seen)) - asked
        if wanted:
            return Look("continue", open=wanted)
        return Look("inconclusive")

    @property
    def average_margin(self) -> float:
        """The margin of the average, a fraction."""
        return self.rules.suite_margin if self.rules.suite_margin is not None else self.rules.margin

    def margin(self, name: str) -> float:
        """The margin of a task, or of the average for an empty name; a fraction."""
        return self.targets[name].margin if name else self.average_margin

    def _judge(self, name: str, seen: _Seen) -> bool:
        """Note what has passed and return whether the drop of a task, or of the average, is significant."""
        found, time, margin = seen.found[name], seen.time[name], self.margin(name)
        fail, passing = self._fail[name].at(time), self._pass[name].at(time)
        if found is None:
            return False
        if name and name not in self._excluded:
            level = self._large[name].at(time)
            if level > 0 and found.lower(level) > -max(LARGE, margin):
                self._excluded.add(name)
        drops = fail > 0 and found.p_drop <= fail
        passes = passing > 0 and (drops or name in self._required) and found.lower(passing) > -margin
        if passes and name in self._required:
            self._passed.add(name)
        return drops and not passes and name not in self._passed

    def _wanted(self, seen: _Seen) -> Iterator[str]:
        """Yield the tasks whose answers may change what one should decide."""
        average = self._unsettled("", seen)
        for name in self.targets:
            own = name not in self._excluded or self._unsettled(name, seen)
            if own or (average and seen.gain[name] >= LITTLE):
                yield name

    def _unsettled(self, name: str, seen: _Seen) -> bool:
        """Return whether a pass, where one is needed, or a fail is still within reach."""
        found, time = seen.found[name], seen.time[name]
        if found is None:
            return True
        passing = 0.0
        if name in self._required and name not in self._passed:
            passing = evidence.pass_at_the_end(found, self.margin(name), time, self.rules.alpha)
        return max(passing, evidence.drop_at_the_end(found, time, self._fail[name].alpha)) >= FUTILE

    def _see(self, tasks: Sequence[TaskComparison]) -> _Seen:
        """Collect the evidence, and each task's and the average's share of the information of all documents."""
        found: dict[str, Evidence | None] = {}
        shares, raw, size = {}, {}, {}
        fixed = 0.0
        for task in tasks:
            if task.aligned is None:
                found[task.task], shares[task.task] = evidence.of_scores(task.difference), 1.0
                stderr = task.difference.stderr if task.difference is not None else None
                fixed += (stderr or 0.0) ** 2
                continue
            pairs = task.aligned.pairs
            square = float(pairs.weight @ pairs.weight)
            found[task.task] = evidence.of_pairs(pairs)
            shares[task.task] = min(1.0, self.targets[task.task].information / square)
            raw[task.task], size[task.task] = float(pairs.weight @ pairs.difference**2), 1 / square
        pooled = max(sum(raw[name] * size[name] for name in raw) / max(sum(size.values()), 1), 1e-4)
        variance = {name: (raw[name] * size[name] + PRIOR * pooled) / (size[name] + PRIOR) for name in raw}
        all_of = {name: variance[name] * self.targets[name].information for name in raw}
        now = fixed + sum(all_of[name] / shares[name] for name in raw)
        found[""] = evidence.of_average([found[task.task] for task in tasks])
        whole = all(share > 1 - 1e-9 for share in shares.values())
        shares[""] = 1.0 if whole or not now else (fixed + sum(all_of.values())) / now
        gain = {
            name: (all_of[name] / shares[name] - all_of[name]) / now if name in raw and now else 0.0 for name in shares
        }
        return _Seen(found, shares, gain)


def chunks(plans: Sequence[Allocation], looks: Looks) -> Iterator[dict[str, int]]:
    """Yield the documents of each sub-task after each chunk, until the last of the looks is not to go on.

    `plans` contain each other, and the last has all documents. A task that is not open stays at what was asked; one
    that is open again after the last plan is asked in full.
    """
    counts: dict[str, int] = {}
    for number, plan in enumerate(itertools.chain(plans, itertools.repeat(plans[-1]))):
        more = {
            leaf: n
            for part in plan.tasks
            if not number or part.task.name in looks.last.open
            for leaf, n in part.leaves.items()
        }
        if all(counts.get(leaf) == n for leaf, n in more.items()):
            if number >= len(plans):
                return
            continue
        counts |= more
        yield dict(counts)
        if looks.last.verdict != "continue":
            return
