"""Scoring without the candidate model: responses from a file, or those of a recorded run again."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from olmes_suite.errors import DataError, MissingData, UsageError
from olmes_suite.evaluation.deferred_scoring import score_waiting
from olmes_suite.evaluation.document_cap import cap
from olmes_suite.evaluation.fingerprint import fingerprint, metric_names
from olmes_suite.evaluation.generate import OpenDocument, Scoring, Waiting, make_instance
from olmes_suite.evaluation.given_responses import GivenResponses, GivenThoughts, Reading, ResponseLine, given_thoughts
from olmes_suite.evaluation.manifest import scorers
from olmes_suite.evaluation.plan import Leaf, Options, TaskPlan, choose, load_leaves, preflight
from olmes_suite.evaluation.planned import projected_again
from olmes_suite.evaluation.pool import ScoringPool
from olmes_suite.evaluation.record import (
    combine,
    count_flags,
    estimates,
    instance_rows,
    leaf_weights,
    left_out,
    results,
)
from olmes_suite.files import RunLock, storage
from olmes_suite.records import Instance, Response, Scored
from olmes_suite.runs import task_folders
from olmes_suite.runs.contamination import Known, known
from olmes_suite.runs.schema import (
    INSTANCES,
    RESULTS,
    Manifest,
    Results,
    instances_file,
    is_finished,
    read_manifest,
    read_results,
    write_instances,
    write_manifest,
    write_results,
)
from olmes_suite.runs.store import UNFINISHED, read_lines
from olmes_suite.scoring import language_resources
from olmes_suite.scoring.scorers import DeferredScorer, Scorer
from olmes_suite.scoring.tools import MODELS, ToolOptions, Tools
from olmes_suite.tasks import catalog, index, suites
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.settings import Settings, effective

AS_BEFORE = Reading()
"""Thoughts as the run read them."""


def score_responses(
    name: str, path: Path | Sequence[Mapping[str, Any]], source: DataSource, options: ToolOptions | None = None,
    thoughts: GivenThoughts | None = None,
) -> tuple[dict[str, Any], list[Instance]]:  # fmt: skip
    """Score responses without their thoughts, otherwise unchanged.

    Returns the summary that `olmes score` prints, and the scored documents. By default thoughts are read as with
    `--thinking auto`. Raises MissingData if a scorer needs a model that `options` do not name, RequestFailed if a
    request to one failed.
    """
    source.show_to_nltk()
    entry = catalog.find(name)
    lines = GivenResponses(path, entry, thoughts or given_thoughts())
    plan = TaskPlan(entry.name, entry.primary, entry.aggregate)
    leaves: dict[str, Leaf] = {}
    for task in entry.leaves:
        if task in lines.tasks:
            leaves[task] = _leaf(task, entry, source)
    plan.leaves = list(leaves.values())
    with closing(Tools(replace(options or ToolOptions(), mirrors=source.mirrors, sample=source.sample))) as tools:
        _require_tools(plan, tools)
        instances = plan.in_order(_score_given(lines, leaves, path if isinstance(path, Path) else "responses", tools))
        summary = _summary(entry, plan, instances)
        judge_record = tools.record()
        if lines.unread:
            summary["unread_thoughts"] = dict(lines.unread)
        return summary | ({"judge": judge_record} if judge_record else {}), instances


def _require_tools(plan: TaskPlan, tools: Tools) -> None:
    """Raise MissingData if a tool or resource of the task's scorers is missing."""
    preflight(plan, tools)
    if plan.error is not None:
        raise MissingData(f"{plan.name}: {plan.error}")


def _leaf(task: str, entry: index.TaskEntry, source: DataSource) -> Leaf:
    from olmes_suite.tasks.load import load_task

    try:
        loaded = load_task(index.task_file(index.index()[task]), source)
    except MissingData as error:
        raise MissingData(error.of(entry.name)) from error
    leaf = Leaf(task, loaded, range(len(loaded.task_docs)))
    language_resources.require(leaf.resources())
    return leaf


