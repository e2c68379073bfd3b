"""The regression gate: non-inferiority of a candidate to a baseline, task by task and on the suite average.

A task passes when the one-sided lower bound of candidate − baseline lies above −margin. It fails when it does not pass
and the drop is significant after Holm's correction over all tasks and the average. Otherwise it is inconclusive. The
gate fails when any task or the average fails, and passes when the average and every required task pass. A pass requires
all of these and needs no correction; a failure requires one of many and does. Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from olmes_suite.comparison import compare as comparing
from olmes_suite.comparison.compare import Comparison, TaskComparison, compare_average
from olmes_suite.comparison.gate_health import Finding, findings
from olmes_suite.comparison.gate_rules import PUBLISHED_NOISE, Rules
from olmes_suite.comparison.paired_tests import Difference, holm
from olmes_suite.comparison.room import Room, advice, joined
from olmes_suite.errors import UsageError
from olmes_suite.runs.schema import Stopped
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
    """The number of further documents that a verdict needs, at the observed difference."""
    notes: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return the verdict as a sentence, in points."""
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
    """The result of a gate."""

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
        """The verdicts on the tasks, then on the average."""
        return (*self.tasks, self.suite)

    def findings(self) -> Iterator[str]:
        """Yield the lines that the table does not contain: health findings and notes."""
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
    """Judge a candidate against a baseline.

    `only`: the tasks to judge; `suite`: the suite whose tasks make the average, by default the run's only suite, else
    all tasks; `noise`: a repeat of the baseline, whose noise no margin is below. Raises UsageError for names that
    neither run has.
    """
    rules = rules or Rules()
    names = _tasks_to_judge(baseline, candidate, only, rules)
    comparison = comparing.compare_runs(baseline, candidate, alpha=rules.alpha, resamples=resamples)
    tasks = [task for task in comparison.tasks if task.task in names]
    average_names = _average_tasks(baseline, candidate, suite, names)
    averaged = [task for task in tasks if task.task in average_names]
    complete = len(averaged) == len(average_names) and all(task.comparable for task in averaged)
    average = compare_average(averaged, rules.alpha, resamples) if complete else None
    floor_of = _noise(baseline, noise, rules, [task.task for task in averaged])
    verdicts = _judge(tasks, average, averaged, rules, floor_of)
    health = findings(baseline, candidate, tasks, names, rules)
    report = _whole(comparison, verdicts, health, rules, comparison.partial)
    return report if candidate.stopped is None else _stopped(report, candidate.stopped, rules)


def _tasks_to_judge(baseline: RunScores, candidate: RunScores, only: Sequence[str], rules: Rules) -> dict[str, None]:
    """Return the tasks to judge: those that are named with `--task`, else all of the baseline and the required ones."""
    known = {**baseline.tasks, **baseline.failed, **candidate.tasks, **candidate.failed}
    short = {name.removeprefix(PREFIX): name for name in known}
    for name in (*only, *rules.tasks):
        if name not in known and name not in short and full_name(name) not in index():
            raise UsageError(f"neither run has a task {name!r}{nearest(name, list(short))}")
    if only:
        return dict.fromkeys(short.get(name, full_name(name)) for name in only)
    required = [short.get(name, full_name(name)) for name, rule in rules.tasks.items() if rule.required]
    return dict.fromkeys([*baseline.tasks, *required])


def _average_tasks(
    baseline: RunScores, candidate: RunScores, suite: str | None, judged: Mapping[str, None]
) -> list[str]:
    if suite is None:
        shared_suites = [names for name, names in baseline.suites.items() if name in candidate.suites]
        return [name for name in judged if len(shared_suites) != 1 or name in shared_suites[0]] or list(judged)
    members = baseline.suites.get(suite) or candidate.suites.get(suite)
    if members is None:
        suites = sorted({*baseline.suites, *candidate.suites})
        raise UsageError(f"neither run was made with --suite {suite}{nearest(suite, suites)}")
    return [name for name in judged if name in members]


