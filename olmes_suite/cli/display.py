"""Terminal output: progress during a run, and the table of scores at its end."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from olmes_suite.cli.time_left import TimeLeft, duration
from olmes_suite.evaluation.evaluate import Finished
from olmes_suite.evaluation.floor import beside
from olmes_suite.evaluation.plan import NOT_BUILT, TaskPlan
from olmes_suite.runs.ledger import NO_LOOK
from olmes_suite.runs.schema import ENDINGS, Manifest, Metric, Projected, Results, TaskResult
from olmes_suite.tasks import index
from olmes_suite.tasks.index import PREFIX
from olmes_suite.wording import count, tokens

_PLAIN_SECONDS = 10.0
_ALL = ""
"""Stands for the bar of all tasks among those of the tasks."""


class PlainWatcher:
    """Prints plain lines to stderr, for logs."""

    def __init__(self) -> None:
        self._total: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._left = TimeLeft(0)
        self._last_line = time.monotonic()

    def note(self, text: str) -> None:
        """Print a note."""
        print(f"note: {text}", file=sys.stderr, flush=True)

    def start(self, plans: Sequence[TaskPlan]) -> None:
        """Begin showing the progress of these tasks."""
        self._total = {plan.name: plan.documents for plan in plans if plan.error is None}
        self._left = TimeLeft(sum(self._total.values()))
        print(
            f"{count(len(self._total), 'task')}, {count(sum(self._total.values()), 'document')}",
            file=sys.stderr,
            flush=True,
        )

    def advance(self, task: str, documents: int, tokens: int) -> None:
        """Count finished documents and generated tokens."""
        self._done[task] = self._done.get(task, 0) + documents
        self._left.advance(documents)
        finished = self._done[task] == self._total.get(task) and documents
        if finished or time.monotonic() - self._last_line > _PLAIN_SECONDS:
            self._last_line = time.monotonic()
            seconds = self._left.seconds
            left = "" if seconds is None else f"; about {duration(seconds)} left"
            of = self._total.get(task, 0)
            print(f"{task}: {self._done[task]} of {of} documents{left}", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """End the display."""


class RichWatcher:
    """Shows progress on a terminal: tasks, documents, tokens per second, time left."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description:<26.26}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]:>11}"),
            TimeRemainingColumn(),
            console=self.console,
        )
        self._ids: dict[str, Any] = {}
        self._tokens: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def note(self, text: str) -> None:
        """Print a note."""
        self.console.print(f"note: {text}", style="yellow", markup=False, highlight=False)

    def start(self, plans: Sequence[TaskPlan]) -> None:
        """Begin showing the progress of these tasks."""
        for plan in plans:
            if plan.error is None:
                label = plan.name.removeprefix(PREFIX)
                self._ids[plan.name] = self.progress.add_task(label, total=plan.documents, rate="", start=False)
        if len(self._ids) > 1:
            total = sum(plan.documents for plan in plans if plan.error is None)
            self._ids[_ALL] = self.progress.add_task("all tasks", total=total, rate="", start=False)
        self.progress.start()

    def advance(self, task: str, documents: int, tokens: int) -> None:
        """Count finished documents and generated tokens."""
        if not self._since and _ALL in self._ids:
            self.progress.start_task(self._ids[_ALL])
        if task not in self._since:
            self._since[task] = time.monotonic()
            self.progress.start_task(self._ids[task])
        if _ALL in self._ids:
            self.progress.update(self._ids[_ALL], advance=documents)
        self._tokens[task] = self._tokens.get(task, 0) + tokens
        rate = self._tokens[task] / max(time.monotonic() - self._since[task], 0.1)
        self.progress.update(self._ids[task], advance=documents, rate=f"{rate:,.0f} tok/s" if tokens else "")

    def stop(self) -> None:
        """End the display."""
        self.progress.stop()


def watcher() -> PlainWatcher | RichWatcher:
    """Return a progress bar on a terminal, a printer of plain lines elsewhere."""
    return RichWatcher() if sys.stderr.isatty() else PlainWatcher()