def _score_given(lines: GivenResponses, leaves: dict[str, Leaf], path: Path | str, tools: Tools) -> list[Instance]:
    positions = {name: leaf.positions() for name, leaf in leaves.items()}
    scored: dict[tuple[str, int], Instance] = {}
    waiting: list[Waiting] = []
    with ScoringPool(tools=tools) as pool:
        for item in lines:
            leaf = leaves[item.task]
            if item.doc_id in leaf.task.left_out:
                continue
            position = positions[item.task].get(item.doc_id)
            if position is None:
                count = len(positions[item.task])
                raise UsageError(f"{path}: {item.task} has no document with doc_id {item.doc_id} ({count} documents)")
            _submit(pool, leaf, item, leaf.task.task_docs[position], scored=scored, waiting=waiting)
        pool.join()
    return [*scored.values(), *score_waiting(sorted(waiting, key=lambda w: w.doc_id), tools)]


def _submit(
    pool: ScoringPool, leaf: Leaf, item: ResponseLine, doc: dict[str, Any], *,
    scored: dict[tuple[str, int], Instance], waiting: list[Waiting],
) -> None:  # fmt: skip
    scorer = leaf.task.scorer
    responses: list[Any] = list(item.responses or ())
    if item.loglikelihoods is not None:
        responses = [_ranked(item, len(leaf.requests(item.doc_id, doc, chat=False)), scorer)]
    flags = set()
    if item.responses is not None and not any(text.strip() for text in item.responses):
        flags.add("empty")
    if item.unclosed:
        flags.add("unclosed")
    if isinstance(scorer, DeferredScorer):
        waiting.append(Waiting(leaf, item.doc_id, doc, tuple(responses), frozenset(flags)))
        return

    def done(document: Scored, samples: list[Scored], timed_out: bool) -> None:
        scored[item.task, item.doc_id] = make_instance(
            leaf, item.doc_id, doc, document, samples, flags=flags, timed_out=timed_out
        )

    where = f"{item.task} document {item.doc_id}"
    pool.submit(scorer, tuple(metric_names(leaf.task)), doc, responses, where=where, done=done)


def _ranked(item: ResponseLine, choices: int, scorer: Scorer | DeferredScorer) -> list[Any]:
    """Convert the log-likelihoods to the form that the scorer takes.

    Raises UsageError if their number differs from the number of choices, and if a required `is_greedy` is missing.
    """
    values = item.loglikelihoods or []
    if len(values) != choices:
        raise UsageError(f"{item.task}, doc_id {item.doc_id}: {len(values)} log-likelihoods for {choices} choices")
    if not (isinstance(scorer, Scorer) and scorer.takes_greedy):
        return list(values)
    if item.is_greedy is None:
        raise UsageError(
            f"{item.task}, doc_id {item.doc_id}: this task also needs `is_greedy`, for each log-likelihood whether the "
            "continuation is the model's greedy answer"
        )
    return list(zip(values, item.is_greedy, strict=True))


def _summary(entry: index.TaskEntry, plan: TaskPlan, instances: list[Instance]) -> dict[str, Any]:
    by_leaf = {leaf.name: [i for i in instances if i.task == leaf.name] for leaf in plan.leaves}
    parts = {leaf.name: estimates(leaf, by_leaf[leaf.name]) for leaf in plan.leaves}
    total = sum(len(leaf.task.task_docs) for leaf in plan.leaves)
    summary: dict[str, Any] = {
        "task": entry.name,
        "n": len(instances),
        "left_out": sum(len(leaf.task.left_out) for leaf in plan.leaves),
        "errors": sum(not {"checker_error", "sandbox_error"}.isdisjoint(i.flags) for i in instances),
        "primary": entry.primary,
        "flags": count_flags(instances),
        "without_response": total - len(instances),
    }
    if names := {name: n for leaf in plan.leaves for name, n in left_out(leaf).items()}:
        summary["left_out_names"] = names
    if not entry.members:
        return {**summary, **_metrics(metric_names(plan.leaves[0].task), parts[entry.name], entry.primary)}
    weights = leaf_weights(entry.aggregate, plan.leaves, [len(by_leaf[leaf.name]) for leaf in plan.leaves])
    group = combine(entry.aggregate, list(zip(parts.values(), weights, strict=True)))
    summary["metrics"] = {metric: estimate.as_json() for metric, estimate in group.items()}
    summary["missing_tasks"] = [name for name in entry.leaves if name not in parts]
    summary["tasks"] = {
        name: {
            "task": name,
            "n": len(by_leaf[name]),
            "left_out": len(leaf.task.left_out),
            "errors": count_flags(by_leaf[name])["checker_error"],
            "primary": entry.primary,
            "metrics": {m: e.as_json() for m, e in parts[name].items()},
        }
        for leaf in plan.leaves
        for name in (leaf.name,)
    }
    return summary


