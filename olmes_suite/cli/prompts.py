"""olmes prompts: the requests of a task, as they are before any chat template."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from olmes_suite.cli.options import Data, DataDirs, source

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
def prompts(
    task: Annotated[str, typer.Option("--task", help="A task or group, prefix optional.")],
    doc_ids: Annotated[
        str | None,
        typer.Option(
            "--doc-ids", help="Rows of the split from 0: 0,17,…; for a group, of every sub-task that has the row."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", help="Documents of every leaf task, chosen as `olmes eval --limit` does.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of --limit.")] = 1234,
    data_dir: DataDirs = None,
    data: Data = None,
) -> int:
    """Print one JSON line per request."""
    from olmes_suite.extras import require

    require("eval", "olmes prompts")
    from olmes_suite.errors import UsageError
    from olmes_suite.evaluation.plan import Leaf, limited
    from olmes_suite.tasks import catalog, index
    from olmes_suite.tasks.load import load_task

    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, not {limit}")
    wanted = _numbers(doc_ids) if doc_ids is not None else None
    entry, where, found = catalog.find(task), source(data_dir, data), set()
    for name in entry.leaves:
        loaded = load_task(index.task_file(index.index()[name]), where)
        leaf = Leaf(name, loaded, range(len(loaded.task_docs)))
        if limit is not None:
            leaf.rows = limited(leaf, limit, seed)
        if wanted is not None:
            positions = leaf.positions()
            chosen = set(leaf.rows)
            leaf.rows = [positions[i] for i in wanted if i in positions and positions[i] in chosen]
        for doc_id, doc in leaf.documents():
            found.add(doc_id)
            for request in leaf.requests(doc_id, doc, chat=True):
                print(json.dumps(_line(request, loaded.doc_to_target(doc)), ensure_ascii=False))
    if wanted is not None and (absent := [i for i in wanted if i not in found]):
        raise UsageError(f"{entry.name} has no document with doc_id {', '.join(map(str, absent))}")
    return 0


def _numbers(text: str) -> list[int]:
    from olmes_suite.errors import UsageError

    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"--doc-ids takes numbers with commas between, not {text!r}") from error


def _line(request: Any, reference: Any) -> dict[str, Any]:
    asked = request.kind == "generate"
    content = {"messages": request.chat} if request.messages is not None else {"text": request.text}
    return {
        "task": request.task,
        "doc_id": request.doc_id,
        "kind": request.kind,
        **content,
        "prefix": request.prefix,
        "continuation": request.continuation,
        "stop": list(request.stop) if asked else None,
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "samples": request.samples if asked else None,
        "reference": reference,
    }
