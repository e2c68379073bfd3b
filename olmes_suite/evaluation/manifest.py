"""The manifest: everything needed to repeat a run, and what it cost."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from olmes_suite import __version__
from olmes_suite.evaluation.plan import Options, TaskPlan
from olmes_suite.runs.store import SCHEMA
from olmes_suite.scoring.tools import Tools
from olmes_suite.tasks.documents import find_split

_PACKAGES = (
    "olmes-suite",
    "lm-eval",
    "transformers",
    "torch",
    "tokenizers",
    "datasets",
    "sympy",
    "numpy",
    "nltk",
    "langdetect",
    "emoji",
    "syllapy",
    "pyspellchecker",
    "spacy",
    "vllm",
)


def packages() -> dict[str, str]:
    """Versions of the packages that can move a score."""
    found = {"olmes-suite": __version__}
    for name in _PACKAGES[1:]:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> dict[str, Any] | None:
    """Commit of the working folder and whether it has uncommitted changes; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": head.stdout.strip(), "dirty": bool(dirty.stdout.strip())}


def hardware() -> dict[str, Any]:
    """The machine, as far as a score or a time can depend on it."""
    return {"platform": platform.platform(), "python": sys.version.split()[0], "processors": os.cpu_count()}


def data_used(plans: Sequence[TaskPlan]) -> dict[str, Any]:
    """Of each leaf task: data set, revision, and the file that was read."""
    from olmes_suite.tasks.task import Splits

    used: dict[str, Any] = {}
    for plan in plans:
        for leaf in plan.leaves:
            splits, spec = leaf.task.dataset, leaf.task.spec
            if not isinstance(splits, Splits):
                used[leaf.name] = {
                    "path": spec.path,
                    "config": spec.config,
                    "from": "lm-eval",
                    "documents": len(leaf.rows),
                }
                continue
            files = (
                {split: str(find_split(splits.source, spec, split) or "") for split in splits}
                if not splits.source.sample
                else {}
            )
            used[leaf.name] = {
                "path": spec.path,
                "config": spec.config,
                "revision": spec.revision,
                "from": "sample" if splits.source.sample else ("mirror" if any(files.values()) else "hub"),
                "files": files,
                "documents": len(leaf.rows),
            }
    return used


def manifest(
    run: str,
    options: Options,
    plans: Sequence[TaskPlan],
    engine: dict[str, Any],
    lineage: dict[str, Any],
    tools: Tools,
) -> dict[str, Any]:
    """The manifest without what is known only at the end (times, counts)."""
    return {
        "schema": SCHEMA,
        "run": run,
        "command": list(options.command),
        "folder": str(Path.cwd()),
        "model": {"path": options.model, "revision": options.engine.get("revision")},
        "engine": engine,
        "suites": list(options.suite_names),
        "tasks": {leaf.name: leaf.fingerprint for plan in plans for leaf in plan.leaves},
        "plan": [
            {
                "task": plan.name,
                "primary": plan.primary,
                "aggregate": plan.aggregate,
                "skill": plan.skill,
                "error": plan.error,
                "leaves": [{"task": leaf.name, "cluster": leaf.cluster} for leaf in plan.leaves],
            }
            for plan in plans
        ],
        "data": data_used(plans),
        "limit": options.limit,
        "seed": options.seed,
        "sample": options.source.sample,
        "mirrors": [str(mirror) for mirror in options.source.mirrors],
        "sandbox": tools.made["sandbox"].describe() if "sandbox" in tools.made else None,
        "judge": None,
        "lineage": lineage,
        "packages": packages(),
        "git": git_commit(),
        "hardware": hardware(),
    }
