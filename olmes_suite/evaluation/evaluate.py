"""A whole evaluation: plan, generate, score, record. The same call over an unfinished run continues it."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from olmes_suite.errors import DataError, MissingData, ModelError, OlmesError, RequestFailed, UsageError
from olmes_suite.evaluation.background_load import Ahead
from olmes_suite.evaluation.canonical_solutions import rehearse
from olmes_suite.evaluation.deferred_scoring import score_waiting
from olmes_suite.evaluation.fingerprint import fingerprint
from olmes_suite.evaluation.generate import Part, Scoring, Waiting, generate
from olmes_suite.evaluation.manifest import manifest, scorers
from olmes_suite.evaluation.plan import (
    NOT_BUILT,
    Leaf,
    Options,
    TaskPlan,
    choose,
    load_leaves,
    model_name,
    preflight,
    run_name,
)
from olmes_suite.evaluation.pool import ScorerFailed, ScoringPool
from olmes_suite.evaluation.record import FLAGS, instance_rows, results
from olmes_suite.files import RunLock, storage
from olmes_suite.models.base import Backend
from olmes_suite.records import Instance, Request
from olmes_suite.runs import ledger
from olmes_suite.runs.contamination import known
from olmes_suite.runs.schema import (
    Engine,
    Lineage,
    Manifest,
    Results,
    Time,
    instances_file,
    is_finished,
    read_manifest,
    read_results,
    write_instances,
    write_manifest,
    write_results,
)
from olmes_suite.runs.store import UNFINISHED, ResponseFile, put_in_order
from olmes_suite.scoring.tools import Tools
from olmes_suite.tasks import suites


class Watcher(Protocol):
    """What a display is told while a run goes on."""

    def note(self, text: str) -> None:
        """A line for the user."""

    def start(self, plans: Sequence[TaskPlan]) -> None:
        """The plan is made."""

    def advance(self, task: str, documents: int, tokens: int) -> None:
        """Documents were finished."""

    def stop(self) -> None:
        """The run is over."""


@dataclass(slots=True)
class Finished:
    """A run that is on disk."""

    path: Path
    results: Results
    manifest: Manifest
    plans: list[TaskPlan] = field(default_factory=list)
    old: bool = False
    """It was there already; nothing was asked."""

    @property
    def failed(self) -> list[str]:
        """Tasks that failed or lacked data."""
        return self.results.failed


class Interrupted(OlmesError):
    """Ctrl-C: what came so far is on disk."""

    exit_code = 130


@dataclass(slots=True)
class Gathered:
    """What a run has so far, by top-level task."""

    scored: dict[str, list[Instance]] = field(default_factory=dict)
    waiting: dict[str, list[Waiting]] = field(default_factory=dict)
    """Documents that other models score when the candidate is done."""
    errors: dict[str, int] = field(default_factory=dict)
    """Tasks that failed, with the number of requests that did."""
    tokens: dict[str, int] = field(default_factory=lambda: {"prompt": 0, "completion": 0})


MakeBackend = Callable[[Options, Callable[[Request], Any]], Backend]


def evaluate(options: Options, make_backend: MakeBackend, watcher: Watcher, *, early: bool = False) -> Finished:
    """Run `options`. Raises OlmesError for what the user can mend, Interrupted on Ctrl-C.

    `early`: the backend may be made in another thread, while the tasks are read.
    """
    source = options.source
    source.show_to_nltk()
    plans, chosen = choose(options)
    lineage = ledger.lineage_of(options.model, options.lineage)
    named = replace(
        options.tools, seed=options.seed, engine=options.engine, mirrors=source.mirrors, sample=source.sample
    )
    with closing(Tools(named)) as tools:
        return _evaluate(options, plans, chosen, lineage, tools, make_backend, watcher, early)


def _evaluate(
    options: Options,
    plans: list[TaskPlan],
    chosen: list[suites.Suite],
    lineage: Lineage,
    tools: Tools,
    make_backend: MakeBackend,
    watcher: Watcher,
    early: bool,
) -> Finished:
    import olmes_suite.tasks.task  # noqa: F401  # first: two threads that import the same packages wait for each other

    if early:  # `datasets` looks it up in sys.modules, where what the other thread has half imported lacks its names
        import transformers  # noqa: F401

    loading = Ahead(lambda: make_backend(options, _gold_answers(plans)), early)
    for plan in plans:
        if plan.error is None:
            load_leaves(plan, options)
            preflight(plan, tools)
            rehearse(plan, tools, watcher.note)
            for line in (line for leaf in plan.leaves for line in leaf.task.notes()):
                watcher.note(line)
        if plan.error is not None and plan.error != NOT_BUILT:
            watcher.note(f"{plan.name}: {plan.error}")
    if "sandbox" in tools.made:
        watcher.note(f"sandbox: {tools.made['sandbox'].rung}")
    backend = loading.get()
    for note in [*tools.notes(), *backend.notes()]:
        watcher.note(note)
    for leaf in (leaf for plan in plans for leaf in plan.leaves):
        leaf.fingerprint = fingerprint(leaf, backend.chat, tools)
    name = run_name(options, plans, backend.fingerprint)
    name, before = _free_name(options.runs, name, options.again)
    if before is not None and is_finished(before) and not options.again:
        found = Finished(before, read_results(before), read_manifest(before), plans, old=True)
        if not _worth_retrying(found):
            return found
    folder = options.runs / UNFINISHED / name
    with RunLock(folder.with_name(f"{name}.lock")):
        if (options.runs / name).exists():
            raise UsageError(f"run {name} was finished by another process in the meantime; repeat the command")
        if before is not None and not options.again and not folder.exists():
            with storage(folder):
                shutil.copytree(before / "responses", folder / "responses")
        return _run(name, folder, options, plans, chosen, backend, tools, lineage, watcher)


def _worth_retrying(found: Finished) -> bool:
    """A run whose requests failed is taken up again: what was answered is not asked twice."""
    return any(task.flags.get("request_errors") for task in found.results.tasks.values() if task.failed)


def _free_name(runs: Path, name: str, again: bool) -> tuple[str, Path | None]:
    """The first of name, name-2, … that is no finished run, and the finished one before it."""
    number, current, before = 1, name, None
    while (runs / current).exists():
        before = runs / current
        number += 1
        current = f"{name}-{number}"
    return current, before


def _gold_answers(plans: Sequence[TaskPlan]) -> Callable[[Request], Any]:
    leaves: dict[str, Leaf] = {}
    positions: dict[str, dict[int, int]] = {}

    def answer(request: Request) -> Any:
        """The gold response, or the log-likelihood of the request's choice; None where the task has no gold."""
        if not leaves:  # the plans were empty when the backend was made
            leaves.update((leaf.name, leaf) for plan in plans for leaf in plan.leaves)
        leaf = leaves[request.task]
        gold = leaf.task.keys.gold
        rows = positions.setdefault(request.task, leaf.positions())
        found = gold(leaf.task.task_docs[rows[request.doc_id]]) if gold else None
        return found[request.index] if isinstance(found, list) else found

    return answer


