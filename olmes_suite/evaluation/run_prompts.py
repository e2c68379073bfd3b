"""The prompts of recorded runs, rendered again from the task files and data that the runs name, and checked.

A run records the responses, and a hash of each prompt (the key of the response). The prompts are rendered again; where
the hash of a leaf task's first recorded document differs, a note says so.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite import extras
from olmes_suite.errors import OlmesError, one_line
from olmes_suite.runs import task_folders
from olmes_suite.runs.importers.write import PROMPTS
from olmes_suite.runs.schema import Engine, Manifest, instances_file, read_prompts
from olmes_suite.runs.store import readable_lines
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.settings import Settings

if TYPE_CHECKING:
    from olmes_suite.tasks.task import SuiteTask

Place = tuple[str, Any]
"""(leaf task, doc_id)."""
Prompt = dict[str, Any]
"""{"m": [[role, text], …]} or {"t": text}, with "p" (assistant prefix) and "c" (continuations) where there are some.

"s" is the position in the text, or in the last message, at which the document's question starts after examples or
instructions; left out where it is 0 or not known.
"""


def render(run: Path, manifest: Manifest, task: str, places: Iterable[Place]) -> tuple[dict[Place, Prompt], str]:
    """Render the prompts of a task's documents as the run in the folder `run` sent them.

    Also returns a note on why there are none, or that they differ; "" where they are the same.
    """
    if manifest.imported:
        return _imported(run, task, set(places))
    if not extras.installed("lm_eval"):
        return {}, f"prompts are rendered where the extra `eval` is installed: {extras.install('eval')}"
    try:
        with task_folders.searched(manifest):
            return _render(run, manifest, task, places)
    except (OlmesError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, f"prompts cannot be rendered here: {one_line(error, 300)}"


def _imported(run: Path, task: str, places: set[Place]) -> tuple[dict[Place, Prompt], str]:
    """Read the questions that an imported log brought along."""
    file = run / PROMPTS / f"{instances_file(run, task).stem}.jsonl"
    if not file.is_file():
        return {}, "imported scores come without prompts"
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        found = {(line["task"], line["doc_id"]): {"t": str(line["text"])} for line in lines}
    except (OSError, ValueError, KeyError, TypeError) as error:
        return {}, f"{file} is damaged: {one_line(error, 200)}"
    prompts = {place: prompt for place, prompt in found.items() if place in places}
    _mark_shared_start(prompts)
    return prompts, ""


def question(prompt: Prompt) -> str:
    """Return the document's question: the last message or the text, without the examples before it."""
    text = prompt["m"][-1][1] if prompt.get("m") else prompt.get("t") or ""
    return str(text[prompt.get("s", 0) :])


def _mark_shared_start(prompts: Mapping[Place, Prompt]) -> None:
    """Mark the start of the question in plain texts: after the paragraphs that all prompts of a leaf task share."""
    by_leaf: dict[str, list[Prompt]] = {}
    for (leaf, _), prompt in prompts.items():
        by_leaf.setdefault(leaf, []).append(prompt)
    for members in by_leaf.values():
        if len(members) > 1:
            shared = os.path.commonprefix([member["t"] for member in members]).rfind("\n\n")  # noqa: RUF071 - texts
            for member in members if shared > 0 else ():
                member["s"] = shared + 2


def _render(run: Path, manifest: Manifest, task: str, places: Iterable[Place]) -> tuple[dict[Place, Prompt], str]:
    from olmes_suite.tasks.load import load_task

    mirrors = tuple(map(Path, manifest.mirrors))
    source = DataSource(tuple(m for m in mirrors if m.is_dir()), manifest.sample)
    doc_ids_of: dict[str, list[Any]] = {}
    for leaf, doc_id in places:
        doc_ids_of.setdefault(leaf, []).append(doc_id)
    # The floor's responses are those of its best constant answer, under the keys of that run.
    keys = {} if manifest.engine.backend == "floor" else _first_keys(run, task, doc_ids_of)
    engine, settings = manifest.engine, Settings.from_json(manifest.settings)
    rendered: dict[Place, Prompt] = {}
    note = ""
    for leaf, doc_ids in doc_ids_of.items():
        if leaf not in index.index() and _from(manifest, leaf) != "lm-eval" and not task_folders.folders(manifest):
            return rendered, f"{leaf} is not a task of this installation: its prompts cannot be rendered"
        task = load_task(index.task_file(catalog.find(leaf)), source)
        settings.apply(task)
        leaf_prompts, same = _leaf(leaf, task, doc_ids, engine, keys.get(leaf))
        rendered.update(leaf_prompts)
        if not same:
            note = "the task or its data has changed since the run: these prompts are the current ones"
    return rendered, note


