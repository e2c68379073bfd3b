"""Task fingerprints: four hashes, over the whole split, that tell whether two scores are comparable."""

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


def fingerprint(leaf: Leaf, chat: bool, tools: Tools | None = None, unclosed: str = "reference") -> dict[str, str]:
    """Compute {"prompt", "data", "settings", "scorer"} of a leaf task; cached while data and task files are unchanged.

    The prompt hash covers the requests of all documents as chat messages, before any chat template; the settings hash
    tells chat from plain text, and how `unclosed` thoughts are scored. The scorer hash includes the fingerprints of the
    models that the scorer asks (`tools`).
    """
    task = leaf.task
    cache_file = cache_folder() / "fingerprints" / f"{_cache_key(task)}.json"
    try:
        hashes = json.loads(cache_file.read_text(encoding="utf-8"))
        prompt, data = hashes["prompt"], hashes["data"]
    except (OSError, ValueError, KeyError):
        prompt, data = _prompt_hash(leaf), data_hash(task)
        with contextlib.suppress(OSError, OlmesError):  # a cache that cannot be written only costs time
            write_json(cache_file, {"prompt": prompt, "data": data})
    return {
        "prompt": prompt,
        "data": data,
        "settings": _settings_hash(task, chat, unclosed),
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
    """Return the metrics that the task file declares, in order."""
    return list(task.aggregation())


def _cache_key(task: SuiteTask) -> str:
    from olmes_suite.tasks.task import Splits

    parts: list[Any] = [_VERSION, task.config.task]
    for path in sorted(task.folder.iterdir()):
        if path.suffix in (".yaml", ".py", ".json") or (
            path.name == "sample.jsonl" and task.source and task.source.sample
        ):
            parts.append([path.name, path.stat().st_size, path.stat().st_mtime_ns])
    if task.system is not None:
        parts.append(["system", task.system])
    from importlib.metadata import version

    parts.append(version("lm-eval"))
    splits = task.dataset
    if not isinstance(splits, Splits):  # loaded by lm-eval: hash the documents to evaluate
        parts.append(_rows_hash(task.task_docs))
        return sha256(canonical_json(parts))
    for split in splits:
        file = None if splits.source.sample else find_split(splits.source, splits.spec, split)
        parts.append(
            [split, file_signature(file) if file else content_hash(splits[split].data.table, task.spec.columns)]
        )
    return sha256(canonical_json(parts))


def _prompt_hash(leaf: Leaf) -> str:
    digest = hashlib.sha256()
    docs = leaf.task.task_docs
    for doc_id, position in leaf.positions().items():
        for request in leaf.requests(doc_id, docs[position], chat=True):
            parts = [request.messages, request.text, request.prefix, request.continuation]
            digest.update(canonical_json(parts).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _rows_hash(docs: Any) -> str:
    return content_hash(docs.data.table if docs._indices is None else docs.flatten_indices().data.table, ())


def data_hash(task: SuiteTask) -> str:
    """Return the hash of the task's data, as in its fingerprint."""
    from olmes_suite.tasks.task import Splits

    splits = task.dataset
    if not isinstance(splits, Splits):
        return _rows_hash(task.task_docs)
    return sha256(
        canonical_json({split: content_hash(splits[split].data.table, task.spec.columns) for split in splits})
    )


def _settings_hash(task: SuiteTask, chat: bool, unclosed: str) -> str:
    config = task.config
    settings = config.generation_kwargs if config.output_type == "generate_until" else None
    in_chat = chat and task.chat
    parts: list[Any] = [config.output_type, settings, config.repeats, "chat" if in_chat else "plain"]
    if unclosed != "reference" and config.output_type == "generate_until":
        parts.append({"unclosed": unclosed})
    if in_chat and task.chat_template_args:
        parts.append({"chat_template_args": dict(task.chat_template_args)})
    if task.averages_samples:
        parts.append("mean over samples")
    return sha256(canonical_json(parts))
