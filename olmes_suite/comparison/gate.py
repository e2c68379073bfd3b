"""The regression gate: non-inferiority of a candidate to a baseline, task by task and on the suite average.

A task passes when the one-sided lower bound of candidate − baseline lies above −margin; it fails when it does not pass
and the drop is significant after Holm's correction over all tasks and the average; else it is inconclusive. The whole
fails when anything fails, and passes when the average and every required task pass: a pass needs all of these, so it
needs no correction, a failure needs one of many, so it does. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from olmes_suite.comparison import compare as comparing
from olmes_suite.comparison.compare import Comparison, TaskComparison, compare_average
from olmes_suite.comparison.gate_health import Finding, findings
from olmes_suite.comparison.gate_rules import Rules
from olmes_suite.comparison.paired_tests import Difference, holm
from olmes_suite.errors import UsageError
from olmes_suite.runs.scores import RunScores
from olmes_suite.stats import normal_quantile
from olmes_suite.tasks.index import PREFIX, full_name, index, nearest

Verdict = Literal["pass", "fail", "inconclusive", "not comparable"]
AVERAGE = "suite average"
EXITS = {"pass": 0, "fail": 1, "inconclusive": 3, "not comparable": 4, "infrastructure": 5}


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """The verdict on one task, or on the suite average."""

    task: str
    difference: Difference | None
    margin: float
    verdict: Verdict
    baseline: float | None = None
    candidate: float | None = None
    p_adjusted: float | None = None
    required: bool = False
    more: int | None = None
    """Documents beyond those at hand that the verdict would take, at the difference seen."""
    notes: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The verdict in words, in points."""
        d = self.difference
        if d is None or d.lower is None:
            return "; ".join([self.verdict, *self.notes]) or self.verdict
        p = "–" if self.p_adjusted is None else "<0.001" if self.p_adjusted < 0.001 else f"{self.p_adjusted:.3f}"
        start = (
            f"{self.verdict}: {100 * d.delta:+.2f} points on {d.n} documents, lower bound {100 * d.lower:+.2f}, "
            f"margin {100 * self.margin:.2f}, p {p} for a drop (Holm)"
        )
        return "; ".join([start, *self.notes])


@dataclass(frozen=True, slots=True)
class GateReport:
    """What a gate says."""

    baseline: str
    candidate: str
    verdict: str
    exit: int
    alpha: float
    suite: TaskVerdict
    tasks: tuple[TaskVerdict, ...]
    health: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[TaskVerdict, ...]:
        """The tasks, then the average."""
        return (*self.tasks, self.suite)

    def findings(self) -> Iterator[str]:
        """All that the table does not say, a line each."""
        yield from (finding.line() for finding in self.health)
        for row in self.rows:
            yield from (f"{row.task.removeprefix(PREFIX)}: {note}" for note in row.notes)
        yield from self.notes


def gate(
    baseline: RunScores,
    candidate: RunScores,
    rules: Rules | None = None,
    *,
    suite: str | None = None,
    only: Sequence[str] = (),
    noise: RunScores | None = None,
    resamples: int = 0,
) -> GateReport:
    """Judge a candidate. `only`: tasks to look at; `suite`: whose tasks make the average (the run's one, else all).

    `noise`: a repeat of the baseline; no margin is below what it measures. Raises UsageError for names that no run has.
    """
    rules = rules or Rules()
    wanted = _wanted(baseline, candidate, only, rules)
    found = comparing.compare_runs(baseline, candidate, alpha=rules.alpha, resamples=resamples)
    tasks = [task for task in found.tasks if task.task in wanted]
    listed = _average_tasks(baseline, candidate, suite, wanted)
    averaged = [task for task in tasks if task.task in listed]
    complete = len(averaged) == len(listed) and all(task.comparable for task in averaged)
    average = compare_average(averaged, rules.alpha, resamples) if complete else None
    floor_of = _noise(baseline, noise, rules, [task.task for task in averaged])
    verdicts = _judge(tasks, average, averaged, rules, floor_of)
    health = findings(baseline, candidate, tasks, wanted, rules)
    return _whole(found, verdicts, health, rules)