def _from(manifest: Manifest, leaf: str) -> str | None:
    """Return the origin of the run's data: mirror, hub, sample or lm-eval."""
    used = manifest.data.get(leaf)
    return used.origin if used is not None else None


def _leaf(
    leaf: str, task: SuiteTask, doc_ids: list[Any], engine: Engine, key: tuple[Any, int, str] | None
) -> tuple[dict[Place, Prompt], bool]:
    from olmes_suite.evaluation.plan import Leaf

    loaded = Leaf(leaf, task, range(len(task.task_docs)))
    positions, chat = loaded.positions(), engine.chat
    rendered: dict[Place, Prompt] = {}
    same = True
    for doc_id in doc_ids:
        if doc_id not in positions:
            continue
        requests = loaded.requests(doc_id, task.task_docs[positions[doc_id]], chat=chat)
        rendered[leaf, doc_id] = _prompt(requests) | _start(requests, task, task.task_docs[positions[doc_id]])
        if key is not None and key[0] == doc_id and key[1] < len(requests):
            same = requests[key[1]].key(str(engine.fingerprint)) == key[2]
    return rendered, same


def first_sent(run: Path) -> dict[str, list[Any]]:
    """Map each leaf task to [doc_id, text as the model received it, number of token ids] of its first prompt.

    The text is None where a server rendered the messages. Empty for a run without recorded prompts, or with damaged
    ones, which are of no use to scores.
    """
    try:
        recorded = read_prompts(run)
    except OlmesError:
        return {}
    tasks = recorded.tasks.items() if recorded is not None else ()
    return {task: [first.doc_id, first.rendered, first.prompt_tokens] for task, first in tasks if first.rendered}


def _prompt(requests: list[Any]) -> Prompt:
    first = requests[0]
    out: Prompt = {"t": first.text} if first.messages is None else {"m": [list(message) for message in first.messages]}
    if first.prefix:
        out["p"] = first.prefix
    if any(request.continuation is not None for request in requests):
        out["c"] = [request.continuation for request in requests]
    return out


def _start(requests: list[Any], task: SuiteTask, doc: Mapping[str, Any]) -> dict[str, int]:
    """Return {"s": where the document's own text starts}, {} where that is the start or not known."""
    try:
        own = task.doc_to_text(doc)
    except Exception:  # a task's own code; it may need more than the document
        return {}
    text = requests[0].messages[-1][1] if requests[0].messages else requests[0].text or ""
    at = text.rfind(own.strip()) if isinstance(own, str) and own.strip() else -1
    return {"s": at} if at > 0 else {}


def _first_keys(run: Path, task: str, doc_ids_of: Mapping[str, list[Any]]) -> dict[str, tuple[Any, int, str]]:
    """Map each leaf task to (doc_id, index, key) of one recorded response of its documents."""
    chosen = {leaf: set(doc_ids) for leaf, doc_ids in doc_ids_of.items()}
    keys: dict[str, tuple[Any, int, str]] = {}
    for line in readable_lines(responses_file(run, task)):
        if len(keys) == len(chosen):
            break
        if line.task not in keys and line.doc_id in chosen.get(line.task, ()):
            keys[line.task] = line.doc_id, line.index, line.key
    return keys


def responses_file(run: Path, task: str) -> Path:
    """Return the file of a top-level task's recorded responses."""
    return run / "responses" / f"{instances_file(run, task).stem}.jsonl"