def _noise(baseline: RunScores, repeat: RunScores | None, rules: Rules, averaged: Sequence[str]) -> Mapping[str, float]:
    """Return the noise of each task: the difference of a repeat of the same model, and at least its standard error.

    With the rule `noise: published` it is at least the published standard deviation between runs.
    """
    published = {name: sd for name, sd in PUBLISHED_NOISE.items() if rules.noise == "published"}
    if repeat is None:
        return published
    comparison = comparing.compare_runs(baseline, repeat, alpha=rules.alpha)
    if comparison.incomparable:
        raise UsageError(
            f"--noise {repeat.name} is not a repeat of the baseline: {comparing.mismatch(comparison.incomparable)}"
        )
    differences = {task.task: task.difference for task in comparison.tasks}
    differences[AVERAGE] = compare_average([task for task in comparison.tasks if task.task in averaged], rules.alpha)
    measured = {name: max(abs(d.delta), d.stderr or 0.0) for name, d in differences.items() if d is not None}
    return published | {name: max(value, published.get(name, 0.0)) for name, value in measured.items()}


def _judge(
    tasks: Sequence[TaskComparison],
    average: Difference | None,
    averaged: Sequence[TaskComparison],
    rules: Rules,
    noise: Mapping[str, float],
) -> list[TaskVerdict]:
    """Return the verdicts on the tasks and, last, on the average, which form one Holm family."""
    rows = [(task.task, task.difference if task.comparable else None) for task in tasks] + [(AVERAGE, average)]
    tested = [d.p_drop for _, d in rows if d is not None and d.p_drop is not None]
    adjusted = iter(holm(tested))
    verdicts = []
    for (name, d), task in zip(rows, [*tasks, None], strict=True):
        p = next(adjusted) if d is not None and d.p_drop is not None else None
        if task is None:
            values: tuple[float | None, float | None] = _means(averaged) if d is not None else (None, None)
            margin = rules.suite_margin if rules.suite_margin is not None else rules.margin
            floor, required = None, True
            left, what = joined([member.room for member in averaged]), "suite"
        elif not task.comparable:
            verdicts.append(_not_comparable(task, rules))
            continue
        else:
            rule, margin = rules.task(name), rules.margin_of(name, task.skill)
            values = (task.baseline, task.candidate)
            floor, required = rule.floor, rule.required
            left, what = task.room, "task"
        noise_of_task = noise.get(name, 0.0)
        verdicts.append(
            _verdict(
                name,
                d,
                p,
                values,
                margin=margin,
                noise=noise_of_task,
                alpha=rules.alpha,
                floor=floor,
                required=required,
                left=left,
                what=what,
            )
        )
    return verdicts


def _means(tasks: Sequence[TaskComparison]) -> tuple[float, float]:
    n = len(tasks)
    return sum(task.baseline or 0.0 for task in tasks) / n, sum(task.candidate or 0.0 for task in tasks) / n


def _not_comparable(task: TaskComparison, rules: Rules) -> TaskVerdict:
    margin = rules.margin_of(task.task, task.skill)
    notes = (f"{' and '.join(task.differs)} differ{comparing.values_of(task)}",)
    required = rules.task(task.task).required
    return TaskVerdict(
        task.task, None, margin, "not comparable", task.baseline, task.candidate, None, required, None, notes
    )


def _verdict(
    name: str,
    d: Difference | None,
    p: float | None,
    values: tuple[float | None, float | None],
    *,
    margin: float,
    noise: float,
    alpha: float,
    floor: float | None,
    required: bool,
    left: Room,
    what: str,
) -> TaskVerdict:
    notes = []
    if noise > margin:
        notes.append(f"margin raised from {100 * margin:.2f} to {100 * noise:.2f} points, the noise of a re-run")
        margin = noise
    passes = d is not None and d.lower is not None and d.lower > -margin
    drops = p is not None and p <= alpha
    verdict: Verdict = "pass" if passes else "fail" if drops else "inconclusive"
    if passes and d is not None and d.p_drop is not None and d.p_drop <= alpha:
        notes.append(f"a drop of {100 * -d.delta:.2f} points, significant on its own but within the margin")
    more = _more(d, margin, alpha, p) if verdict == "inconclusive" else None
    if more is not None and d is not None:
        notes.append(advice(more, d.n, left, what))
    if verdict == "inconclusive" and (d is None or d.lower is None):
        notes.append("too few documents for an error bar" if d is not None else "no difference to judge")
    if floor is not None and values[1] is not None and values[1] < floor:
        verdict = "fail"
        notes.append(f"{100 * values[1]:.1f} is below its floor of {100 * floor:.1f}")
    return TaskVerdict(name, d, margin, verdict, *values, p, required, more, tuple(notes))