def points(metric: Metric | None) -> tuple[str, str]:
    """Format a score and its 95 % interval in points."""
    if metric is None or metric.value is None:
        return "–", ""
    low_high = metric.ci95
    if metric.value > 2:  # a length in characters, not a fraction
        return f"{metric.value:.0f}", f"{low_high[0]:.0f} – {low_high[1]:.0f}" if low_high else ""
    return f"{100 * metric.value:.1f}", f"{100 * low_high[0]:.1f} – {100 * low_high[1]:.1f}" if low_high else ""


def print_results(finished: Finished, command: Sequence[str]) -> None:
    """Print the scores by skill, the suite averages, the warnings, and the folder of the run."""
    from rich.console import Console

    console = Console(highlight=False)
    outcome, record = finished.results, finished.manifest
    console.print(f"[bold]{outcome.model}[/bold] · {outcome.run}", markup=True, soft_wrap=True)
    floors = beside(finished)
    console.print(_table(outcome, record, floors))
    if record.engine.backend not in NO_LOOK and any(outcome.tasks[plan.task].tokens for plan in record.plan):
        console.print()
        console.print(cost_table({plan.task: outcome.tasks[plan.task] for plan in record.plan}))
        for line in _COST_NOTE:
            console.print(line, style="dim")
    if projected := projections(outcome, record):
        console.print()
        console.print(projected)
    for line in warnings(outcome, record):
        console.print(f"! {line}", markup=False)
    print(f"run     {finished.path}")
    if not floors and not record.imported and record.engine.backend not in NO_LOOK:
        print("floor   not measured for these tasks: the same command with --backend floor gives it")
    print(f"repeat  {shlex.join(command)}")