def _run(
    name: str,
    folder: Path,
    options: Options,
    plans: list[TaskPlan],
    chosen: list[suites.Suite],
    backend: Backend,
    tools: Tools,
    lineage: Lineage,
    watcher: Watcher,
) -> Finished:
    started, processor = time.time(), time.process_time()
    got = Gathered()
    scored = got.scored
    watcher.start(plans)
    try:
        with ScoringPool(tools=tools) as pool, _gentle_interrupt(backend, watcher):
            asked = [plan for plan in plans if plan.error is None]
            for group in [asked] if backend.together and asked else [[plan] for plan in asked]:
                _tasks(group, folder, options, backend, pool, got, watcher)
        engine = Engine.of(backend.name, backend.chat, backend.settings(), backend.fingerprint)
        backend.close()
        _deferred_tasks(plans, tools, got, watcher)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the answers so far are in {folder}: repeat the same command to go on"
        ) from None
    finally:
        watcher.stop()
    found = known(lineage)
    outcome = results(name, model_name(options), plans, scored, chosen, found)
    failed = {
        task: outcome.tasks[task].but(flags={**dict.fromkeys(FLAGS, 0), "request_errors": count})
        for task, count in got.errors.items()
    }
    outcome = outcome.but(tasks={**outcome.tasks, **failed})
    for plan in plans:
        if plan.error is None:
            rows = instance_rows(scored[plan.name], plan.primary, found)
            write_instances(instances_file(folder, plan.name), rows)
    record = manifest(name, options, plans, engine, lineage, tools).but(
        suite_tasks={suite.name: tuple(entry.task for entry in suite.tasks) for suite in chosen},
        judge=scorers(tools),
        time=Time(
            started=started,
            seconds=time.time() - started,
            processor_seconds=time.process_time() - processor,
        ),
        tokens=got.tokens,
    )
    write_results(folder, outcome)
    write_manifest(folder, record)
    if backend.name not in ledger.NO_LOOK and not options.source.sample:
        looked = [(plan.name, plan.documents) for plan in plans if plan.error is None]
        ledger.record_look(
            options.runs, ledger.lineage_name(lineage, model_name(options)), name, looked, options.command
        )
    with storage(options.runs / name):
        os.replace(folder, options.runs / name)
    return Finished(options.runs / name, outcome, record, plans)


