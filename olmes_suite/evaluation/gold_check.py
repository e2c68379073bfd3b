"""Does each task accept its own gold answer and refuse a corrupted one? No model is needed."""

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
    """What was found about one leaf task."""

    task: str
    primary: str
    documents: int = 0
    whole: bool = False
    """The task's full split was checked, so the counts must equal the recorded ones."""
    rejected: dict[str, list[int]] = field(default_factory=dict)
    """Metric to the documents whose gold it does not score 1."""
    accepted: list[int] = field(default_factory=list)
    """Documents whose corrupted gold does not score 0 on the primary metric."""
    expected: dict[str, Any] = field(default_factory=dict)
    """Recorded golds that the reference itself rejects: metric to {"count", "reason"}."""
    without_gold: int = 0
    judged: bool = False
    """Another model scores the task: there is no gold to check, only that every document makes its requests."""

    @property
    def problems(self) -> list[str]:
        """One line for everything that is not as recorded."""
        found = []
        for metric in sorted({*self.rejected, *self.expected}):
            got, known = len(self.rejected.get(metric, ())), int(self.expected.get(metric, {}).get("count", 0))
            if got > known or (self.whole and got != known):
                which = ", ".join(map(str, self.rejected.get(metric, [])[:5]))
                found.append(f"{self.task}: {metric} rejects {got} golds, {known} recorded (doc_id {which} …)")
        if self.accepted:
            which = ", ".join(map(str, self.accepted[:5]))
            found.append(f"{self.task}: {len(self.accepted)} corrupted golds score above 0 (doc_id {which})")
        if self.documents and self.without_gold == self.documents:
            found.append(f"{self.task}: no document has a gold answer or a passing and failing pair")
        return found


def check(
    names: Sequence[str],
    source: DataSource,
    limit: int | None,
    told: Callable[[Checked], None],
    options: ToolOptions | None = None,
) -> list[Checked]:
    """Check tasks one after the other; `told` hears of each leaf. Raises MissingData where a task's data is missing."""
    from olmes_suite.tasks.load import load_task

    source.show_to_nltk()
    out = []
    with closing(Tools(options or ToolOptions())) as tools, ScoringPool(tools=tools) as pool:
        for name in names:
            for leaf_name in catalog.find(name).leaves:
                task = load_task(index.task_file(index.index()[leaf_name]), source)
                leaf = Leaf(leaf_name, task, range(len(task.task_docs)))
                if limit is not None:
                    leaf.rows = limited(leaf, limit, 1234)
                found = check_leaf(leaf, pool)
                if found.without_gold == found.documents:  # constraints: our own passing and failing pairs instead
                    own = load_task(index.task_file(index.index()[leaf_name]), DataSource(sample=True))
                    found = check_leaf(Leaf(leaf_name, own, range(len(own.task_docs))), pool)
                out.append(found)
                told(found)
    return out


def check_leaf(leaf: Leaf, pool: ScoringPool) -> Checked:
    """Score the gold and the corrupted gold of every chosen document."""
    task = leaf.task
    metrics = metric_names(task)
    checked = Checked(leaf.name, catalog.find(leaf.name).primary)
    full = len(leaf.rows) == len(task.task_docs) and not (task.source and task.source.sample)
    checked.expected = expected_rejects(leaf) if not (task.source and task.source.sample) else {}
    checked.whole = full
    gold, corrupt = task.keys.gold, task.keys.corrupt
    scorer = task.scorer
    if isinstance(scorer, DeferredScorer):
        return _check_judged(leaf, checked)
    for doc_id, doc in leaf.documents():
        checked.documents += 1
        answers = [function(doc) if function else None for function in (gold, corrupt)]
        if None in answers:
            checked.without_gold += 1
            continue
        pool.submit(
            scorer,
            tuple(metrics),
            doc,
            [answers[0]],
            f"{leaf.name} gold of {doc_id}",
            _gold_done(checked, metrics, doc_id),
        )
        pool.submit(
            scorer,
            tuple(metrics),
            doc,
            [answers[1]],
            f"{leaf.name} corrupted gold of {doc_id}",
            _corrupt_done(checked, doc_id),
        )
    pool.join()
    return checked


def _check_judged(leaf: Leaf, checked: Checked) -> Checked:
    """A task that other models score has no gold answers: its requests are made, which reads every document."""
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
    """The recorded golds that the reference's own scorer rejects, for this leaf task."""
    path = leaf.task.folder / REJECTED
    if not path.is_file():
        return {}
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return {
        metric: {
            "count": entry["tasks"].get(leaf.name, 0) if "tasks" in entry else entry["count"],
            "reason": entry["reason"],
        }
        for metric, entry in recorded.items()
    }