def _table(outcome: Results, record: Manifest, floors: Mapping[str, Any]) -> Any:
    """Build the table of scores by skill; `floors` (see `olmes_suite.evaluation.floor.beside`) add a column."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("task", no_wrap=True)
    table.add_column("metric", no_wrap=True)
    for heading in ("n", "score", "95 % interval"):
        table.add_column(heading, justify="right", no_wrap=True)
    if floors:
        table.add_column("floor", justify="right", no_wrap=True)
    flagged = any(task.flagged for task in outcome.tasks.values())
    if flagged:
        table.add_column("clean (out)", justify="right", no_wrap=True)
    last = None
    for plan in sorted(record.plan, key=lambda plan: str(plan.skill)):
        task = outcome.tasks[plan.task]
        score, bounds = points(task.score)
        if plan.skill != last:
            table.add_row(f"[dim]{plan.skill}[/dim]")
            last = plan.skill
        floor = floors.get(plan.task)
        table.add_row(
            "  " + plan.task.removeprefix(PREFIX),
            task.primary,
            "–" if task.failed else str(task.n),
            "missing" if task.failed else score,
            bounds,
            *((f"{100 * floor['value']:.1f}" if floor else "–",) if floors else ()),
            *((_clean(task),) if flagged else ()),
        )
    for name, suite in outcome.suites.items():
        score, bounds = points(suite)
        table.add_row(f"[bold]{name} average[/bold]", "", "", f"[bold]{score}[/bold]", bounds)
    return table


def projections(outcome: Results, record: Manifest) -> Any:
    """Build the table of scores projected to all documents; None without any."""
    from rich.table import Table

    rows: list[tuple[str, Projected]] = [
        (plan.task.removeprefix(PREFIX), found)
        for plan in record.plan
        if (found := outcome.tasks[plan.task].projected) is not None
    ]
    rows += [(f"{name} average", suite.projected) for name, suite in outcome.suites.items() if suite.projected]
    if not rows:
        return None
    table = Table(box=None, pad_edge=False)
    for number, heading in enumerate(("projected to all documents", "asked", "of", "score", "95 % interval")):
        table.add_column(heading, justify="right" if number else "left", no_wrap=True)
    for name, found in rows:
        score, bounds = points(Metric(value=found.value, ci95=found.ci95))
        table.add_row(f"  {name}", f"{found.n:,}", f"{found.of:,}", score, bounds)
    table.add_row(f"[dim]from all documents of {rows[0][1].baseline}[/dim]")
    return table


_COST_NOTE = (
    "tokens: mean per answer; limit: answers cut at the token limit;",
    "completed: score of the others; right/M: correct answers per million tokens",
)


def cost_table(tasks: Mapping[str, TaskResult]) -> Any:
    """Build the table of what the answers took and how they ended; columns about thoughts only if there are any."""
    from rich.table import Table

    thoughts = any((task.tokens and task.tokens.thinking) or _count(task, "unclosed") for task in tasks.values())
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("task", no_wrap=True, max_width=22)
    names = ["tokens", "thought", "limit", "unclosed", "empty", "completed", "right/M"]
    hidden = set() if thoughts else {"thought", "unclosed"}
    for name in names:
        if name not in hidden:
            table.add_column(name, justify="right", no_wrap=True)
    for task, result in tasks.items():
        if result.tokens is None:
            continue
        rate = result.correct_per_million_tokens
        cells = {
            "tokens": tokens(result.tokens.total),
            "thought": tokens(result.tokens.thinking),
            **{name.replace("length", "limit"): _share(result, name) for name in ENDINGS},
            "completed": points(result.completed)[0],
            "right/M": "–" if rate is None else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}",
        }
        table.add_row("  " + task.removeprefix(PREFIX), *(cells[name] for name in names if name not in hidden))
    return table


def _count(task: TaskResult, ending: str) -> int:
    return getattr(task.answers, ending) if task.answers is not None else 0


def _share(task: TaskResult, ending: str) -> str:
    return "–" if task.answers is None else f"{100 * task.answers.share(ending):.1f} %"


def _clean(task: TaskResult) -> str:
    """Format the score without contaminated documents, and the number of contaminated documents."""
    clean = task.clean
    return f"{points(clean.metrics.get(task.primary))[0]} ({clean.flagged})" if clean is not None else ""


FLAG_WORDS = {
    "truncated": "prompts did not fit the context and were cut",
    "length": "answers ended at the token limit",
    "unclosed": "answers ended inside a thought",
    "empty": "answers were empty",
    "extraction_failed": "answers contained nothing that the scorer could extract",
    "scorer_timeout": "answers could not be checked in time (scored 0)",
    "tests_dropped": "documents have tests that do not decode (only the others were run)",
    "sandbox_error": "documents have programs that could not be run (those samples have no score)",
    "judge_unparsed": "documents have a judge's answer that could not be read",
    "checker_error": "answers raised an error in a checker (that constraint counts as not followed)",
}
"""Flag of a document to what is counted, as it stands behind `3 of 100`."""


def warnings(outcome: Results, record: Manifest) -> list[str]:
    """List what a reader of the scores must know."""
    lines = []
    if record.sample:
        lines.append("sample documents: these numbers say nothing about the model")
    unavailable = []
    for plan in record.plan:
        task, name = outcome.tasks[plan.task], plan.task.removeprefix(PREFIX)
        if task.error == NOT_BUILT:
            unavailable.append(name)
        lines += _task_warnings(name, task)
        if task.error is None:
            judge = (record.judge or {}).get("judge")
            lines += [f"{name}: {line}" for line in index.remarks(plan.task, judge.model if judge else None)]
    if unavailable:
        lines.append(f"{NOT_BUILT}: {', '.join(unavailable)}")
    for name, suite in outcome.suites.items():
        if suite.missing:
            verb = "has" if len(suite.missing) == 1 else "have"
            lines.append(f"{name}: no average while {len(suite.missing)} of its tasks {verb} no score")
    lines += _without_interval(outcome, record)
    if record.limit or record.max_documents:
        lines.append(limited_line(outcome, record))
    if (stopped := outcome.stopped) is not None:
        lines.append(
            f"stopped early after {count(len(stopped.looks), 'look')}: {stopped.verdict} against {stopped.baseline}"
        )
    if record.planned is not None:
        lines.append(planned_line(outcome, record))
    return lines


def _without_interval(outcome: Results, record: Manifest) -> list[str]:
    """Say why scores have no interval, in a line for each reason."""
    names: dict[str, list[str]] = {}
    for plan in record.plan:
        task = outcome.tasks[plan.task]
        if task.score is not None and task.score.value is not None and task.score.ci95 is None:
            shared = record.sample and task.subtasks
            why = "sub-tasks share sample documents" if shared else "too few documents"
            names.setdefault(why, []).append(plan.task.removeprefix(PREFIX))
    return [f"{', '.join(tasks)}: no interval ({why})" for why, tasks in names.items()]


def _task_warnings(name: str, task: TaskResult) -> list[str]:
    if task.error is not None:
        return [f"{name}: {task.error}"] if task.error != NOT_BUILT else []
    lines = []
    if task.flagged:
        verb = "is" if task.flagged == 1 else "are"
        lines.append(f"{name}: {task.flagged} of {task.n} documents {verb} in the training data")
    for reason, rows in (task.left_out or {}).items():
        lines.append(f"{name}: rows left out because no scorer is available for {reason}: {rows}")
    for flag, words in FLAG_WORDS.items():
        if task.flags.get(flag):
            number, of = task.flags[flag], task.n
            if task.answers is not None and task.answers.n > task.n and flag in ENDINGS:  # each sample is an answer
                number, of = _count(task, flag), task.answers.n
            lines.append(f"{name}: {number} of {of} {words}")
    if task.samples_sd is not None:
        sd = f"{100 * task.samples_sd:.1f}"
        lines.append(f"{name}: {task.samples} samples of each document; run-to-run s.d. of one {sd} points")
    return lines


def planned_line(outcome: Results, record: Manifest) -> str:
    """Say how many documents a planned run asked, and for what."""
    leaves = [entry for plan in record.plan for entry in outcome.leaves(plan.task)]
    asked, of = sum(entry.n for entry in leaves), sum(entry.of or entry.n for entry in leaves)
    purpose = f" ({record.planned.purpose})" if record.planned is not None and record.planned.purpose else ""
    option = "--plan" if outcome.stopped is None else "--until-decided"
    return f"planned{purpose}: {asked:,} of {of:,} documents; the same command without {option} asks the others"


def _limit_words(record: Manifest) -> str:
    parts = []
    if record.limit is not None:
        share = record.limit < 1
        parts.append(f"{100 * record.limit:g} %" if share else count(int(record.limit), "document"))
        parts[-1] += " of the documents of every leaf task" if share else " of every leaf task"
    if record.max_documents is not None:
        parts.append(f"{record.max_documents:,} documents in all")
    return "limited to " + " and ".join(parts)


def limited_line(outcome: Results, record: Manifest) -> str:
    """Say which difference a limited run can detect, and which one all documents could."""
    from olmes_suite.stats import detectable_difference
    from olmes_suite.tasks.sizes import leaf_sizes

    start = _limit_words(record)
    scored = [plan.task for plan in record.plan if not outcome.tasks[plan.task].failed]
    sizes = [outcome.tasks[task].n for task in scored]
    if not sizes:
        return start
    low, high = (100 * detectable_difference(n) for n in (max(sizes), min(sizes)))
    if low > 100:
        return start + ": too few to show any difference between two models"
    span = _span(low, min(high, 100))
    full_sizes = [sum(known) for task in scored if (known := leaf_sizes(task))]
    suffix = ""
    if len(full_sizes) == len(scored):
        bounds = (min(100 * detectable_difference(n), 100) for n in (max(full_sizes), min(full_sizes)))
        suffix = f"; with all documents: {_span(*bounds)}"
    unit = "point" if span == "1" else "points"
    return (
        f"{start}: too few to detect a difference below about {span} {unit}{suffix} (80 % power, unpaired, at a score "
        "of 50)"
    )


def _span(low: float, high: float) -> str:
    """Format a range as `4` or `4 to 12`."""
    return f"{low:.0f}" if round(low) == round(high) else f"{low:.0f} to {high:.0f}"
