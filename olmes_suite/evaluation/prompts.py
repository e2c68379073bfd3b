"""The requests of a task, before any chat template is applied and, for a given model, as the model receives them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.errors import MissingData, UsageError
from olmes_suite.evaluation.plan import Leaf, TaskPlan, limited
from olmes_suite.models.base import Backend, Sent
from olmes_suite.records import CONTEXT, OPTIONAL, Request
from olmes_suite.runs.schema import FirstPrompt
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task
from olmes_suite.tasks.overrides import CONTEXT_NAME
from olmes_suite.tasks.settings import Settings


@dataclass(frozen=True, slots=True)
class Renderer:
    """A model's tokenizer and chat template."""

    chat: bool
    """Whether the model has a chat template; without one it receives plain text."""
    sent: Callable[[Request], Sent]
    context: int
    """The model's context in tokens, prompt and answer together."""
    unused_arguments: tuple[str, ...] = ()
    """Names of the given arguments of the chat template that make no difference."""


def renderer(
    model: str, chat_template: str | Path | None = None, revision: str | None = None, *,
    max_length: int | None = None, chat_template_args: Mapping[str, Any] | None = None,
) -> Renderer:  # fmt: skip
    """Load the tokenizer of a folder or Hub id, without its weights.

    `max_length` is the context in tokens, by default the model's where the folder has a configuration. Raises
    ModelError where the tokenizer cannot be loaded, UsageError for an invalid template file.
    """
    from olmes_suite.models.local.encoding import Encoder
    from olmes_suite.models.local.loading import context_of, load_tokenizer, read_template
    from olmes_suite.models.local.rendering import sent

    template = read_template(chat_template)
    encoder = Encoder(load_tokenizer(model, revision, weights=False), template, chat_template_args)
    context = max_length or context_of(model, revision, encoder.tokenizer)
    return Renderer(encoder.chat, lambda request: sent(encoder, request, context), context, encoder.unused_arguments())


def requests(
    task: str,
    source: DataSource,
    doc_ids: Sequence[int] | None = None,
    *,
    limit: int | None = None,
    seed: int = 1234,
    model: Renderer | None = None,
    settings: Settings | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield the requests of a task or group, as `olmes prompts` prints them; with `model`, as the model receives them.

    Raises UsageError for a limit below 1, and at the end for `doc_ids` that no sub-task has; RequestFailed where the
    model's chat template refuses a document. `settings` are put over the tasks' own.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit must be at least 1, not {limit}")
    entry, seen = catalog.find(task), set()
    chat = model is None or model.chat
    for name in entry.leaves:
        try:
            loaded = load_task(index.task_file(index.index()[name]), source)
        except MissingData as error:
            raise MissingData(error.of(entry.name)) from None
        if settings is not None:
            settings.apply(loaded)
            settings.check_tasks([loaded])
        leaf = Leaf(name, loaded, range(len(loaded.task_docs)))
        if limit is not None:
            leaf.rows = limited(leaf, limit, seed)
        if doc_ids is not None:
            positions = leaf.positions()
            chosen = set(leaf.rows)
            leaf.rows = [positions[i] for i in doc_ids if i in positions and positions[i] in chosen]
        for doc_id, doc in leaf.documents():
            seen.add(doc_id)
            for request in leaf.requests(doc_id, doc, chat=chat):
                line = _line(request, loaded.doc_to_target(doc))
                yield line | _sent(model.sent(request)) if model else line
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
        "max_tokens": CONTEXT_NAME if request.max_tokens == CONTEXT else request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        **{name: getattr(request, name) for name in OPTIONAL if getattr(request, name) is not None},
        "samples": request.samples if generated else None,
        "reference": reference,
    }


def _sent(sent: Sent) -> dict[str, Any]:
    fields: dict[str, Any] = {"rendered": sent.rendered, "prompt_tokens": sent.prompt_tokens}
    if sent.continuation_tokens is not None:
        fields["continuation_tokens"] = sent.continuation_tokens
    return fields | {"truncated": sent.truncated}


def first_prompts(plans: Sequence[TaskPlan], backend: Backend) -> dict[str, FirstPrompt]:
    """Return the first prompt of each leaf task as the backend sends it; empty for a backend without a model."""
    firsts: dict[str, Request] = {}
    for leaf in (leaf for plan in plans for leaf in plan.leaves):
        for doc_id, doc in leaf.documents():
            if asked := leaf.requests(doc_id, doc, chat=backend.chat):
                firsts[leaf.name] = asked[0]
                break
    found = zip(firsts.items(), backend.sent(list(firsts.values())), strict=True)
    return {task: _first(request, sent) for (task, request), sent in found if sent is not None}


def _first(request: Request, sent: Sent) -> FirstPrompt:
    return FirstPrompt(
        doc_id=request.doc_id,
        rendered=sent.rendered,
        prompt_tokens=sent.prompt_tokens,
        truncated=sent.truncated,
        messages=sent.messages,
        continuation=request.continuation,
    )
