"""The second scoring phase, of tasks whose scorers ask other models, after the candidate model is unloaded."""

from __future__ import annotations

from collections.abc import Sequence

from olmes_suite.errors import OlmesError
from olmes_suite.evaluation.generate import Waiting, make_instance
from olmes_suite.evaluation.plan import Leaf
from olmes_suite.evaluation.pool import ScorerFailed
from olmes_suite.records import Instance
from olmes_suite.scoring.scorers import DeferredScorer, Item
from olmes_suite.scoring.tools import Tools


def score_waiting(waiting: Sequence[Waiting], tools: Tools) -> list[Instance]:
    """Score the documents, leaf by leaf, each leaf's documents in the order of `waiting`.

    Raises RequestFailed if a request to another model failed, ScorerFailed if the scorer raised an exception or did
    not score every document exactly once.
    """
    leaves: dict[str, list[Waiting]] = {}
    for document in waiting:
        leaves.setdefault(document.leaf.name, []).append(document)
    return [instance for documents in leaves.values() for instance in _score_leaf(documents[0].leaf, documents, tools)]


def _score_leaf(leaf: Leaf, documents: Sequence[Waiting], tools: Tools) -> list[Instance]:
    scorer = leaf.task.scorer
    assert isinstance(scorer, DeferredScorer)
    items = [Item(leaf.name, document.doc_id, document.doc, document.responses) for document in documents]
    instances: dict[int, Instance] = {}
    try:
        for position, scored, samples in scorer.all(items, tools):
            if position in instances:
                raise ScorerFailed(f"{leaf.name}: the scorer scored document {items[position].doc_id} twice")
            document = documents[position]
            instances[position] = make_instance(
                leaf, document.doc_id, document.doc, scored, samples, flags=document.flags, timed_out=False,
                generated=document.generated,
            )  # fmt: skip
    except OlmesError:
        raise
    except Exception as error:
        raise ScorerFailed(f"{leaf.name}: the scorer raised {type(error).__name__}: {error}") from error
    if len(instances) != len(items):
        raise ScorerFailed(
            f"{leaf.name}: the scorer left {len(items) - len(instances)} of {len(items)} documents unscored"
        )
    return [instances[position] for position in range(len(items))]