def _tasks(
    plans: Sequence[TaskPlan],
    folder: Path,
    options: Options,
    backend: Backend,
    pool: ScoringPool,
    got: Gathered,
    watcher: Watcher,
) -> None:
    """Ask and score tasks together. Where that fails, go on with each by itself, so that only one is marked failed."""
    files = {plan.name: folder / "responses" / f"{plan.name}.jsonl" for plan in plans}
    with ExitStack() as stack:
        parts = [Part(plan, stack.enter_context(ResponseFile(files[plan.name])), Scoring(pool)) for plan in plans]
        try:
            generate(parts, backend, options.seed, watcher.advance)
            pool.join()
            failure = None
        except (RequestFailed, ScorerFailed, MissingData) as error:
            pool.forget()
            failure = error
    if failure is not None:
        if len(plans) == 1:
            _failed(plans[0], failure, got, watcher)
            return
        for plan in plans:
            _tasks([plan], folder, options, backend, pool, got, watcher)
        return
    for part in parts:
        name = part.plan.name
        got.scored[name] = part.plan.in_order(part.scoring.instances.values())
        got.waiting[name] = part.scoring.waiting
        prompt, completion = put_in_order(files[name], part.plan.rank())
        got.tokens["prompt"] += prompt
        got.tokens["completion"] += completion


def _deferred_tasks(plans: Sequence[TaskPlan], tools: Tools, got: Gathered, watcher: Watcher) -> None:
    for plan in plans:
        if plan.error is None and got.waiting.get(plan.name):
            _deferred_task(plan, tools, got, watcher)
    for need, used in (tools.record() or {}).items():
        if used.get("truncated"):
            watcher.note(f"{need}: {used['truncated']} questions did not fit its context and were cut on the left")


def _deferred_task(plan: TaskPlan, tools: Tools, got: Gathered, watcher: Watcher) -> None:
    watcher.note(f"{plan.name}: scoring {len(got.waiting[plan.name])} documents with other models")
    tools.tell(lambda line: watcher.note(f"{plan.name}: {line}"))
    try:
        judged = score_waiting(got.waiting.pop(plan.name), tools)
    except (RequestFailed, ScorerFailed, MissingData, ModelError, DataError, UsageError) as error:
        _failed(plan, error, got, watcher)
        return
    got.scored[plan.name] = plan.in_order([*got.scored[plan.name], *judged])


def _failed(plan: TaskPlan, error: OlmesError, got: Gathered, watcher: Watcher) -> None:
    plan.error = str(error)
    got.errors[plan.name] = 1 if isinstance(error, RequestFailed) else 0
    watcher.note(f"{plan.name}: {error}")


@contextmanager
def _gentle_interrupt(backend: Backend, watcher: Watcher) -> Iterator[None]:
    """The first Ctrl-C lets the batch in hand finish, the second stops at once."""

    def handle(number: int, frame: object) -> None:
        if backend.stop_requested:
            raise KeyboardInterrupt
        backend.stop_requested = True
        watcher.note("stopping after the batch in hand; press Ctrl-C again to stop at once")

    try:
        previous = signal.signal(signal.SIGINT, handle)
    except ValueError:  # not the main thread: the caller deals with signals
        with nullcontext():
            yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
