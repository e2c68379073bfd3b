"""Comparisons and gate verdicts as objects of the Python interface."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.comparison import compare as comparing
from olmes_suite.comparison import gate as gating
from olmes_suite.comparison.gate_rules import Rules, parse_rules, read_rules
from olmes_suite.errors import NotComparable, UsageError
from olmes_suite.runs.scores import RunScores, by_subtask
from olmes_suite.tasks.index import full_name, nearest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Compared:
    """Runs compared with the first one, document by document."""

    comparisons: tuple[comparing.Comparison, ...]
    scores: tuple[RunScores, ...] = field(repr=False)
    """The runs, the first one the baseline."""
    groups: Mapping[str, str] = field(repr=False)
    """Leaf task to the top-level task of the run that holds it."""
    force: bool = False

    def __repr__(self) -> str:
        names = ", ".join(run.name for run in self.scores)
        return f"<{type(self).__name__} {names}: exit {self.exit}>"

    @property
    def problem(self) -> str | None:
        """Why the runs, or some of their tasks, do not compare."""
        wrong = [task for comparison in self.comparisons for task in comparison.incomparable]
        if wrong and not self.force:
            return comparing.mismatch(wrong)
        if all(task.difference is None for comparison in self.comparisons for task in comparison.tasks):
            return "the runs share no document"
        return None

    @property
    def exit(self) -> int:
        """The exit status of `olmes compare`: 0, or 4 where something does not compare."""
        return 0 if self.problem is None else 4

    def to_frame(self) -> pd.DataFrame:
        """A row for each candidate and task: both scores, their difference and its 95 % interval, p-values."""
        found = map(comparing.as_json, self.comparisons)
        return _frame({"run": one["candidate"], **row} for one in found for row in one["tasks"])

    def markdown(self) -> str:
        """Tables in markdown, scores in points."""
        from olmes_suite.comparison.reports import compare_markdown

        return "\n".join(map(compare_markdown, self.comparisons))


def compare(
    loaded: Sequence[RunScores], tasks: Sequence[str] = (), *, subtasks: bool = False, resamples: int = 0,
    force: bool = False,
) -> Compared:  # fmt: skip
    """Compare runs with the first one. Raises UsageError for one run alone or a task that a run does not have."""
    if len(loaded) < 2:
        raise UsageError("two runs are needed: olmes compare A B [C …]")
    chosen = [_only(run, tasks) for run in loaded]
    groups = {leaf: name for run in chosen for name, found in run.tasks.items() for leaf in found.leaves}
    if subtasks:
        chosen = [by_subtask(run) for run in chosen]
    found = [comparing.compare_runs(chosen[0], run, resamples=resamples, force=force) for run in chosen[1:]]
    for comparison in found:
        if not comparison.tasks:
            raise NotComparable(f"{comparison.baseline} and {comparison.candidate} share no task")
    return Compared(tuple(found), tuple(chosen), groups, force)


def _only(run: RunScores, names: Sequence[str]) -> RunScores:
    """The run with only the named tasks. Raises UsageError for one that it does not have."""
    if not names:
        return run
    for name in names:
        if name not in run.tasks and full_name(name) not in run.tasks:
            raise UsageError(f"run {run.name} has no score of {name!r}{nearest(name, list(run.tasks))}")
    wanted = {name if name in run.tasks else full_name(name) for name in names}
    return replace(run, tasks={name: scores for name, scores in run.tasks.items() if name in wanted}, failed={})


@dataclass(frozen=True)
class Gated:
    """The verdict of the gate."""

    report: gating.GateReport

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.report.candidate} against {self.report.baseline}: {self.verdict}>"

    @property
    def verdict(self) -> str:
        """pass, fail, inconclusive, not comparable or infrastructure."""
        return self.report.verdict

    @property
    def exit(self) -> int:
        """The exit status of `olmes gate`."""
        return self.report.exit

    def to_frame(self) -> pd.DataFrame:
        """A row for each task and one for the average: both scores, difference, bound, margin, verdict."""
        found = gating.as_json(self.report)
        return _frame([*found["tasks"], {**found["suite"], "task": self.report.suite.task}])

    def markdown(self) -> str:
        """The step summary that `olmes gate --summary` writes."""
        from olmes_suite.comparison.reports import gate_markdown

        return gate_markdown(self.report)


def rules(config: str | Path | Mapping[str, Any] | None, given: Mapping[str, Any]) -> Rules:
    """The rules of the configuration, with those that are given by themselves in their place."""
    found = Rules()
    if config is not None:
        found = parse_rules(config, "config") if isinstance(config, Mapping) else read_rules(Path(config))
    own = {name: value for name, value in given.items() if value is not None}
    read = parse_rules(own, "command line")
    return replace(found, **{name: getattr(read, name) for name in own})


def _frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of a report as a data frame, the ends of the interval as columns `lo` and `hi`."""
    import pandas as pd

    flat = []
    for row in rows:
        lo, hi = row.get("ci95") or (None, None)
        flat.append({name: value for name, value in row.items() if name != "ci95"} | {"lo": lo, "hi": hi})
    return pd.DataFrame(flat)
