"""A whole evaluation: plan, generate, score, record. Repeating the call for an unfinished run continues the run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from olmes_suite.errors import (
    OlmesError,
    UsageError,
)
from olmes_suite.evaluation import run_names
from olmes_suite.evaluation.asking import (
    Session,
    Watcher,
    keep_asked,
    look,
    run_deferred_tasks,
    run_tasks,
)
from olmes_suite.evaluation.background_load import Ahead
from olmes_suite.evaluation.canonical_solutions import rehearse
from olmes_suite.evaluation.document_cap import cap, limit_note
from olmes_suite.evaluation.fingerprint import fingerprint
from olmes_suite.evaluation.manifest import manifest, scorers
from olmes_suite.evaluation.plan import (
    NOT_BUILT,
    Leaf,
    Options,
    TaskPlan,
    choose,
    identity_of,
    load_leaves,
    model_name,
    preflight,
)
from olmes_suite.evaluation.planned import (
    add_projections,
    answers_of_smaller_runs,
    baseline_of,
    check_comparable,
    check_data,
)
from olmes_suite.evaluation.pool import ScoringPool
from olmes_suite.evaluation.prompts import first_prompts
from olmes_suite.evaluation.record import FLAGS, instance_rows, results
from olmes_suite.evaluation.settings_checks import check_settings
from olmes_suite.evaluation.until_decided import decider_of
from olmes_suite.files import RunLock, storage
from olmes_suite.models.base import Backend
from olmes_suite.models.interrupt import gentle_interrupt
from olmes_suite.records import Request
from olmes_suite.runs import ledger
from olmes_suite.runs.contamination import Known, known
from olmes_suite.runs.schema import (
    Engine,
    Manifest,
    Prompts,
    Results,
    Time,
    instances_file,
    is_finished,
    read_manifest,
    read_results,
    write_instances,
    write_manifest,
    write_prompts,
    write_results,
)
from olmes_suite.runs.store import UNFINISHED
from olmes_suite.scoring.tools import Tools
from olmes_suite.tasks.index import PREFIX, remarks


@dataclass(slots=True)
class Finished:
    """A finished run on disk."""

    path: Path
    results: Results
    manifest: Manifest
    plans: list[TaskPlan] = field(default_factory=list)
    old: bool = False
    """The run existed already, and no request was sent."""

    @property
    def failed(self) -> list[str]:
        """Tasks that failed or lacked data."""
        return self.results.failed


class Interrupted(OlmesError):
    """The user pressed Ctrl-C; the responses so far are on disk."""

    exit_code = 130


MakeBackend = Callable[[Options, Callable[[Request], Any]], Backend]


def evaluate(options: Options, make_backend: MakeBackend, watcher: Watcher, *, early: bool = False) -> Finished:
    """Run the evaluation that `options` describe. Raises OlmesError for errors of the user, Interrupted on Ctrl-C.

    `early`: load the backend in another thread while the tasks are read.
    """
    source = options.source
    source.show_to_nltk()
    plans, chosen = choose(options)
    run_names.check(options, plans)
    baseline = baseline_of(options, plans)
    lineage = ledger.lineage_of(options.model, options.lineage)
    tool_options = replace(
        options.tools, seed=options.seed, engine=options.engine, mirrors=source.mirrors, sample=source.sample
    )
    with closing(Tools(tool_options)) as tools:
        session = Session(options, plans, chosen, lineage, tools, watcher)
        session.baseline, session.decider = baseline, decider_of(options, baseline)
        return _evaluate(session, make_backend, early=early)


def _evaluate(session: Session, make_backend: MakeBackend, *, early: bool) -> Finished:
    import olmes_suite.tasks.task  # noqa: F401  # first: two threads that import the same packages wait for each other

    if early:  # `datasets` looks transformers up in sys.modules, where a half-imported module lacks its names
        import transformers  # noqa: F401

    options, plans, tools, watcher = session.options, session.plans, session.tools, session.watcher
    loading = Ahead(lambda: make_backend(options, _gold_answers(plans)), early)
    for plan in plans:
        for remark in remarks(plan.name, options.tools.judge):
            watcher.note(f"{plan.name.removeprefix(PREFIX)}: {remark}")
        if plan.error is None:
            load_leaves(plan, options)
            preflight(plan, tools)
            rehearse(plan, tools, watcher.note)
            for line in (line for leaf in plan.leaves for line in leaf.task.notes()):
                watcher.note(line)
        if plan.error is not None and plan.error != NOT_BUILT:
            watcher.note(f"{plan.name}: {plan.error}")
    cap(plans, options)
    if (said := limit_note(plans, options)) is not None:
        watcher.note(said)
    check_data(plans, options, session.baseline)
    if session.decider is not None:
        session.decider.check(plans)
        for line in session.decider.notes:
            watcher.note(line)
    check_settings(plans, options, watcher.note)
    if "sandbox" in tools.made:
        watcher.note(f"sandbox: {tools.made['sandbox'].rung}")
    backend = loading.get()
    options.settings.check_context(backend.max_length)
    options.settings.check_template(backend.unused_arguments)
    session.said = [*tools.notes(), *backend.notes()]
    for note in session.said:
        watcher.note(note)
    for leaf in (leaf for plan in plans for leaf in plan.leaves):
        leaf.fingerprint = fingerprint(leaf, backend.chat, tools, options.unclosed)
    if session.baseline is not None:
        check_comparable(plans, session.baseline)
    name, previous, unfinished = run_names.free_name(options, plans, backend.fingerprint)
    if previous is not None and is_finished(previous) and not options.again:
        finished = Finished(previous, read_results(previous), read_manifest(previous), plans, old=True)
        if not _has_request_errors(finished):
            return _projected(session, finished)
    folder = options.runs / UNFINISHED / unfinished
    with RunLock(folder.with_name(f"{unfinished}.lock")):
        if (options.runs / name).exists():
            raise UsageError(f"run {name} was finished by another process; repeat the command")
        if previous is not None and not options.again and not folder.exists():
            with storage(folder):
                shutil.copytree(previous / "responses", folder / "responses")
        elif not options.again and not folder.exists():
            found = answers_of_smaller_runs(options, plans, backend.fingerprint, folder)
            if found:
                watcher.note(f"answers of planned runs are used for {found} {'task' if found == 1 else 'tasks'}")
        return _run(session, name, folder, backend)


def _has_request_errors(finished: Finished) -> bool:
    """Tell whether requests of the run failed: such a run is resumed with its recorded responses."""
    return any(task.flags.get("request_errors") for task in finished.results.tasks.values() if task.failed)


def _gold_answers(plans: Sequence[TaskPlan]) -> Callable[[Request], Any]:
    leaves: dict[str, Leaf] = {}
    positions: dict[str, dict[int, int]] = {}

    def answer(request: Request) -> Any:
        """Return the gold response, or the log-likelihood of the request's choice; None if the task has no gold."""
        if not leaves:  # filled here, because the plans have no leaves when the backend is built
            leaves.update((leaf.name, leaf) for plan in plans for leaf in plan.leaves)
        leaf = leaves[request.task]
        gold = leaf.task.keys.gold
        rows = positions.setdefault(request.task, leaf.positions())
        answers = gold(leaf.task.task_docs[rows[request.doc_id]]) if gold else None
        return answers[request.index] if isinstance(answers, list) else answers

    return answer


