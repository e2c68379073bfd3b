"""Names that tell runs and checkpoints apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath


def distinct(names: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Lengthen equal names by parent folders until they differ: `lr1e-4/run` and `lr1e-3/run`.

    `paths` are what the names stand for; an empty one leaves its name as it is, and equal paths keep equal names.
    """
    parts = [_parts(path) for path in paths]
    sizes = [0] * len(names)
    shown = list(names)
    while clash := _clashing(shown, parts):
        longer = [number for number in clash if sizes[number] < len(parts[number])]
        if not longer:
            break
        for number in longer:
            sizes[number] += 1
            shown[number] = _name(names[number], parts[number], sizes[number])
    return shown


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part for part in PurePath(path).parts if part not in ("/", "\\"))


def _clashing(shown: Sequence[str], parts: Sequence[tuple[str, ...]]) -> list[int]:
    """Return the entries with a path whose name another path has as well."""
    owners: dict[str, set[tuple[str, ...]]] = {}
    for name, path in zip(shown, parts, strict=True):
        owners.setdefault(name, set()).add(path)
    return [number for number, name in enumerate(shown) if len(owners[name]) > 1 and parts[number]]


def _name(name: str, parts: Sequence[str], size: int) -> str:
    """Return the last `size` parts of a path; beside the name, where the path does not end in it."""
    tail = "/".join(parts[-size:])
    if not "/".join(parts).endswith(name):
        return f"{name} ({tail})"
    return name if name.endswith(tail) else tail
