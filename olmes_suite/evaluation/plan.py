"""The plan of a run: its tasks, its documents, and a name that is the same for the same command."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import MissingData, UnsuitableTask, UsageError
from olmes_suite.evaluation.document_cap import check_limits, limit_of
from olmes_suite.records import Instance, Request, canonical_json, sha256
from olmes_suite.scoring import language_resources as resources
from olmes_suite.scoring.tools import ToolOptions, Tools
from olmes_suite.tasks import catalog, index, own_data, suites
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.settings import Settings

if TYPE_CHECKING:
    from olmes_suite.comparison.gate_rules import Rules
    from olmes_suite.comparison.plan_file import PlanFile
    from olmes_suite.runs.schema import Planned
    from olmes_suite.tasks.task import SuiteTask


NOT_BUILT = "not part of this version of olmes-suite"
"""Error of a task that a shipped suite names but this version does not include."""


@dataclass(frozen=True, slots=True)
class Options:
    """The options of `olmes eval`."""

    model: str
    backend: str = "auto"
    suite_names: tuple[str, ...] = ()
    task_names: tuple[str, ...] = ()
    limit: int | float | None = None
    """Number of documents of each leaf task; below 1 their share."""
    seed: int = 1234
    source: DataSource = field(default_factory=DataSource)
    runs: Path = Path("runs")
    lineage: Path | None = None
    again: bool = False
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Options of the backend: device, dtype, batch_size, max_length, chat_template, revision."""
    command: tuple[str, ...] = ()
    tools: ToolOptions = field(default_factory=ToolOptions)
    settings: Settings = field(default_factory=Settings)
    """What the user put over the tasks' own settings."""
    unclosed: str = "reference"
    """How an answer that ends inside a thought is scored: whole (reference) or as empty."""
    plan: PlanFile | None = None
    """The file of `--plan`, whose data is checked; `planned` is what it asks."""
    planned: Planned | None = None
    """The number of documents of each leaf task."""
    until_decided: Rules | None = None
    """The rules of the gate that decides how many documents are asked."""
    baseline: str | None = None
    """Run from whose scores those of the whole tasks are projected."""
    max_documents: int | None = None
    """Largest number of documents of all tasks together."""
    name: str | None = None
    """The run's name, in place of one made of model and tasks."""


