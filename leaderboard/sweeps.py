"""What tells the rows of a sweep apart: their checkpoints' folders, and the keys in which their recipes differ."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from leaderboard import lineage
from leaderboard.page_data import Row, Run
from olmes_suite.runs.names import distinct

_BESIDE = frozenset({"output", "eval", "gate", "final", "decontam", "model"})
"""Keys of a recipe that do not change the weights, or that the page shows elsewhere."""
_SHOWN = 3
"""Number of keys that a row shows."""
_LONGEST = 40


def names_of(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Return the names of checkpoints, given by their runs; equal names are lengthened by folders."""
    paths = [lineage.place(runs[0], runs[0].model_path) if _has_folder(runs[0]) else "" for runs in groups]
    return distinct([runs[0].model for runs in groups], paths)


def _has_folder(run: Run) -> bool:
    return run.kind == "measured" or (run.kind == "imported" and run.model_path.startswith("/"))


def with_recipes(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with what differs in the recipes of one stage and parent."""
    families: dict[tuple[str, str | None], list[int]] = {}
    recipes = [_flat(_recipe(row)) for row in rows]
    for number, row in enumerate(rows):
        if recipes[number]:
            families.setdefault((row.stage, row.parent), []).append(number)
    differs = [""] * len(rows)
    for members in families.values():
        keys = _differing([recipes[number] for number in members])
        for number in members:
            differs[number] = _text(recipes[number], keys)
    return [replace(row, recipe=text) for row, text in zip(rows, differs, strict=True)]


def _recipe(row: Row) -> Mapping[str, Any]:
    found = next((run.lineage.recipe for run in row.runs if run.lineage.is_known), None)
    return found if isinstance(found, Mapping) else {}


def _flat(value: Any, prefix: str = "") -> dict[str, str]:
    """Flatten a recipe to texts by dotted key, without the keys beside the training."""
    if not isinstance(value, Mapping):
        return {prefix: value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)}
    flat: dict[str, str] = {}
    for key, inner in value.items():
        if prefix or key not in _BESIDE:
            flat |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _differing(recipes: Sequence[Mapping[str, str]]) -> list[str]:
    keys = dict.fromkeys(key for recipe in recipes for key in recipe)
    return [key for key in keys if len({recipe.get(key) for recipe in recipes}) > 1]


def _text(recipe: Mapping[str, str], keys: Sequence[str]) -> str:
    """Format the keys in which a recipe differs from others: `learning_rate 0.0001, seed 7`."""
    parts = [f"{key.rpartition('.')[2]} {recipe.get(key, '–'):.{_LONGEST}}" for key in keys[:_SHOWN]]
    return ", ".join([*parts, *(["…"] if len(keys) > _SHOWN else [])])
