"""Recipes as a file would hold them: dataclasses become mappings, tuples lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

UNSET = {"unset": True}
"""Metadata of a key that a resolved recipe omits at its default, so that recipes of earlier versions stay equal."""


def plain(value: Any) -> Any:
    """Return a value of a recipe as YAML and JSON hold it, without keys that are omitted at their default."""
    if is_dataclass(value) and not isinstance(value, type):
        shown = [one for one in fields(value) if not (one.metadata.get("unset") and _is_default(value, one))]
        return {one.name: plain(getattr(value, one.name)) for one in shown}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _is_default(value: Any, one: Any) -> bool:
    return bool(getattr(value, one.name) == one.default)
