"""The files of the parity examples, our task files, and the names of our tasks in the reference."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

TASKS = Path(__file__).parents[2] / "tasks"
ALIASES = Path(__file__).with_name("reference_aliases.yaml")

Row = dict[str, Any]


class UsageError(Exception):
    """Wrong usage: one line, exit status 2."""


def own_file(name: str) -> dict[str, Any]:
    """Our task file with what it includes; `!function` is read as text, so that no code is loaded."""
    index = json.loads((TASKS / "index.json").read_text(encoding="utf-8"))["tasks"]
    return _yaml(TASKS / index[name]["file"]) if name in index else {}


class _Loader(yaml.SafeLoader):
    """YAML in which a function is its name."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def _yaml(path: Path) -> dict[str, Any]:
    read = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    included = read.pop("include", None)
    return (_yaml(path.parent / included) if included else {}) | read


def alias_of(name: str) -> str | None:
    """The reference's name of a task of ours; None where the table has none."""
    for entry in yaml.safe_load(ALIASES.read_text(encoding="utf-8")):
        if found := re.fullmatch(entry["task"], name):
            return found.expand(entry["alias"])
    return None


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON lines file; none where it is absent. Raises UsageError."""
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write a JSON lines file in one step."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    beside.replace(path)


def chosen_tasks(named: Sequence[str], known: Iterable[str]) -> list[str]:
    """The tasks to do: the named ones, with all sub-tasks of a group, or all. Raises UsageError for an unknown one."""
    index = json.loads((TASKS / "index.json").read_text(encoding="utf-8"))["tasks"]
    leaves = [name for name, entry in index.items() if not entry.get("members")]
    possible = dict.fromkeys([*known, *(name for name in leaves if alias_of(name))])
    if not named:
        return list(possible)
    out: dict[str, None] = {}
    for name in named:
        full = next((full for full in (name, f"tulu3_{name}") if full in possible or full in index), name)
        members = [leaf for leaf in index.get(full, {}).get("members") or [full] if leaf in possible]
        if not members:
            raise UsageError(f"no task {name!r} with a counterpart in the reference")
        out |= dict.fromkeys(members)
    return list(out)


def replaced(before: Sequence[Row], made: Mapping[str, Sequence[Row]]) -> list[Row]:
    """The rows before, with the rows of each task that was made in the place of its first one."""
    left = dict(made)
    out: list[Row] = []
    for row in before:
        if row["task"] not in made:
            out.append(row)
        else:
            out += left.pop(row["task"], ())
    return [*out, *(row for rows in left.values() for row in rows)]
