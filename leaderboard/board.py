"""The board of a run store: one row for each checkpoint, rows grouped by lineage, newest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from leaderboard import lineage, sweeps
from leaderboard.apart import told_apart
from leaderboard.page_data import SKILLS, Board, Cell, Column, Problem, Row, Run
from olmes_suite.runs import differences
from olmes_suite.runs.schema import NO_LINEAGE
from olmes_suite.tasks import suites

_KINDS = {"measured": 0, "imported": 1, "floor": 2, "mock": 3, "published": 4}
_ORDER = {"dev": 0, "unseen": 1, "other": 2}


def make(
    runs: Sequence[Run], problems: Sequence[Problem], ledger: Iterable[Mapping[str, Any]], published: Sequence[Row] = ()
) -> Board:
    """Make the board of a run store; `published` rows are at the end."""
    groups = checkpoints(runs)
    parents = lineage.parents(groups)
    names = sweeps.names_of(groups)
    family = lineage.families(parents, names)
    seen = lineage.looks(groups, family, ledger)
    rows = []
    for group, name, parent, root in zip(groups, names, parents, family, strict=True):
        above = groups[parent][0].name if isinstance(parent, int) else parent
        rows.append(replace(_row(group, above, root, seen.get(root, 0)), name=name))
    measured = _ordered(told_apart(sweeps.with_recipes(rows)))
    columns = _columns([*measured, *published], {task: skill for run in runs for task, skill in run.skills.items()})
    measured_tasks = {task for row in measured for task in row.cells}
    columns = tuple(column for column in columns if column.task in measured_tasks or column.suite != "other")
    shown_tasks = {column.task for column in columns}
    ordered = [*measured, *(row for row in published if row.cells.keys() & shown_tasks)]
    averages = dict.fromkeys(name for row in ordered for name in row.suites)
    average_names = sorted(averages, key=lambda name: (_ORDER.get(name, 2), name))
    return Board(tuple(ordered), columns, tuple(average_names), tuple(problems))


def checkpoints(runs: Sequence[Run]) -> list[list[Run]]:
    """Group runs by checkpoint, newest first; a run that repeats a task of a newer run starts another group."""
    groups: list[list[Run]] = []
    open_groups: dict[str, list[list[Run]]] = {}
    for run in sorted(runs, key=lambda run: (-run.started, run.name)):
        for group in open_groups.get(run.checkpoint, ()):
            if not any(run.cells.keys() & other.cells.keys() for other in group):
                group.append(run)
                break
        else:
            groups.append([run])
            open_groups.setdefault(run.checkpoint, []).append(groups[-1])
    return groups


def _row(group: Sequence[Run], parent: str | None, family: str, seen: int) -> Row:
    first = group[0]
    about = next((run.lineage for run in group if run.lineage.is_known), NO_LINEAGE)
    cells: dict[str, Cell] = {}
    averages = {}
    for run in group:
        cells.update(run.cells)
        averages.update({name: average for name, average in run.suites.items() if name not in averages})
    return Row(
        id=first.name,
        name=first.model,
        kind=first.kind,
        runs=tuple(group),
        started=first.started,
        stage=about.stage or "",
        step=about.step,
        watch=about.watch or (),
        parent=parent,
        lineage=family,
        looks=seen,
        cells=cells,
        suites=averages,
        training=lineage.training(group),
        facts=differences.facts(first.manifest),
    )


def _ordered(rows: Sequence[Row]) -> list[Row]:
    newest: dict[tuple[int, str], float] = {}
    for row in rows:
        place = _KINDS[row.kind], row.lineage
        newest[place] = max(newest.get(place, 0.0), row.started)
    return sorted(
        rows,
        key=lambda row: (
            _KINDS[row.kind],
            -newest[_KINDS[row.kind], row.lineage],
            row.lineage,
            -row.started,
            -(row.step or 0),
            row.id,
        ),
    )


def _columns(rows: Sequence[Row], recorded: Mapping[str, str]) -> tuple[Column, ...]:
    """Order the tasks by skill, within a skill dev before unseen, then as in the suites."""
    known: dict[str, Column] = {}
    place: dict[str, int] = {}
    for suite in ("dev", "unseen"):
        for entry in suites.load(suite).tasks:
            known.setdefault(entry.task, Column(entry.task, entry.skill, suite))
            place.setdefault(entry.task, len(place))
    tasks = dict.fromkeys(task for row in rows for task in row.cells)
    columns = [known.get(task) or Column(task, recorded.get(task, "other"), _suite(task)) for task in tasks]
    return tuple(
        sorted(columns, key=lambda c: (_skill_order(c.skill), _ORDER[c.suite], place.get(c.task, len(place)), c.task))
    )


def _suite(task: str) -> str:
    return "unseen" if task in suites.unseen_tasks() else "other"


def _skill_order(skill: str) -> tuple[int, str]:
    return (SKILLS.index(skill) if skill in SKILLS else len(SKILLS), skill)
