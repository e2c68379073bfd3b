"""Task fingerprints: four hashes that say whether two scores compare, over the whole split whatever part was run."""

from __future__ import annotations

import contextlib
import hashlib
import json
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import OlmesError
from olmes_suite.files import cache_folder, file_signature, write_json
from olmes_suite.records import canonical_json, sha256
from olmes_suite.tasks.documents import content_hash, find_split

if TYPE_CHECKING:
    from olmes_suite.evaluation.plan import Leaf
    from olmes_suite.scoring.tools import Tools
    from olmes_suite.tasks.task import SuiteTask

_VERSION = 1


def fingerprint(leaf: Leaf, chat: bool, tools: Tools | None = None) -> dict[str, str]:
    """{"prompt", "data", "settings", "scorer"} of a leaf task, from the cache where data and task files are unchanged.

    The prompt hash is over the requests of all documents as chat messages, before any chat template; a run that
    sends plain text says so in its settings. The scorer hash holds the fingerprints of the models that the scorer
    asks (`tools`).
    """
    task = leaf.task
    cached = cache_folder() / "fingerprints" / f"{_cache_key(task)}.json"
    try:
        found = json.loads(cached.read_text(encoding="utf-8"))
        prompt, data = found["prompt"], found["data"]
    except (OSError, ValueError, KeyError):
        prompt, data = _prompt_hash(leaf), _data_hash(task)
        with contextlib.suppress(OSError, OlmesError):  # a read-only home costs time, nothing else
            write_json(cached, {"prompt": prompt, "data": data})
    return {
        "prompt": prompt,
        "data": data,
        "settings": _settings_hash(task, chat),
        "scorer": _scorer_hash(leaf, tools),
    }


def _scorer_hash(leaf: Leaf, tools: Tools | None) -> str:
    task = leaf.task
    parts: list[Any] = [
        leaf.name, task.VERSION, task.scorer.version, metric_names(task), task.config.metadata.get("primary")
    ]  # fmt: skip
    if tools is not None and (models := tools.fingerprints(task.keys.needs)):
        parts.append(models)
    return sha256(canonical_json(parts))


def metric_names(task: SuiteTask) -> list[str]:
    """The metrics that the task file declares, in order."""
    return list(task.aggregation())


def _cache_key(task: SuiteTask) -> str:
    from olmes_suite.tasks.task import Splits

    parts: list[Any] = [_VERSION, task.config.task]
    for path in sorted(task.folder.iterdir()):
        if path.suffix in (".yaml", ".py", ".json") or (
            path.name == "sample.jsonl" and task.source and task.source.sample
        ):
            parts.append([path.name, path.stat().st_size, path.stat().st_mtime_ns])
    from importlib.metadata import version

    parts.append(version("lm-eval"))
    splits = task.dataset
    if not isinstance(splits, Splits):  # lm-eval's own loading: hash what is evaluated
        parts.append(_rows_hash(task.task_docs))
        return sha256(canonical_json(parts))
    for split in splits:
        found = None if splits.source.sample else find_split(splits.source, splits.spec, split)
        parts.append(
            [split, file_signature(found) if found else content_hash(splits[split].data.table, task.spec.columns)]
        )
    return sha256(canonical_json(parts))


def _prompt_hash(leaf: Leaf) -> str:
    digest = hashlib.sha256()
    docs = leaf.task.task_docs
    for doc_id, position in leaf.positions().items():
        for request in leaf.requests(doc_id, docs[position], chat=True):
            seen = [request.messages, request.text, request.prefix, request.continuation]
            digest.update(canonical_json(seen).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _rows_hash(docs: Any) -> str:
    return content_hash(docs.data.table if docs._indices is None else docs.flatten_indices().data.table, ())


def _data_hash(task: SuiteTask) -> str:
    from olmes_suite.tasks.task import Splits

    splits = task.dataset
    if not isinstance(splits, Splits):
        return _rows_hash(task.task_docs)
    return sha256(
        canonical_json({split: content_hash(splits[split].data.table, task.spec.columns) for split in splits})
    )


def _settings_hash(task: SuiteTask, chat: bool) -> str:
    config = task.config
    settings = config.generation_kwargs if config.output_type == "generate_until" else None
    return sha256(
        canonical_json([config.output_type, settings, config.repeats, "chat" if chat and task.chat else "plain"])
    )
