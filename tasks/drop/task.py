"""DROP, 3-shot, plain text, as the reference renders and scores it (allenai/olmes `drop::llama3`).

The metric is that of the installed lm-eval (`drop/utils.py`), which the reference uses too: the whole response is one
span, so it cannot match a gold answer of several spans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from olmes_suite.errors import DataError
from olmes_suite.records import Scored
from olmes_suite.scoring import lm_eval_module, scorer
from olmes_suite.tasks.documents import DataSource

FEWSHOT_ROWS = (57767, 15315, 981)
"""The reference's `random.Random(1234).sample(rows of train, 3)`, which is the same for 77,400 to 96,567 rows."""


def _lm_eval_drop() -> ModuleType:
    return lm_eval_module("drop/utils.py")


def doc_to_text(doc: Mapping[str, Any]) -> str:
    """Return passage and question."""
    return f"Passage: {doc['passage']}\nQuestion: {doc['question']}\nAnswer:"


def doc_to_target(doc: Mapping[str, Any]) -> list[list[str]]:
    """List the accepted answers, each a list of spans: the answer, then the validated ones that differ."""
    return [list(answer) for answer in _lm_eval_drop().get_answers(doc)]


def fewshot(task: Any) -> Sequence[Mapping[str, Any]]:
    """Return the three rows of `train` that the reference draws; for sample data, the first three rows."""
    rows = task.dataset["train"]
    if (task.source or DataSource.from_environment()).sample:
        return [rows[i] for i in range(3)]
    if len(rows) <= max(FEWSHOT_ROWS):
        raise DataError(f"EleutherAI/drop (train) has {len(rows)} rows; the exemplars are rows {FEWSHOT_ROWS}")
    return [rows[i] for i in FEWSHOT_ROWS]


def fewshot_target(doc: Mapping[str, Any]) -> str:
    """Join the spans of an exemplar's first answer."""
    return ", ".join(doc_to_target(doc)[0])


@scorer()
def score(doc: Mapping[str, Any], response: str) -> Scored:
    """Score the best F1 and exact match over the gold answers whose first span is not blank."""
    exact, f1 = 0.0, 0.0
    for answer in _lm_eval_drop().get_answers(doc):
        if answer[0].strip():
            matched, overlap = _lm_eval_drop().get_metrics([response], answer)
            exact, f1 = max(exact, float(matched)), max(f1, float(overlap))
    return Scored({"f1": f1, "exact_match": exact}, response.strip(), failed=not response.strip())


def gold(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 1 if an answer has a single span; otherwise all spans of the first (below 1)."""
    answers = doc_to_target(doc)
    return next((answer[0] for answer in answers if len(answer) == 1), ", ".join(answers[0]))


def corrupt(doc: Mapping[str, Any]) -> str:
    """Return a response that scores 0."""
    return "qqzzx"
