"""Check without a model that each task accepts its gold answers and rejects corrupted ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from olmes_suite.evaluation.fingerprint import metric_names
from olmes_suite.evaluation.plan import Leaf, limited
from olmes_suite.evaluation.pool import ScoringPool
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import DeferredScorer
from olmes_suite.scoring.tools import ToolOptions, Tools
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource

_TOLERANCE = 1e-6
REJECTED = "rejected_golds.json"


@dataclass(slots=True)
class Checked:
    """The result of checking a leaf task."""

    task: str
    primary: str
    documents: int = 0
    whole: bool = False
    """Whether the full split was checked, so that the counts must equal the recorded ones."""
    rejected: dict[str, list[int]] = field(default_factory=dict)
    """Metric to the documents whose gold does not score 1."""
    accepted: list[int] = field(default_factory=list)
    """Documents whose corrupted gold does not score 0 on the primary metric."""
    expected: dict[str, Any] = field(default_factory=dict)
    """Recorded golds that the scorer rejects: metric to {"count", "slow", "reason"}; a slow one may pass."""
    without_gold: int = 0
    no_gold: bool = False
    """Whether the task's file names no `gold` and `corrupt`, so that nothing can be checked."""
    judged: bool = False
    """Whether another model scores the task, so that only the requests of its documents are checked."""

    @property
    def problems(self) -> list[str]:
        """One line for each deviation from the record."""
        lines = []
        for metric in sorted({*self.rejected, *self.expected}):
            count, recorded = len(self.rejected.get(metric, ())), int(self.expected.get(metric, {}).get("count", 0))
            slow = int(self.expected.get(metric, {}).get("slow", 0))
            if count > recorded + slow or (self.whole and count < recorded):
                examples = ", ".join(map(str, self.rejected.get(metric, [])[:5]))
                lines.append(f"{self.task}: {metric} rejects {count} golds, {recorded} recorded (doc_id {examples} …)")
        if self.accepted:
            examples = ", ".join(map(str, self.accepted[:5]))
            lines.append(f"{self.task}: {len(self.accepted)} corrupted golds score above 0 (doc_id {examples})")
        if self.documents and self.without_gold == self.documents:
            lines.append(f"{self.task}: no document has a gold answer or a passing and failing pair")
        return lines


def check(
    names: Sequence[str],
    source: DataSource,
    limit: int | None,
    report: Callable[[Checked], None],
    options: ToolOptions | None = None,
) -> list[Checked]:
    """Check tasks one after the other; `report` is called with each leaf's result. Raises MissingData."""
    from olmes_suite.tasks.load import load_task

    source.show_to_nltk()
    results = []
    with closing(Tools(options or ToolOptions())) as tools, ScoringPool(tools=tools) as pool:
        for name in names:
            for leaf_name in catalog.find(name).leaves:
                task = load_task(index.task_file(index.index()[leaf_name]), source)
                leaf = Leaf(leaf_name, task, range(len(task.task_docs)))
                if limit is not None:
                    leaf.rows = limited(leaf, limit, 1234)
                checked = check_leaf(leaf, pool)
                if checked.without_gold == checked.documents and not checked.no_gold:
                    # constraint tasks: the samples hold passing and failing pairs
                    sample_task = load_task(index.task_file(index.index()[leaf_name]), DataSource(sample=True))
                    checked = check_leaf(Leaf(leaf_name, sample_task, range(len(sample_task.task_docs))), pool)
                results.append(checked)
                report(checked)
    return results


def check_leaf(leaf: Leaf, pool: ScoringPool) -> Checked:
    """Score the gold and the corrupted gold of each document of the leaf."""
    task = leaf.task
    metrics = metric_names(task)
    checked = Checked(leaf.name, catalog.find(leaf.name).primary)
    whole = len(leaf.rows) == len(task.task_docs) and not (task.source and task.source.sample)
    checked.expected = expected_rejects(leaf) if not (task.source and task.source.sample) else {}
    checked.whole = whole
    gold, corrupt = task.keys.gold, task.keys.corrupt
    scorer = task.scorer
    if isinstance(scorer, DeferredScorer):
        return _check_judged(leaf, checked)
    if gold is None or corrupt is None:
        checked.documents, checked.no_gold = len(leaf.rows), True
        return checked
    for doc_id, doc in leaf.documents():
        checked.documents += 1
        answers = [gold(doc), corrupt(doc)]
        if None in answers:
            checked.without_gold += 1
            continue
        pool.submit(
            scorer,
            tuple(metrics),
            doc,
            [answers[0]],
            where=f"{leaf.name} gold of {doc_id}",
            done=_gold_done(checked, metrics, doc_id),
        )
        pool.submit(
            scorer,
            tuple(metrics),
            doc,
            [answers[1]],
            where=f"{leaf.name} corrupted gold of {doc_id}",
            done=_corrupt_done(checked, doc_id),
        )
    pool.join()
    return checked


def _check_judged(leaf: Leaf, checked: Checked) -> Checked:
    """Build the requests of a task that other models score, because such a task has no gold answers."""
    checked.judged = True
    for doc_id, doc in leaf.documents():
        checked.documents += 1
        leaf.requests(doc_id, doc, chat=True)
    return checked


def _gold_done(checked: Checked, metrics: list[str], doc_id: int) -> Callable[[Scored, list[Scored], bool], None]:
    def done(scored: Scored, samples: list[Scored], timed_out: bool) -> None:
        for metric in metrics:
            value = scored.scores.get(metric)
            if value is not None and value < 1 - _TOLERANCE:
                checked.rejected.setdefault(metric, []).append(doc_id)

    return done


def _corrupt_done(checked: Checked, doc_id: int) -> Callable[[Scored, list[Scored], bool], None]:
    def done(scored: Scored, samples: list[Scored], timed_out: bool) -> None:
        if (scored.scores.get(checked.primary) or 0.0) > _TOLERANCE:
            checked.accepted.append(doc_id)

    return done


def expected_rejects(leaf: Leaf) -> dict[str, Any]:
    """Return the recorded golds of this leaf task that the reference's scorer rejects."""
    path = leaf.task.folder / REJECTED
    if not path.is_file():
        return {}
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return {
        metric: {
            "count": entry["tasks"].get(leaf.name, 0) if "tasks" in entry else entry["count"],
            "slow": len(entry.get("slow", {}).get(leaf.name, ())),
            "reason": entry["reason"],
        }
        for metric, entry in recorded.items()
    }