def _run(session: Session, name: str, folder: Path, backend: Backend) -> Finished:
    options, plans, gathered = session.options, session.plans, session.gathered
    started, processor = time.time(), time.process_time()
    session.watcher.start(plans)
    stopping = gentle_interrupt(backend, session.watcher.note, "stopping after the current batch")
    try:
        with ScoringPool(tools=session.tools) as pool, stopping:
            for _ in session.decider.chunks(plans) if session.decider is not None else (None,):
                runnable = [plan for plan in plans if plan.error is None]
                for group in [runnable] if backend.together and runnable else [[plan] for plan in runnable]:
                    run_tasks(session, group, folder, backend, pool)
                if session.decider is not None:
                    look(session, session.decider)
        if session.decider is not None:
            keep_asked(session, folder)
        for note in backend.notes():
            if note not in session.said:
                session.watcher.note(note)
        prompts = first_prompts(plans, backend)
        settings = backend.settings() | ({"unclosed": options.unclosed} if options.unclosed != "reference" else {})
        engine = Engine.of(backend.name, backend.chat, settings, backend.fingerprint)
        backend.close()
        run_deferred_tasks(session)
    except KeyboardInterrupt:
        raise Interrupted(
            f"interrupted; the responses so far are in {folder}: repeat the command to continue the run"
        ) from None
    finally:
        session.watcher.stop()
    contamination = known(session.lineage)
    outcome = _outcome(session, name, contamination)
    for plan in plans:
        if plan.error is None:
            rows = instance_rows(gathered.scored[plan.name], plan.primary, contamination)
            write_instances(instances_file(folder, plan.name), rows)
    record = manifest(name, options, plans, engine=engine, lineage=session.lineage, tools=session.tools).but(
        suite_tasks={suite.name: tuple(entry.task for entry in suite.tasks) for suite in session.suites},
        judge=scorers(session.tools),
        time=Time(
            started=started,
            seconds=time.time() - started,
            processor_seconds=time.process_time() - processor,
        ),
        tokens=gathered.tokens,
        identity=None if options.name is None else identity_of(options, plans, backend.fingerprint),
        **({"planned": session.decider.planned(plans)} if session.decider is not None else {}),
    )
    if prompts:
        write_prompts(folder, Prompts(run=name, tasks=prompts))
    write_results(folder, outcome)
    write_manifest(folder, record)
    if backend.name not in ledger.NO_LOOK and not options.source.sample:
        tasks = [(plan.name, plan.documents) for plan in plans if plan.error is None]
        lineage = ledger.lineage_name(session.lineage, model_name(options))
        ledger.record_look(options.runs, lineage, name, tasks, options.command)
    if session.baseline is not None:
        outcome, record = add_projections(folder, session.baseline, str(options.baseline))
    with storage(options.runs / name):
        os.replace(folder, options.runs / name)
    return Finished(options.runs / name, outcome, record, plans)


def _projected(session: Session, finished: Finished) -> Finished:
    """Add projected scores to a run that was finished without them or with another baseline."""
    if session.baseline is not None:
        finished.results, finished.manifest = add_projections(
            finished.path, session.baseline, str(session.options.baseline)
        )
    return finished


def _outcome(session: Session, name: str, contamination: Known) -> Results:
    """Build the content of results.json; tasks whose requests failed keep the number of failures."""
    plans, gathered = session.plans, session.gathered
    outcome = results(
        name, model_name(session.options), plans, gathered.scored, suites=session.suites, known=contamination
    )
    failed = {
        task: outcome.tasks[task].but(flags={**dict.fromkeys(FLAGS, 0), "request_errors": count})
        for task, count in gathered.errors.items()
    }
    stopped = session.decider.stopped() if session.decider is not None else None
    return outcome.but(tasks={**outcome.tasks, **failed}, stopped=stopped)
