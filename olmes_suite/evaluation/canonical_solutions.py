"""Canonical solutions first: a sandbox that fails them would fail a model too. Before any model is loaded."""

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
    """Run the canonical solutions of the documents that are to be evaluated; a failure that is not listed in the task's
    folder marks the task. Verdicts are cached by task, document, rung and Python."""
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
    """One line about canonical solutions that do not pass though nothing says so; None where all is as recorded."""
    sandbox = tools.get("sandbox")
    path = cache_folder() / "canonical" / f"{_identity(leaf, sandbox)}.json"
    known = _read(path)
    docs = {_key(doc): (doc_id, doc) for doc_id, doc in leaf.documents()}
    missing = {key: doc for key, (_, doc) in docs.items() if key not in known}
    if missing:
        note(f"{leaf.name}: running {len(missing)} canonical solutions in the sandbox")
        known |= verdicts(leaf, missing, tools)
        with contextlib.suppress(OSError, OlmesError):  # a read-only home costs time, nothing else
            write_json(path, {key: verdict for key, verdict in known.items() if not verdict.startswith("error")})
    listed = expected_failures(leaf)
    failed = {doc_id: known[key] for key, (doc_id, _) in docs.items() if known[key] != "pass" and doc_id not in listed}
    if not failed:
        return None
    some = "; ".join(f"doc_id {doc_id} {verdict}" for doc_id, verdict in sorted(failed.items())[:3])
    line = f"{len(failed)} of {len(docs)} canonical solutions do not pass in the sandbox ({some})"
    if leaf.task.config.metadata.get("canonical") == "reported":
        note(f"{leaf.name}: {line}")
        return None
    return f"{line}: a model's score would be wrong too"


def verdicts(leaf: Leaf, docs: Mapping[str, dict[str, Any]], tools: Tools) -> dict[str, str]:
    """The verdict on each document's canonical solution."""
    found: dict[str, str] = {}
    scorer = leaf.task.scorer
    assert isinstance(scorer, SandboxedScorer)

    def done(key: str) -> Callable[[Scored, list[Scored], bool], None]:
        def keep(scored: Scored, samples: list[Scored], timed_out: bool) -> None:
            found[key] = str(samples[0].verdict)

        return keep

    gold = leaf.task.keys.gold
    assert gold is not None, "rehearse calls this for tasks with `gold` only"
    with ScoringPool(tools=tools) as pool:
        for key, doc in docs.items():
            pool.submit(scorer, (), doc, [gold(doc)], leaf.name, done(key))
        pool.join()
    return found


def expected_failures(leaf: Leaf) -> set[int]:
    """Documents whose canonical solution is known to fail its own tests (of the real data, not of sample documents)."""
    path = leaf.task.folder / REJECTED
    if not path.is_file() or (leaf.task.source and leaf.task.source.sample):
        return set()
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return {row for entry in recorded.values() for row in entry.get("doc_ids", {}).get(leaf.name, ())}


def _identity(leaf: Leaf, sandbox: Sandbox) -> str:
    variable = leaf.task.config.metadata.get("interpreter")
    known = [leaf.name, leaf.task.VERSION, leaf.task.scorer.version, sandbox.rung, sandbox.python.version]
    return sha256(canonical_json([*known, os.environ.get(variable) if variable else None]))


def _key(doc: Mapping[str, Any]) -> str:
    return sha256(canonical_json({name: value for name, value in doc.items() if isinstance(value, str)}))[:24]


def _read(path: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError):
        return {}
