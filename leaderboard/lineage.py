"""The lineage of checkpoints: which was trained from which. Pure functions over runs."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from leaderboard.page_data import Run
from olmes_suite.records import canonical_json, sha256
from olmes_suite.runs.ledger import lineage_name


def place(run: Run, path: str) -> str:
    """Normalise a checkpoint's path; relative paths start from the folder in which the run was made."""
    if not path:
        return ""
    return os.path.normpath(os.path.join(run.manifest.folder, path)) if _local(path) else path


def _local(path: str) -> bool:
    """Whether a name is a path, not a Hub id such as `owner/name`."""
    return path.startswith((".", "/", "~")) or path.count("/") != 1


def parents(groups: Sequence[Sequence[Run]]) -> list[int | str | None]:
    """Return, for each checkpoint (its runs), the number of the checkpoint that it was trained from.

    Returns the path where the parent has no run here, None where no parent is known.
    """
    at: dict[str, int] = {}
    by_name: dict[str, list[int]] = {}
    for number, runs in enumerate(groups):
        for path in {place(run, run.model_path) for run in runs} | {run.model_path for run in runs}:
            if path:
                at.setdefault(path, number)
        for name in {os.path.basename(os.path.normpath(run.model_path or run.model)) for run in runs}:
            by_name.setdefault(name, []).append(number)
    return [_parent(number, runs, at, by_name) for number, runs in enumerate(groups)]


def _parent(
    number: int, runs: Sequence[Run], at: Mapping[str, int], by_name: Mapping[str, list[int]]
) -> int | str | None:
    for run in runs:
        named = run.lineage.parent
        if not named:
            continue
        for path in (place(run, named), named):
            if at.get(path, number) != number:
                return at[path]
        same = [other for other in by_name.get(os.path.basename(os.path.normpath(named)), ()) if other != number]
        return same[0] if len(same) == 1 else named
    return None


def training(runs: Sequence[Run]) -> str:
    """Return a key of the training that made a checkpoint, given by its runs: equal for all that it saved.

    Two trainings of one stage on one parent differ in recipe, data or folder. "" for a checkpoint without a stage.
    """
    run = next((run for run in runs if run.lineage.is_known), None)
    if run is None or not run.lineage.stage:
        return ""
    about = run.lineage.as_json()
    parts = [about.get(key) for key in ("parent", "stage", "recipe", "data", "seed")]
    recipe = about.get("recipe")
    if not (isinstance(recipe, Mapping) and recipe.get("output")):  # a recipe names the folder of its training
        parts.append(_without_step(place(run, run.model_path), run.lineage.step))
    return sha256(canonical_json(parts))[:12]


def _without_step(path: str, step: int | None) -> str:
    """Return the folder of a training, from that of a checkpoint: `out/checkpoint-500` and `out-500` become `out`."""
    folder, name = os.path.split(os.path.normpath(path)) if path else ("", "")
    if re.fullmatch(r"(checkpoint|step|global_step|epoch)[-_]?\d+|final|last|best", name):
        return folder
    return os.path.join(folder, re.sub(rf"[-_.]?(step)?[-_]?0*{step}$", "", name)) if step is not None else path


def families(parents: Sequence[int | str | None], names: Sequence[str]) -> list[str]:
    """Return the name of each checkpoint's oldest ancestor; a loop ends at the first repeated checkpoint."""
    out = []
    for number in range(len(parents)):
        seen, current = {number}, number
        while isinstance(parent := parents[current], int) and parent not in seen:
            seen.add(parent)
            current = parent
        root = parents[current]
        out.append(os.path.basename(os.path.normpath(root)) if isinstance(root, str) else names[current])
    return out


def looks(
    groups: Sequence[Sequence[Run]], family: Sequence[str], ledger: Iterable[Mapping[str, Any]]
) -> dict[str, int]:
    """Count the ledger's lines of each family, matched by the name of the run or of the lineage."""
    by_run: dict[str, str] = {}
    by_name: dict[str, str] = {}
    for runs, name in zip(groups, family, strict=True):
        for run in runs:
            by_run[run.name] = name
            by_name.setdefault(lineage_name(run.lineage, run.model_path.rstrip("/").rsplit("/", 1)[-1]), name)
    counts: dict[str, int] = {}
    for line in ledger:
        if not isinstance(line, Mapping):
            continue
        owner = by_run.get(str(line.get("run"))) or by_name.get(str(line.get("lineage")))
        if owner is not None:
            counts[owner] = counts.get(owner, 0) + 1
    return counts