def _wanted(baseline: RunScores, candidate: RunScores, only: Sequence[str], rules: Rules) -> dict[str, None]:
    """Return the tasks to judge: those that are named with `--task`, else all of the baseline and the required ones."""
    known = {**baseline.tasks, **baseline.failed, **candidate.tasks, **candidate.failed}
    short = {name.removeprefix(PREFIX): name for name in known}
    for name in (*only, *rules.tasks):
        if name not in known and name not in short and full_name(name) not in index():
            raise UsageError(f"neither run has a task {name!r}{nearest(name, list(short))}")
    if only:
        return dict.fromkeys(short.get(name, full_name(name)) for name in only)
    named = [short.get(name, full_name(name)) for name, rule in rules.tasks.items() if rule.required]
    return dict.fromkeys([*baseline.tasks, *named])


def _average_tasks(
    baseline: RunScores, candidate: RunScores, suite: str | None, wanted: Mapping[str, None]
) -> list[str]:
    if suite is None:
        own = [names for name, names in baseline.suites.items() if name in candidate.suites]
        return [name for name in wanted if len(own) != 1 or name in own[0]] or list(wanted)
    listed = baseline.suites.get(suite) or candidate.suites.get(suite)
    if listed is None:
        have = sorted({*baseline.suites, *candidate.suites})
        raise UsageError(f"neither run was made with --suite {suite}{nearest(suite, have)}")
    return [name for name in wanted if name in listed]


def _noise(baseline: RunScores, repeat: RunScores | None, rules: Rules, averaged: Sequence[str]) -> Mapping[str, float]:
    """Per task, how far a repeat of the same model moved: its difference, and at least one standard error of it."""
    if repeat is None:
        return {}
    found = comparing.compare_runs(baseline, repeat, alpha=rules.alpha)
    if found.incomparable:
        raise UsageError(
            f"--noise {repeat.name} is no repeat of the baseline: {comparing.mismatch(found.incomparable)}"
        )
    moved = {task.task: task.difference for task in found.tasks}
    moved[AVERAGE] = compare_average([task for task in found.tasks if task.task in averaged], rules.alpha)
    return {name: max(abs(d.delta), d.stderr or 0.0) for name, d in moved.items() if d is not None}


def _judge(
    tasks: Sequence[TaskComparison],
    average: Difference | None,
    averaged: Sequence[TaskComparison],
    rules: Rules,
    noise: Mapping[str, float],
) -> list[TaskVerdict]:
    """Verdicts on the tasks and, last, on the average; one Holm family."""
    rows = [(task.task, task.difference if task.comparable else None) for task in tasks] + [(AVERAGE, average)]
    tested = [d.p_drop for _, d in rows if d is not None and d.p_drop is not None]
    adjusted = iter(holm(tested))
    out = []
    for (name, d), task in zip(rows, [*tasks, None], strict=True):
        p = next(adjusted) if d is not None and d.p_drop is not None else None
        if task is None:
            values: tuple[float | None, float | None] = _means(averaged) if d is not None else (None, None)
            margin = rules.suite_margin if rules.suite_margin is not None else rules.margin
            out.append(_verdict(name, d, p, values, margin, noise, rules, floor=None, required=True))
        elif not task.comparable:
            out.append(_not_comparable(task, rules))
        else:
            rule, margin = rules.task(name), rules.margin_of(name, task.skill)
            values = (task.baseline, task.candidate)
            out.append(_verdict(name, d, p, values, margin, noise, rules, floor=rule.floor, required=rule.required))
    return out


def _means(tasks: Sequence[TaskComparison]) -> tuple[float, float]:
    n = len(tasks)
    return sum(task.baseline or 0.0 for task in tasks) / n, sum(task.candidate or 0.0 for task in tasks) / n


def _not_comparable(task: TaskComparison, rules: Rules) -> TaskVerdict:
    margin = rules.margin_of(task.task, task.skill)
    notes = (f"{' and '.join(task.differs)} differ",)
    required = rules.task(task.task).required
    return TaskVerdict(
        task.task, None, margin, "not comparable", task.baseline, task.candidate, None, required, None, notes
    )


