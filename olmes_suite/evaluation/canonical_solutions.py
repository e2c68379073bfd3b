"""Check of the canonical solutions before a model is loaded: a sandbox that fails them would fail a model too."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import MissingData, OlmesError
from olmes_suite.evaluation.gold_check import REJECTED
from olmes_suite.evaluation.plan import Leaf, TaskPlan
from olmes_suite.evaluation.pool import ScoringPool
from olmes_suite.files import cache_folder, write_json
from olmes_suite.records import Scored, canonical_json, sha256
from olmes_suite.scoring.scorers import SandboxedScorer
from olmes_suite.scoring.tools import Tools

if TYPE_CHECKING:
    from olmes_suite.sandbox.grade import Sandbox


def rehearse(plan: TaskPlan, tools: Tools, note: Callable[[str], None]) -> None:
    """Run the canonical solutions of the documents to evaluate.

    A failure that is not listed in the task's folder marks the task as failed. Verdicts are cached by task, document,
    rung and Python version.
    """
    for leaf in plan.leaves:
        if isinstance(leaf.task.scorer, SandboxedScorer) and leaf.task.keys.gold:
            try:
                problem = _unexpected(leaf, tools, note)
            except MissingData as error:
                problem = str(error)
            if problem:
                plan.error, plan.leaves = problem, []
                return


def _unexpected(leaf: Leaf, tools: Tools, note: Callable[[str], None]) -> str | None:
    """Describe in one line the canonical solutions that fail unexpectedly; None if there are none."""
    sandbox = tools.get("sandbox")
    path = cache_folder() / "canonical" / f"{_identity(leaf, sandbox)}.json"
    verdict_of = _read(path)
    docs = {_key(doc): (doc_id, doc) for doc_id, doc in leaf.documents()}
    unknown = {key: doc for key, (_, doc) in docs.items() if key not in verdict_of}
    if unknown:
        note(f"{leaf.name}: running {len(unknown)} canonical solutions in the sandbox")
        verdict_of |= verdicts(leaf, unknown, tools)
        with contextlib.suppress(OSError, OlmesError):  # a cache that cannot be written only costs time
            write_json(path, {key: verdict for key, verdict in verdict_of.items() if not verdict.startswith("error")})
    expected = expected_failures(leaf)
    failed = {
        doc_id: verdict_of[key]
        for key, (doc_id, _) in docs.items()
        if verdict_of[key] != "pass" and doc_id not in expected
    }
    if not failed:
        return None
    examples = "; ".join(f"doc_id {doc_id} {verdict}" for doc_id, verdict in sorted(failed.items())[:3])
    line = f"{len(failed)} of {len(docs)} canonical solutions do not pass in the sandbox ({examples})"
    if leaf.task.config.metadata.get("canonical") == "reported":
        note(f"{leaf.name}: {line}")
        return None
    return f"{line}: a model's score would be wrong too"


def verdicts(leaf: Leaf, docs: Mapping[str, dict[str, Any]], tools: Tools) -> dict[str, str]:
    """Run each document's canonical solution; returns the verdicts by key of the document."""
    verdict_of: dict[str, str] = {}
    scorer = leaf.task.scorer
    assert isinstance(scorer, SandboxedScorer)

    def done(key: str) -> Callable[[Scored, list[Scored], bool], None]:
        def record(scored: Scored, samples: list[Scored], timed_out: bool) -> None:
            verdict_of[key] = str(samples[0].verdict)

        return record

    gold = leaf.task.keys.gold
    assert gold is not None, "rehearse calls this for tasks with `gold` only"
    with ScoringPool(tools=tools) as pool:
        for key, doc in docs.items():
            pool.submit(scorer, (), doc, [gold(doc)], where=leaf.name, done=done(key))
        pool.join()
    return verdict_of


def expected_failures(leaf: Leaf) -> set[int]:
    """Return the documents whose canonical solution is known to fail, or to be slow; none for sample documents."""
    path = leaf.task.folder / REJECTED
    if not path.is_file() or (leaf.task.source and leaf.task.source.sample):
        return set()
    recorded = json.loads(path.read_text(encoding="utf-8"))
    rows = (entry.get(key, {}).get(leaf.name, ()) for entry in recorded.values() for key in ("doc_ids", "slow"))
    return {row for found in rows for row in found}


def _identity(leaf: Leaf, sandbox: Sandbox) -> str:
    variable = leaf.task.config.metadata.get("interpreter")
    parts = [leaf.name, leaf.task.VERSION, leaf.task.scorer.version, sandbox.rung, sandbox.python.version]
    return sha256(canonical_json([*parts, os.environ.get(variable) if variable else None]))


def _key(doc: Mapping[str, Any]) -> str:
    return sha256(canonical_json({name: value for name, value in doc.items() if isinstance(value, str)}))[:24]


def _read(path: Path) -> dict[str, str]:
    try:
        cached: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return cached
    except (OSError, ValueError):
        return {}