def _metrics(names: Sequence[str], parts: dict[str, Any], primary: str) -> dict[str, Any]:
    """Build `metrics`. Pass@k of fewer than k samples is null; then pass@1 is the primary metric, with a note."""
    metrics = {name: parts[name].as_json() if name in parts else None for name in names}
    if metrics.get(primary) is None and primary.startswith("pass_at_") and metrics.get("pass_at_1") is not None:
        note = f"{primary} needs {primary.removeprefix('pass_at_')} samples of a document; the primary is pass_at_1"
        return {"primary": "pass_at_1", "note": note, "metrics": metrics}
    return {"metrics": metrics}


def instance_lines(instances: Sequence[Instance]) -> Iterator[str]:
    """Yield JSON lines of documents: {"task","doc_id","scores","samples":[{"scores","extracted"}],"flags":[]}."""
    for i in instances:
        samples = [
            {"scores": s.scores, "extracted": s.extracted} | ({"verdict": s.verdict} if s.verdict else {})
            for s in i.samples
        ]
        line = {"task": i.task, "doc_id": i.doc_id, "scores": i.scored.scores, "samples": samples, "flags": [*i.flags]}
        yield json.dumps(line, ensure_ascii=False)


def rescore(
    run: Path, source: DataSource | None, named: ToolOptions | None = None, reading: Reading = AS_BEFORE
) -> Results:
    """Score a recorded run's responses again, in place, as a new version; the old version moves to `versions/`.

    `named` names models that replace those that scored the run; `reading` how thoughts are read from what the model
    said, by default as the run read them.
    """
    if not is_finished(run):
        raise UsageError(f"{run} is not a finished run (no results.json); repeat the `olmes eval` command to finish it")
    old, record = read_results(run), read_manifest(run)
    with task_folders.searched(record):
        return _rescored(run, old, record, _options(record, source, named or ToolOptions()), reading)


def _rescored(run: Path, old: Results, record: Manifest, options: Options, reading: Reading) -> Results:
    thoughts, unclosed = reading.thoughts(record.engine.extra), reading.policy(record.engine.extra)
    options.source.show_to_nltk()
    plans, _ = choose(options)
    tools = Tools(options.tools)
    try:
        _reload(plans, old, options, tools)
        contamination = known(record.lineage)
        with RunLock(run.parent / UNFINISHED / f"{run.name}.lock"):
            scored = {plan.name: _from_disk(plan, run, tools, thoughts) for plan in plans if plan.error is None}
            for leaf in (leaf for plan in plans for leaf in plan.leaves):
                leaf.fingerprint = fingerprint(leaf, record.engine.chat, tools, unclosed)
            chosen = [suites.load(name) for name in options.suite_names]
            rescored = results(old.run, old.model, plans, scored, suites=chosen, known=contamination)
            rescored = rescored.but(version=(old.version or 1) + 1, extra=old.extra, stopped=old.stopped)
            _replace(run, old, rescored, plans, scored, contamination=contamination)
            scoring_models = scorers(tools)
            again = _scored_again(record, plans, unclosed)
            if scoring_models is not None:
                again = again.scored_by(scoring_models)
            if thoughts is not None:
                again = again.but(engine=again.engine.but(extra=reading.recorded(again.engine.extra)))
            write_manifest(run, again)
            rescored = projected_again(run) or rescored
    finally:
        tools.close()
    return rescored


def _scored_again(record: Manifest, plans: Sequence[TaskPlan], unclosed: str) -> Manifest:
    """Return the manifest with the fingerprints of the new scores, by which runs are compared."""
    leaves = [leaf for plan in plans for leaf in plan.leaves]
    sampling = {} if record.sampling is None else {leaf.name: effective(leaf.task, unclosed) for leaf in leaves}
    return record.but(
        tasks={**record.tasks, **{leaf.name: leaf.fingerprint for leaf in leaves}},
        sampling=record.sampling if record.sampling is None else {**record.sampling, **sampling},
    )


def _reload(plans: Sequence[TaskPlan], old: Results, options: Options, tools: Tools) -> None:
    """Load the documents of the tasks that have a score; the other tasks keep their error."""
    for plan in plans:
        error = old.tasks[plan.name].error if plan.name in old.tasks else None
        if plan.error is None and not error:
            load_leaves(plan, options)
            if plan.error is not None:
                raise MissingData(plan.error)
            _require_tools(plan, tools)
        else:
            plan.error = plan.error if error is None else error
            plan.leaves = []
    cap(plans, options)