@dataclass(slots=True)
class Leaf:
    """A leaf task and its documents to evaluate."""

    name: str
    task: SuiteTask
    rows: Sequence[int]
    """Positions in the task's documents."""
    cluster: str | None = None
    fingerprint: dict[str, str] = field(default_factory=dict)
    primary: str = ""
    """Primary metric of the top-level task."""

    @property
    def factor(self) -> float:
        """How many documents of the leaf task each chosen one stands for."""
        return len(self.task.task_docs) / len(self.rows) if len(self.rows) else 1.0

    def weight(self, documents: int, planned: bool) -> float:
        """Return the weight of so many documents in an average by documents.

        Without a plan it is their number. With one it is the number that they stand for, because a plan may draw from
        leaf tasks unequally (Horvitz & Thompson 1952, JASA 47, 663).
        """
        return documents * self.factor if planned else float(documents)

    def documents(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (doc_id, document) in row order; doc_id is the row in the whole split."""
        from olmes_suite.tasks.task import ROW

        docs = self.task.task_docs
        for row in self.rows:
            doc = docs[row]
            yield doc.get(ROW, row), doc

    def document(self, doc_id: int) -> dict[str, Any]:
        """Return the document of a row of the whole split. Raises UsageError if the task has no such row."""
        position = self.positions().get(doc_id)
        if position is None:
            raise UsageError(
                f"{self.name}: no document with doc_id {doc_id} (rows 0 to {len(self.task.task_docs) - 1})"
            )
        doc: dict[str, Any] = self.task.task_docs[position]
        return doc

    def positions(self) -> dict[int, int]:
        """Map each doc_id of the task to its position."""
        from olmes_suite.tasks.task import ROW

        docs = self.task.task_docs
        if ROW in docs.column_names:
            return {doc_id: position for position, doc_id in enumerate(docs[ROW])}
        return {position: position for position in range(len(docs))}

    def requests(self, doc_id: int, doc: Mapping[str, Any], chat: bool) -> list[Request]:
        """Build the document's requests."""
        return self.task.requests(doc, doc_id, chat=chat)

    def resources(self) -> set[str]:
        """Return the `olmes_suite.scoring.language_resources` that scoring the documents needs."""
        names_of = self.task.keys.resources
        return {name for _, doc in self.documents() for name in names_of(doc)} if names_of else set()

    def cluster_of(self, doc: Mapping[str, Any], doc_id: int) -> str:
        """Return the document's cluster. This is the only place where clusters are decided."""
        from olmes_suite.tasks.task import call

        value = call(self.cluster or self.task.keys.cluster, doc)
        return f"{self.name}:{doc_id}" if value is None else sha256(f"{self.name}:{value}")[:16]

    def stratum_of(self, doc: Mapping[str, Any]) -> str:
        """Return the part of the task that the document belongs to; "" if the task has no parts."""
        from olmes_suite.tasks.task import call

        value = call(self.task.keys.strata, doc)
        return "" if value is None else str(value)


@dataclass(slots=True)
class TaskPlan:
    """One top-level task of the run."""

    name: str
    primary: str
    aggregate: str
    skill: str = "other"
    leaves: list[Leaf] = field(default_factory=list)
    error: str | None = None
    """Why the task cannot run, for example missing data; recorded in the results."""
    by_plan: bool = False
    """Whether a plan chooses the documents."""

    @property
    def planned(self) -> bool:
        """Whether a plan chose some of the documents, and not all."""
        return self.by_plan and any(leaf.factor > 1 for leaf in self.leaves)

    @property
    def is_group(self) -> bool:
        """Whether the task has sub-tasks."""
        return not (len(self.leaves) == 1 and self.leaves[0].name == self.name)

    @property
    def documents(self) -> int:
        """Number of documents to evaluate."""
        return sum(len(leaf.rows) for leaf in self.leaves)

    def rank(self) -> Callable[[tuple[str, int, int, int]], tuple[int, int, int, int]]:
        """Return a sort key for responses (task, doc_id, index, sample): by sub-task, then by row."""
        order = self._order
        return lambda place: (order.get(place[0], len(order)), *place[1:])

    def asks(self) -> Callable[[tuple[str, int, int, int]], bool] | None:
        """Return whether a response (task, doc_id, index, sample) is of a chosen document; None if all are chosen."""
        if all(leaf.factor == 1 for leaf in self.leaves):
            return None
        chosen: set[tuple[str, int]] = set()
        for leaf in self.leaves:
            rows = set(leaf.rows)
            chosen |= {(leaf.name, doc_id) for doc_id, row in leaf.positions().items() if row in rows}
        return lambda place: place[:2] in chosen

    @property
    def _order(self) -> dict[str, int]:
        return {leaf.name: number for number, leaf in enumerate(self.leaves)}

    def in_order(self, instances: Iterable[Instance]) -> list[Instance]:
        """Sort the task's scored documents by sub-task, then by row."""
        order = self._order
        return sorted(instances, key=lambda i: (order[i.task], i.doc_id))


def choose(options: Options) -> tuple[list[TaskPlan], list[suites.Suite]]:
    """Plan the tasks that the options name, without reading data.

    Raises UsageError for unknown names and for tasks of the user's without their files.
    """
    if not options.suite_names and not options.task_names:
        raise UsageError("nothing to evaluate: give --suite NAME or --task NAME (see `olmes tasks`)")
    if options.planned is not None and (options.limit is not None or options.task_names):
        other = "--task" if options.task_names else "--limit"
        raise UsageError(f"--plan chooses tasks and documents; leave {other} out")
    chosen_samples = options.plan is not None and any(one.samples for one in options.plan.tasks.values())
    if chosen_samples and options.settings.samples is not None:
        raise UsageError("--samples: the plan chooses the number of samples; leave --samples out")
    check_limits(options)
    chosen = [suites.load(name) for name in options.suite_names]
    plans: dict[str, TaskPlan] = {}
    for suite in chosen:
        for entry in suite.tasks:
            try:
                plans.setdefault(entry.task, _planned(entry))
            except UsageError as error:
                raise UsageError(f"suite {suite.name}: {error}") from None
    for name in options.task_names:
        entry_name = catalog.find(name).name
        plans.setdefault(entry_name, _planned(suites.SuiteEntry(entry_name, skill_of(entry_name))))
    for name in (name for plan in plans.values() if plan.error is None for name in catalog.find(plan.name).leaves):
        own_data.check(index.index()[name])
    return list(plans.values()), chosen


def skill_of(task: str) -> str:
    """Return the skill under which the shipped suites list a task or its group."""
    for suite in (suites.load(name) for name in suites.names() if name != "smoke"):
        for entry in suite.tasks:
            entry_of_task = index.index().get(entry.task)
            if task == entry.task or (entry_of_task and task in entry_of_task.members):
                return entry.skill
    return "other"


def _planned(entry: suites.SuiteEntry) -> TaskPlan:
    task_entry = suites.task_of(entry)
    if task_entry is None:
        return TaskPlan(entry.task, entry.primary or "", "mean", entry.skill, error=NOT_BUILT)
    return TaskPlan(
        entry.task, entry.primary or task_entry.primary, entry.aggregate or task_entry.aggregate, entry.skill
    )


def load_leaves(plan: TaskPlan, options: Options) -> None:
    """Read the task's data and choose its documents. Missing data marks the task as failed.

    Raises DataError for malformed data, UsageError for a primary metric that the task does not have.
    """
    from olmes_suite.tasks.external import LmEvalTask
    from olmes_suite.tasks.load import load_task

    cluster = _cluster_column(plan.name, options)
    for name in catalog.find(plan.name).leaves:
        try:
            task = load_task(index.task_file(index.index()[name]), options.source)
        except (MissingData, UnsuitableTask) as error:
            plan.error = error.of(plan.name) if isinstance(error, MissingData) else str(error)
            plan.leaves = []
            return
        if isinstance(task, LmEvalTask):
            task.check_primary(plan.primary)
        samples = options.plan.tasks[name].samples if options.plan is not None else None
        (options.settings if samples is None else replace(options.settings, samples=samples)).apply(task)
        leaf = Leaf(name, task, range(len(task.task_docs)), cluster if cluster in task.task_docs.column_names else None)
        leaf.primary = plan.primary
        if options.planned is not None:
            plan.by_plan = True
            leaf.rows = by_strata(leaf, options.planned.documents[name], options.seed)
        elif options.limit is not None:
            leaf.rows = limited(leaf, limit_of(options.limit, len(task.task_docs)), options.seed)
        plan.leaves.append(leaf)


def preflight(plan: TaskPlan, tools: Tools) -> None:
    """Check the needs of the task's scorers before a model is loaded; a missing one marks the task as failed."""
    checks = {leaf.task.keys.preflight for leaf in plan.leaves if leaf.task.keys.preflight}
    needs = {need for leaf in plan.leaves for need in leaf.task.keys.needs}
    try:
        for need in sorted(needs):
            tools.get(need)
        for check in checks:
            check(tools)
        resources.require(resource for leaf in plan.leaves for resource in leaf.resources())
    except MissingData as error:
        plan.error, plan.leaves = error.of(plan.name), []


def _cluster_column(name: str, options: Options) -> str | None:
    for suite in map(suites.load, options.suite_names):
        for entry in suite.tasks:
            if entry.task == name and entry.cluster:
                return entry.cluster
    return None


def limited(leaf: Leaf, limit: int, seed: int) -> list[int]:
    """Return the `limit` rows with the smallest SHA-256 of (seed, task, doc_id), in row order.

    A larger limit contains the rows of a smaller one.
    """
    positions = leaf.positions()
    smallest = heapq.nsmallest(limit, positions, key=_order(leaf.name, seed))
    return sorted(positions[doc_id] for doc_id in smallest)


def _order(task: str, seed: int) -> Callable[[int], str]:
    return lambda doc_id: sha256(canonical_json([seed, task, doc_id]))


def by_strata(leaf: Leaf, count: int, seed: int) -> list[int]:
    """Return `count` rows in row order, in the order of `limited` within each stratum of the task.

    The strata of a task have equal weights in its score: each gets the same number, or all of its documents. A larger
    count contains the rows of a smaller one.
    """
    positions = leaf.positions()
    if leaf.task.keys.strata is None or count >= len(positions):
        return limited(leaf, count, seed)
    strata: dict[str, list[int]] = {}
    for doc_id in sorted(positions, key=_order(leaf.name, seed)):
        strata.setdefault(leaf.stratum_of(leaf.task.task_docs[positions[doc_id]]), []).append(doc_id)
    turns = ((turn, name) for turn in range(max(map(len, strata.values()))) for name in sorted(strata))
    chosen = (strata[name][turn] for turn, name in turns if turn < len(strata[name]))
    return sorted(positions[doc_id] for doc_id in islice(chosen, max(count, len(strata))))


def slug(text: str) -> str:
    """Turn a text into a part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.")[:60] or "model"


def model_name(options: Options) -> str:
    """Return the model's display name: the last part of its path, or the backend's name without a model."""
    name = options.model.rstrip("/").rsplit("/", 1)[-1] if options.model else options.backend
    return name or options.backend


def run_name(options: Options, plans: Sequence[TaskPlan], model_fingerprint: str) -> str:
    """Return the user's name, or a readable one that is the same for the same command, model and data."""
    if options.name is not None:
        return options.name
    selection = "+".join(
        [
            *(Path(name).stem for name in options.suite_names),
            *(name.removeprefix(index.PREFIX) for name in options.task_names),
        ]
    )
    digest = identity_of(options, plans, model_fingerprint)[:8]
    return f"{slug(model_name(options))}-{slug(selection)}-{digest}"


def identity_of(options: Options, plans: Sequence[TaskPlan], model_fingerprint: str) -> str:
    """Hash what a run asks: model, tasks with their fingerprints, documents and settings."""
    identity: dict[str, Any] = {
        "model": model_fingerprint,
        "backend": options.backend,
        "limit": options.limit,
        "seed": options.seed,
        "suites": list(options.suite_names),
        "tasks": [
            [plan.name, plan.primary, plan.aggregate, plan.error is None, [leaf.fingerprint for leaf in plan.leaves]]
            for plan in plans
        ],
    }
    if options.until_decided is not None:
        identity["until_decided"] = [options.baseline, str(options.until_decided)]
    if options.planned is not None:
        identity["planned"] = dict(options.planned.documents)
    if options.max_documents is not None:
        identity["max_documents"] = options.max_documents
    return sha256(canonical_json(identity))
