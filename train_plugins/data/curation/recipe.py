"""Recipes of `olmes data`: one YAML file for each data set that is made, checked against a dataclass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError
from olmes_suite.yaml_files import Place
from train_plugins.config.recipe import read_yaml, set_key

SHIPPED = Path(__file__).parent / "recipes"
"""Shipped recipes: `recipes/<command>/<name>.yaml`."""
Format = Literal["parquet", "jsonl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curation:
    """The keys of every recipe of `olmes data`; a command's own keys are a subclass."""

    output: str | None = None
    """Folder of the finished data set; `--out` replaces it."""
    seed: int = 42
    format: Format = "parquet"
    """Format of the rows: data.parquet or data.jsonl."""


K = TypeVar("K", bound=Curation)


@dataclass(frozen=True, slots=True)
class Loaded(Generic[K]):
    """A checked recipe."""

    command: str
    """The name of the command: mix, prompts, …"""
    keys: K
    output: Path
    place: Place
    """The start of error messages about the recipe: `loaded.place.inside("sources", 2)` names a part of it."""

    def as_data(self) -> dict[str, Any]:
        """Return the recipe with its defaults filled in, as JSON-like data without the output folder."""
        data: dict[str, Any] = plain(self.keys)
        data.pop("output", None)
        return data


def load(
    file: Path, command: str, keys: type[K], *, changes: Sequence[str] = (), output: Path | None = None
) -> Loaded[K]:
    """Load the recipe of a command from a file, or the shipped one of that name; `changes` are `--set` arguments.

    Raises UsageError in one line that names the file, the line and the key.
    """
    found = find(file, command)
    source = read_yaml(found)
    for change in changes:
        set_key(source, change)
    place = Place(str(file), file=source)
    typed = yaml_files.typed(keys, source.data, place)
    folder = output or (Path(typed.output) if typed.output else None)
    if folder is None:
        raise UsageError(f"{place}: no output folder; give --out DIR, or set the key `output`")
    return Loaded(command, typed, folder.expanduser(), place)


def find(file: Path, command: str) -> Path:
    """Return the file, or the command's shipped recipe of that name. Raises UsageError."""
    if file.is_file():
        return file
    shipped = SHIPPED / command / file.with_suffix(".yaml").name
    if file.parent == Path() and shipped.is_file():
        return shipped
    names = ", ".join(sorted(path.stem for path in (SHIPPED / command).glob("*.yaml"))) or "none"
    raise UsageError(f"recipe {file}: no such file; shipped recipes of `olmes data {command}`: {names}")


def plain(value: Any) -> Any:
    """Convert dataclasses, tuples and mappings to JSON-like data, without keys that are None."""
    if is_dataclass(value):
        return {one.name: plain(got) for one in fields(value) if (got := getattr(value, one.name)) is not None}
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, tuple | list) else value