def _recorded_tools(record: Manifest, named: ToolOptions, source: DataSource) -> ToolOptions:
    """Return the models that scored the run, except where `named` names others."""
    models = record.judge or {}
    options: dict[str, Any] = {}
    for need in MODELS:
        if getattr(named, need) is None and need in models:
            options[need] = models[need].model
            if need != "encoder":
                options[f"{need}_base_url"] = models[need].base_url
    return replace(named, **options, seed=_seed(record), mirrors=source.mirrors, sample=source.sample)


def _seed(record: Manifest) -> int:
    """Return the seed of the run. Raises DataError for an imported run, which has no seed."""
    if record.seed is None:
        raise DataError(f"run {record.run} has no seed: only runs of `olmes eval` can be scored again")
    return record.seed


def _options(record: Manifest, source: DataSource | None, tools: ToolOptions) -> Options:
    suite_names = task_folders.suite_names(record)
    in_suites = {entry.task for name in suite_names for entry in suites.load(name).tasks}
    # Answers to sample documents are scored with the sample documents, even if a mirror is now given.
    mirrors = source.mirrors if source and source.mirrors else tuple(map(Path, record.mirrors))
    data_source = DataSource(() if record.sample else mirrors, record.sample)
    return Options(
        model=record.model.path or "",
        suite_names=suite_names,
        task_names=tuple(plan.task for plan in record.plan if plan.task not in in_suites),
        limit=record.limit,
        max_documents=record.max_documents,
        seed=_seed(record),
        source=data_source,
        tools=_recorded_tools(record, tools, data_source),
        settings=Settings.from_json(record.settings),
        planned=record.planned,
    )


def _from_disk(plan: TaskPlan, run: Path, tools: Tools, thoughts: GivenThoughts | None) -> list[Instance]:
    answers: dict[tuple[str, int], dict[tuple[int, int], Response]] = {}
    for line in read_lines(run / "responses" / f"{plan.name}.jsonl"):
        answers.setdefault((line.task, line.doc_id), {})[line.index, line.sample] = line.response
    with ScoringPool(tools=tools) as pool:
        scoring = Scoring(pool)
        for leaf in plan.leaves:
            for doc_id, doc in leaf.documents():
                responses = answers.get((leaf.name, doc_id))
                if responses is None:
                    raise DataError(
                        f"{run}: no response of {leaf.name} document {doc_id}; was the run made with other data?"
                    )
                if thoughts is not None:
                    responses = _read_again(leaf, doc_id, doc, responses, thoughts)
                scoring.submit(OpenDocument(leaf, doc_id, doc, [], responses))
        pool.join()
    return plan.in_order([*scoring.instances.values(), *score_waiting(scoring.waiting, tools)])


def _read_again(
    leaf: Leaf, doc_id: int, doc: dict[str, Any], responses: dict[tuple[int, int], Response], thoughts: GivenThoughts
) -> dict[tuple[int, int], Response]:
    """Read the thoughts of a document's recorded responses again."""
    stops = [request.stop for request in leaf.requests(doc_id, doc, chat=True)]
    return {
        place: thoughts.read_again(response, leaf.name, stops[place[0]]) if response.text is not None else response
        for place, response in responses.items()
    }


def _replace(
    run: Path, old: Results, new: Results, plans: Sequence[TaskPlan], scored: dict[str, list[Instance]], *,
    contamination: Known,
) -> None:  # fmt: skip
    """Write the new scores, move the old ones to `versions/`, then swap, so that a killed run stays readable."""
    new_folder = run / f".version-{os.getpid()}"
    for plan in plans:
        if plan.error is None:
            rows = instance_rows(scored[plan.name], plan.primary, contamination)
            write_instances(new_folder / instances_file(run, plan.name).name, rows)
    old_version = run / "versions" / str(old.version or 1)
    with storage(run):
        old_version.mkdir(parents=True, exist_ok=True)
        shutil.copy2(run / RESULTS, old_version / RESULTS)
        if (run / INSTANCES).exists():
            shutil.rmtree(old_version / INSTANCES, ignore_errors=True)
            os.replace(run / INSTANCES, old_version / INSTANCES)
        if new_folder.exists():
            os.replace(new_folder, run / INSTANCES)
    write_results(run, new)
