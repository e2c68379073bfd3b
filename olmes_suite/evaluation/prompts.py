"""The requests of a task before any chat template is applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.evaluation.plan import Leaf, limited
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task


def requests(
    task: str, source: DataSource, doc_ids: Sequence[int] | None = None, limit: int | None = None, seed: int = 1234
) -> Iterator[dict[str, Any]]:
    """Yield the requests of a task or group, as `olmes prompts` prints them.

    Raises UsageError for a limit below 1, and at the end for `doc_ids` that no sub-task has.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, not {limit}")
    entry, seen = catalog.find(task), set()
    for name in entry.leaves:
        loaded = load_task(index.task_file(index.index()[name]), source)
        leaf = Leaf(name, loaded, range(len(loaded.task_docs)))
        if limit is not None:
            leaf.rows = limited(leaf, limit, seed)
        if doc_ids is not None:
            positions = leaf.positions()
            chosen = set(leaf.rows)
            leaf.rows = [positions[i] for i in doc_ids if i in positions and positions[i] in chosen]
        for doc_id, doc in leaf.documents():
            seen.add(doc_id)
            for request in leaf.requests(doc_id, doc, chat=True):
                yield _line(request, loaded.doc_to_target(doc))
    if doc_ids is not None and (missing := [i for i in doc_ids if i not in seen]):
        raise UsageError(f"{entry.name} has no document with doc_id {', '.join(map(str, missing))}")


def _line(request: Any, reference: Any) -> dict[str, Any]:
    generated = request.kind == "generate"
    content = {"messages": request.chat} if request.messages is not None else {"text": request.text}
    return {
        "task": request.task,
        "doc_id": request.doc_id,
        "kind": request.kind,
        **content,
        "prefix": request.prefix,
        "continuation": request.continuation,
        "stop": list(request.stop) if generated else None,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "samples": request.samples if generated else None,
        "reference": reference,
    }
