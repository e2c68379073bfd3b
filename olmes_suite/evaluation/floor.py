"""The floor: the scores of constant, degenerate answers, stored in the run store and shown beside other scores.

Each answer of `olmes_suite.models.without_model.floor` is an ordinary run under RUNS/.floor/ANSWER. A combined run
takes the best answer for each task, and RUNS/floors.json stores the floor of each task for later runs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmes_suite.evaluation.asking import Watcher
from olmes_suite.evaluation.evaluate import Finished, MakeBackend, evaluate
from olmes_suite.evaluation.plan import Options
from olmes_suite.evaluation.record import suite_result
from olmes_suite.files import RunLock, changing, storage, write_json
from olmes_suite.models.without_model.floor import ANSWERS
from olmes_suite.records import canonical_json, sha256
from olmes_suite.runs.floors import FLOORS, floors, identity
from olmes_suite.runs.schema import (
    SCHEMA,
    FloorScore,
    Manifest,
    Results,
    TaskResult,
    instances_file,
    is_finished,
    write_manifest,
    write_results,
)
from olmes_suite.runs.store import UNFINISHED
from olmes_suite.tasks import suites

_PARTS = ".floor"


def measure(options: Options, make_backend: MakeBackend, make_watcher: Callable[[], Watcher]) -> Finished:
    """Run every degenerate answer and combine the best ones. Raises what `evaluation.evaluate.evaluate` raises."""
    runs_by_answer: dict[str, Finished] = {}
    for answer in ANSWERS:
        answer_options = replace(
            options, runs=options.runs / _PARTS / answer, engine={**options.engine, "answer": answer}, again=False
        )
        watcher = make_watcher() if not runs_by_answer else _WithoutNotes(make_watcher())
        runs_by_answer[answer] = evaluate(answer_options, make_backend, watcher)
    name = _name(runs_by_answer)
    outcomes = {answer: finished.results for answer, finished in runs_by_answer.items()}
    outcome = combined(name, outcomes, [suites.load(suite) for suite in options.suite_names])
    with RunLock(options.runs / UNFINISHED / f"{name}.lock"):
        old = is_finished(options.runs / name) and not options.again
        record = _write(options.runs, name, outcome, runs_by_answer)
        keep(options.runs, outcome, options)
    return Finished(options.runs / name, outcome, record, runs_by_answer["word"].plans, old=old)


def _name(runs_by_answer: Mapping[str, Finished]) -> str:
    """Build the name of the combined run: the common name of the runs and a hash over all names."""
    names = [finished.path.name for finished in runs_by_answer.values()]
    return f"{re.sub(r'-[0-9a-f]{8}(-[0-9]+)?$', '', names[0])}-{sha256(canonical_json(names))[:8]}"


def combined(name: str, outcomes: Mapping[str, Results], chosen: Sequence[suites.Suite] = ()) -> Results:
    """Combine the results of the answers: a task has the entry of its best answer, a sub-task that of its group's."""
    first = next(iter(outcomes.values()))
    groups = {part: group for group, entry in first.tasks.items() for part in entry.subtasks or ()}
    tasks: dict[str, TaskResult] = {}
    for task in first.tasks:
        scores = {answer: _value(outcome.tasks.get(groups.get(task, task))) for answer, outcome in outcomes.items()}
        best = max(scores, key=lambda answer: -1.0 if scores[answer] is None else float(scores[answer] or 0.0))
        entry = outcomes[best].tasks.get(task, first.tasks[task])
        task_scores = {answer: _value(outcome.tasks.get(task)) for answer, outcome in outcomes.items()}
        tasks[task] = entry.but(floor=FloorScore(answer=best, value=task_scores[best], scores=task_scores))
    averages = {suite.name: suite_result([entry.task for entry in suite.tasks], tasks) for suite in chosen}
    return Results(run=name, model="floor", tasks=tasks, suites=averages)


def _value(entry: TaskResult | None) -> float | None:
    """Return an entry's primary score; None if it has no score."""
    return entry.score.value if entry is not None and entry.score is not None else None


def _write(runs: Path, name: str, outcome: Results, runs_by_answer: Mapping[str, Finished]) -> Manifest:
    """Write the run's folder, with the documents and responses of each task's best answer; returns the manifest."""
    parts = {answer: str(finished.path.relative_to(runs)) for answer, finished in runs_by_answer.items()}
    record = runs_by_answer["word"].manifest.but(run=name, floor=parts)
    folder = runs / UNFINISHED / name
    with storage(folder):
        shutil.rmtree(folder, ignore_errors=True)
        for plan in record.plan:
            floor = outcome.tasks[plan.task].floor
            assert floor is not None
            best = runs_by_answer[floor.answer].path
            for part in (instances_file(Path(), plan.task), Path("responses") / f"{plan.task}.jsonl"):
                if (best / part).is_file():
                    (folder / part).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(best / part, folder / part)
        write_results(folder, outcome)
        write_manifest(folder, record)
        shutil.rmtree(runs / name, ignore_errors=True)
        os.replace(folder, runs / name)
    return record


class _WithoutNotes:
    """Passes progress to a watcher but drops the notes, which the first run has already shown."""

    def __init__(self, inner: Watcher) -> None:
        self.start, self.advance, self.stop = inner.start, inner.advance, inner.stop

    def note(self, text: str) -> None:
        """Drop a note."""


def keep(runs: Path, outcome: Results, options: Options) -> None:
    """Add the floors of a run to RUNS/floors.json: {"schema", "floors": {task: [entry, …]}}.

    An entry is {"identity", "limit", "seed", "answer", "value", "scores", "run"}; a new entry replaces the one with the
    same identity, limit and seed.
    """
    with changing(runs / FLOORS):
        entries = floors(runs)
        for task, entry in outcome.tasks.items():
            if entry.floor is None or entry.floor.value is None:
                continue
            key = {"identity": identity(task, outcome), "limit": options.limit, "seed": options.seed}
            others = [old for old in entries.get(task, ()) if any(old[part] != key[part] for part in key)]
            entries[task] = [*others, {**key, **entry.floor.as_json(), "run": outcome.run}]
        write_json(runs / FLOORS, {"schema": SCHEMA, "floors": entries})


def beside(finished: Finished) -> dict[str, dict[str, Any]]:
    """Return the floors of a run's tasks, as far as they were measured on the same data with the same scorer.

    A floor of the same documents (limit and seed) is preferred to one of all documents; others are ignored.
    """
    entries = floors(finished.path.parent)
    limit, seed = finished.manifest.limit, finished.manifest.seed
    chosen_floors: dict[str, dict[str, Any]] = {}
    for task, entry in finished.results.tasks.items():
        if entry.failed or task not in entries:
            continue
        matching = [floor for floor in entries[task] if floor["identity"] == identity(task, finished.results)]
        whole = [floor for floor in matching if floor["limit"] is None]
        exact = whole if limit is None else [f for f in matching if (f["limit"], f["seed"]) == (limit, seed)]
        if chosen := (exact or whole):
            chosen_floors[task] = {"answer": chosen[-1]["answer"], "value": chosen[-1]["value"]}
    return chosen_floors
