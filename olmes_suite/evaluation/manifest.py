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
from olmes_suite.evaluation.plan import Leaf, Options, TaskPlan
from olmes_suite.runs.schema import (
    DataUsed,
    Engine,
    Lineage,
    Manifest,
    ModelName,
    PlannedLeaf,
    PlannedTask,
    ScoringModel,
)
from olmes_suite.scoring.tools import Tools
from olmes_suite.tasks import catalog, index
from olmes_suite.tasks.documents import find_split
from olmes_suite.tasks.settings import effective

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
    """Return the versions of the packages that can change a score."""
    versions = {"olmes-suite": __version__}
    for name in _PACKAGES[1:]:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def git_commit() -> dict[str, Any] | None:
    """Return the commit of the working folder and whether it has uncommitted changes; None outside a repository."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": head.stdout.strip(), "dirty": bool(dirty.stdout.strip())}


def hardware() -> dict[str, Any]:
    """Describe the machine, as far as a score or a time can depend on it."""
    return {"platform": platform.platform(), "python": sys.version.split()[0], "processors": os.cpu_count()}


def data_used(plans: Sequence[TaskPlan]) -> dict[str, DataUsed]:
    """Return the data set, revision and file of each leaf task."""
    return {leaf.name: _data_of(leaf) for plan in plans for leaf in plan.leaves}


def _data_of(leaf: Leaf) -> DataUsed:
    from olmes_suite.tasks.task import Splits

    splits, spec = leaf.task.dataset, leaf.task.spec
    if not isinstance(splits, Splits):
        return DataUsed.of_lm_eval(spec.path, spec.config, len(leaf.rows))
    sample = splits.source.sample
    files = {} if sample else {split: str(find_split(splits.source, spec, split) or "") for split in splits}
    return DataUsed(
        path=spec.path,
        config=spec.config,
        revision=spec.revision,
        origin="sample" if sample else ("mirror" if any(files.values()) else "hub"),
        files=files,
        documents=len(leaf.rows),
    )


def manifest(
    run: str, options: Options, plans: Sequence[TaskPlan], *, engine: Engine, lineage: Lineage, tools: Tools
) -> Manifest:
    """Build the manifest without the times and counts, which are known only at the end."""
    return Manifest(
        run=run,
        command=tuple(options.command),
        folder=str(Path.cwd()),
        model=ModelName(path=options.model, revision=options.engine.get("revision")),
        engine=engine,
        suites=tuple(options.suite_names),
        tasks={leaf.name: leaf.fingerprint for plan in plans for leaf in plan.leaves},
        plan=tuple(_planned(plan) for plan in plans),
        data=data_used(plans),
        limit=options.limit,
        max_documents=options.max_documents,
        name=options.name,
        include_paths=include_paths(plans),
        planned=options.planned,
        projected_from=options.baseline,
        settings=options.settings.as_json(),
        sampling={leaf.name: effective(leaf.task, options.unclosed) for plan in plans for leaf in plan.leaves},
        seed=options.seed,
        sample=options.source.sample,
        mirrors=tuple(str(mirror) for mirror in options.source.mirrors),
        sandbox=tools.made["sandbox"].describe() if "sandbox" in tools.made else None,
        lineage=lineage,
        packages=packages(),
        git=git_commit(),
        hardware=hardware(),
    )


def include_paths(plans: Sequence[TaskPlan]) -> tuple[str, ...]:
    """Return the folders of `--include-path` that hold a task of the run."""
    files = [Path(index.task_file(entry)) for plan in plans if (entry := index.index().get(plan.name)) is not None]
    folders = (folder.resolve() for folder in catalog.include_paths)
    return tuple(str(folder) for folder in folders if any(file.is_relative_to(folder) for file in files))


def _planned(plan: TaskPlan) -> PlannedTask:
    return PlannedTask(
        task=plan.name,
        primary=plan.primary,
        aggregate=plan.aggregate,
        skill=plan.skill,
        error=plan.error,
        leaves=tuple(PlannedLeaf(task=leaf.name, cluster=leaf.cluster) for leaf in plan.leaves),
    )


def scorers(tools: Tools) -> dict[str, ScoringModel] | None:
    """Return the models that scored, by need; None if there are none."""
    records = tools.record()
    return None if records is None else {need: ScoringModel.from_json(record) for need, record in records.items()}
