"""The floor: what constant, degenerate answers score. Measured, kept in the run store, and shown beside every score.

Each answer of `olmes_suite.models.without_model.floor` is an ordinary run under RUNS/.floor/ANSWER; the best of them
for each task makes the run that the user sees, and RUNS/floors.json holds every task's floor for the runs to come.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmes_suite.evaluation.evaluate import Finished, MakeBackend, Watcher, evaluate
from olmes_suite.evaluation.plan import Options
from olmes_suite.evaluation.record import suite_result
from olmes_suite.files import RunLock, storage, write_json
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
    """Run every degenerate answer and combine the best. Raises what `evaluation.evaluate.evaluate` raises."""
    found: dict[str, Finished] = {}
    for answer in ANSWERS:
        part = replace(
            options, runs=options.runs / _PARTS / answer, engine={**options.engine, "answer": answer}, again=False
        )
        watcher = make_watcher() if not found else _Noteless(make_watcher())
        found[answer] = evaluate(part, make_backend, watcher)
    name = _name(found)
    outcome = combined(name, {answer: one.results for answer, one in found.items()})
    with RunLock(options.runs / UNFINISHED / f"{name}.lock"):
        old = is_finished(options.runs / name) and not options.again
        record = _write(options.runs, name, outcome, found)
        keep(options.runs, outcome, options)
    return Finished(options.runs / name, outcome, record, found["word"].plans, old=old)


def _name(found: Mapping[str, Finished]) -> str:
    """The runs' common name with a hash over all of them."""
    names = [one.path.name for one in found.values()]
    return f"{re.sub(r'-[0-9a-f]{8}(-[0-9]+)?$', '', names[0])}-{sha256(canonical_json(names))[:8]}"


def combined(name: str, outcomes: Mapping[str, Results]) -> Results:
    """One results.json from those of the answers: each task has its best answer's entry, a sub-task its group's."""
    first = next(iter(outcomes.values()))
    groups = {part: group for group, entry in first.tasks.items() for part in entry.subtasks or ()}
    tasks: dict[str, TaskResult] = {}
    for task in first.tasks:
        scores = {answer: _value(outcome.tasks.get(groups.get(task, task))) for answer, outcome in outcomes.items()}
        best = max(scores, key=lambda answer: -1.0 if scores[answer] is None else float(scores[answer] or 0.0))
        entry = outcomes[best].tasks.get(task, first.tasks[task])
        own = {answer: _value(outcome.tasks.get(task)) for answer, outcome in outcomes.items()}
        tasks[task] = entry.but(floor=FloorScore(answer=best, value=own[best], scores=own))
    averages = {
        suite: suite_result([entry.task for entry in suites.load(suite).tasks], tasks) for suite in first.suites
    }
    return Results(run=name, model="floor", tasks=tasks, suites=averages)


def _value(entry: TaskResult | None) -> float | None:
    """An entry's primary score; None where it has none."""
    return entry.score.value if entry is not None and entry.score is not None else None


def _write(runs: Path, name: str, outcome: Results, found: Mapping[str, Finished]) -> Manifest:
    """The run's folder: each task's documents and responses are those of its best answer. Returns the manifest."""
    parts = {answer: str(one.path.relative_to(runs)) for answer, one in found.items()}
    record = found["word"].manifest.but(run=name, floor=parts)
    folder = runs / UNFINISHED / name
    with storage(folder):
        shutil.rmtree(folder, ignore_errors=True)
        for plan in record.plan:
            floor = outcome.tasks[plan.task].floor
            assert floor is not None
            best = found[floor.answer].path
            for part in (instances_file(Path(), plan.task), Path("responses") / f"{plan.task}.jsonl"):
                if (best / part).is_file():
                    (folder / part).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(best / part, folder / part)
        write_results(folder, outcome)
        write_manifest(folder, record)
        shutil.rmtree(runs / name, ignore_errors=True)
        os.replace(folder, runs / name)
    return record


class _Noteless:
    """Shows the progress of a watcher, without what the first run has said already."""

    def __init__(self, inner: Watcher) -> None:
        self.start, self.advance, self.stop = inner.start, inner.advance, inner.stop

    def note(self, text: str) -> None:
        """Said before."""


def keep(runs: Path, outcome: Results, options: Options) -> None:
    """Enter the floors of a run into RUNS/floors.json: {"schema", "floors": {task: [entry, …]}}.

    An entry is {"identity", "limit", "seed", "answer", "value", "scores", "run"}; a new one takes the place of the one
    with the same identity, limit and seed.
    """
    known = floors(runs)
    for task, entry in outcome.tasks.items():
        if entry.floor is None or entry.floor.value is None:
            continue
        fresh = {"identity": identity(task, outcome), "limit": options.limit, "seed": options.seed}
        kept = [old for old in known.get(task, ()) if any(old[part] != fresh[part] for part in fresh)]
        known[task] = [*kept, {**fresh, **entry.floor.as_json(), "run": outcome.run}]
    write_json(runs / FLOORS, {"schema": SCHEMA, "floors": known})


def beside(finished: Finished) -> dict[str, dict[str, Any]]:
    """Task to its floor, for the tasks of a run whose floor was measured on the same data and with the same scorer.

    The floor of the same documents (limit and seed) goes before that of all documents; others do not count.
    """
    known = floors(finished.path.parent)
    limit, seed = finished.manifest.limit, finished.manifest.seed
    out: dict[str, dict[str, Any]] = {}
    for task, entry in finished.results.tasks.items():
        if entry.failed or task not in known:
            continue
        same = [floor for floor in known[task] if floor["identity"] == identity(task, finished.results)]
        whole = [floor for floor in same if floor["limit"] is None]
        exact = whole if limit is None else [f for f in same if (f["limit"], f["seed"]) == (limit, seed)]
        if chosen := (exact or whole):
            out[task] = {"answer": chosen[-1]["answer"], "value": chosen[-1]["value"]}
    return out