def _verdict(
    name: str,
    d: Difference | None,
    p: float | None,
    values: tuple[float | None, float | None],
    margin: float,
    noise: Mapping[str, float],
    rules: Rules,
    *,
    floor: float | None,
    required: bool,
) -> TaskVerdict:
    notes = []
    if noise.get(name, 0.0) > margin:
        notes.append(f"margin raised from {100 * margin:.2f} to {100 * noise[name]:.2f} points, the noise of a re-run")
        margin = noise[name]
    passes = d is not None and d.lower is not None and d.lower > -margin
    drops = p is not None and p <= rules.alpha
    verdict: Verdict = "pass" if passes else "fail" if drops else "inconclusive"
    if passes and d is not None and d.p_drop is not None and d.p_drop <= rules.alpha:
        notes.append(f"a drop of {100 * -d.delta:.2f} points, significant on its own but within the margin")
    more = _more(d, margin, rules.alpha) if verdict == "inconclusive" else None
    if more is not None and d is not None:
        notes.append(
            f"about {more:,} more documents like these (or {math.ceil(1 + more / d.n)} samples of each) decide it"
        )
    if verdict == "inconclusive" and (d is None or d.lower is None):
        notes.append("too few documents for an error bar" if d is not None else "no difference to judge")
    if floor is not None and values[1] is not None and values[1] < floor:
        verdict = "fail"
        notes.append(f"{100 * values[1]:.1f} is below its floor of {100 * floor:.1f}")
    return TaskVerdict(name, d, margin, verdict, *values, p, required, more, tuple(notes))


def _more(d: Difference | None, margin: float, alpha: float) -> int | None:
    """Further documents until the difference seen would pass, or where it is a drop beyond the margin, fail.

    The standard error shrinks with the root of the number of documents: n' = n (z stderr / distance)².
    """
    if d is None or not d.stderr or d.lower is None:
        return None
    distance = d.delta + margin if d.delta > -margin else -d.delta
    if distance <= 0:
        return None
    wide = max(normal_quantile(1 - alpha) * d.stderr, d.delta - d.lower)
    needed = d.n * (wide / distance) ** 2
    return max(1, math.ceil(needed - d.n)) if needed < 1e9 else None


def _whole(found: Comparison, verdicts: Sequence[TaskVerdict], health: Sequence[Finding], rules: Rules) -> GateReport:
    tasks, average = verdicts[:-1], verdicts[-1]
    if any(row.verdict == "fail" for row in verdicts) or any(finding.kind == "fail" for finding in health):
        verdict = "fail"
    elif any(row.verdict == "not comparable" for row in tasks) or (not tasks and not _broken(health)):
        verdict = "not comparable"
    elif _broken(health):
        verdict = "infrastructure"
    elif average.verdict == "pass" and all(row.verdict == "pass" for row in tasks if row.required):
        verdict = "pass"
    else:
        verdict = "inconclusive"
    status = EXITS[verdict]
    if verdict == "inconclusive":
        status = {"pass": 0, "fail": 1, "exit3": 3}[rules.inconclusive]
    notes = () if tasks else (f"the runs share no task: {found.baseline} and {found.candidate}",)
    return GateReport(
        found.baseline, found.candidate, verdict, status, rules.alpha, average, tuple(tasks), tuple(health), notes
    )


def _broken(health: Sequence[Finding]) -> bool:
    return any(finding.kind == "error" for finding in health)


def as_json(report: GateReport) -> dict[str, Any]:
    """The report as `olmes gate --json` prints it; fractions."""
    suite = _row(report.suite)
    return {
        "verdict": report.verdict,
        "exit": report.exit,
        "baseline": report.baseline,
        "candidate": report.candidate,
        "alpha": report.alpha,
        "suite": {key: value for key, value in suite.items() if key != "task"},
        "tasks": [_row(task) for task in report.tasks],
        "health": [finding.as_json() for finding in report.health],
        "notes": list(report.notes),
    }


def _row(row: TaskVerdict) -> dict[str, Any]:
    d = row.difference
    return {
        "task": row.task, "n": d.n if d else 0, "baseline": row.baseline, "candidate": row.candidate,
        "delta": d.delta if d else None, "ci95": list(d.ci95) if d and d.ci95 else None,
        "lower": d.lower if d else None,
        "p": d.p_drop if d else None, "p_adjusted": row.p_adjusted, "margin": row.margin, "verdict": row.verdict,
        "required": row.required, "wins": d.wins if d else None, "losses": d.losses if d else None,
        "method": d.method if d else None, "more": row.more, "notes": list(row.notes),
    }  # fmt: skip
