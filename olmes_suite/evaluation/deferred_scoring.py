"""The second scoring phase: tasks whose scorers ask other models, once the candidate has answered and is unloaded."""

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
    """The scored documents, leaf by leaf, each leaf's in the order of `waiting`.

    Raises RequestFailed where a model behind a tool gave up, ScorerFailed where the scorer raised or did not score
    every document exactly once.
    """
    leaves: dict[str, list[Waiting]] = {}
    for document in waiting:
        leaves.setdefault(document.leaf.name, []).append(document)
    return [instance for documents in leaves.values() for instance in _score_leaf(documents[0].leaf, documents, tools)]


def _score_leaf(leaf: Leaf, documents: Sequence[Waiting], tools: Tools) -> list[Instance]:
    scorer = leaf.task.scorer
    assert isinstance(scorer, DeferredScorer)
    items = [Item(leaf.name, document.doc_id, document.doc, document.responses) for document in documents]
    found: dict[int, Instance] = {}
    try:
        for position, scored, samples in scorer.all(items, tools):
            if position in found:
                raise ScorerFailed(f"{leaf.name}: the scorer scored document {items[position].doc_id} twice")
            document = documents[position]
            found[position] = make_instance(leaf, document.doc_id, document.doc, scored, samples, document.flags, False)
    except OlmesError:
        raise
    except Exception as error:
        raise ScorerFailed(f"{leaf.name}: the scorer raised {type(error).__name__}: {error}") from error
    if len(found) != len(items):
        raise ScorerFailed(f"{leaf.name}: the scorer left {len(items) - len(found)} of {len(items)} documents unscored")
    return [found[position] for position in range(len(items))]