def _more(d: Difference | None, margin: float, alpha: float, p: float | None) -> int | None:
    """Return how many more documents would let the observed difference pass, or a drop beyond the margin fail.

    The standard error shrinks with the root of the number of documents: n' = n (z stderr / distance)². A drop fails by
    its p-value corrected for the number of tasks, `p`; the quantile of p grows with the same root.
    """
    if d is None or not d.stderr or d.lower is None:
        return None
    if d.delta <= -margin and p and d.p_drop and d.p_drop < 0.5:
        needed, found = normal_quantile(1 - alpha * d.p_drop / p), normal_quantile(1 - d.p_drop)
        return max(1, math.ceil(d.n * (needed / found) ** 2 - d.n))
    distance = d.delta + margin if d.delta > -margin else -d.delta
    if distance <= 0:
        return None
    half_width = max(normal_quantile(1 - alpha) * d.stderr, d.delta - d.lower)
    total = d.n * (half_width / distance) ** 2
    return max(1, math.ceil(total - d.n)) if total < 1e9 else None


def _whole(
    comparison: Comparison,
    verdicts: Sequence[TaskVerdict],
    health: Sequence[Finding],
    rules: Rules,
    partial: Sequence[str],
) -> GateReport:
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
    notes = tuple(partial) if tasks else (f"the runs share no task: {comparison.baseline} and {comparison.candidate}",)
    return GateReport(
        comparison.baseline,
        comparison.candidate,
        verdict,
        status,
        rules.alpha,
        average,
        tuple(tasks),
        tuple(health),
        notes,
    )


def _stopped(report: GateReport, stopped: Stopped, rules: Rules) -> GateReport:
    """Return the verdict at which the candidate stopped asking: its error rates hold over all of its looks.

    The tests of a fixed number of documents would not: the looks chose the number. Findings about health stay. With
    another baseline or other rules the report is left as it is, with a note.
    """
    looks = f"{len(stopped.looks)} look{'s' if len(stopped.looks) != 1 else ''}"
    rows = {row.task: row for row in report.tasks}
    margins = {name: rows[name].margin for name in stopped.margins if name in rows}
    required = {name for name, row in rows.items() if row.required}
    same = (stopped.baseline, stopped.alpha, stopped.margin) == (report.baseline, rules.alpha, report.suite.margin)
    if not same or margins != dict(stopped.margins) or (stopped.margins and required != {*stopped.required}):
        note = f"{report.candidate} stopped after {looks} with another baseline or other rules: error rates do not hold"
        return replace(report, notes=(*report.notes, note))
    if report.verdict in ("not comparable", "infrastructure") or any(one.kind == "fail" for one in report.health):
        return report
    judged = []
    for row in report.rows:
        failed = ("" if row.task == AVERAGE else row.task) in stopped.failed
        drop = row.verdict == "fail" and not any("below its floor" in note for note in row.notes)
        verdict: Verdict = "fail" if failed else "inconclusive" if drop else row.verdict
        passes = stopped.verdict == "pass" and (row.required or row.task == AVERAGE)
        judged.append(replace(row, verdict="pass" if passes else verdict, more=None))
    floored = any(row.verdict == "fail" for row in judged)
    verdict_of_all = "fail" if floored else stopped.verdict
    status = EXITS[verdict_of_all]
    if verdict_of_all == "inconclusive":
        status = {"pass": 0, "fail": 1, "exit3": 3}[rules.inconclusive]
    note = f"decided after {looks}: {stopped.documents:,} of {stopped.of:,} documents were asked"
    return replace(
        report, verdict=verdict_of_all, exit=status, suite=judged[-1], tasks=tuple(judged[:-1]),
        notes=(note, *(one for one in report.notes if not one.startswith(f"{report.candidate} stopped early"))),
    )  # fmt: skip


def _broken(health: Sequence[Finding]) -> bool:
    return any(finding.kind == "error" for finding in health)


def as_json(report: GateReport) -> dict[str, Any]:
    """Return the report in the form of `olmes gate --json`, in fractions."""
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
