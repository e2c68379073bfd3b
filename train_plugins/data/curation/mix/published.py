"""The shipped mixes: what they are made of, and under which licences. Facts; nothing is read from the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from olmes_suite.yaml_files import Place, typed
from train_plugins.config.recipe import read_yaml
from train_plugins.data.curation import recipe
from train_plugins.data.curation.mix import keys
from train_plugins.data.curation.mix.keys import Mix


def names() -> list[str]:
    """List the shipped mixes."""
    return sorted(path.stem for path in (recipe.SHIPPED / "mix").glob("*.yaml"))


def load(name: str) -> Mix:
    """Load a shipped mix. Raises UsageError that lists them for an unknown name."""
    file = recipe.find(Path(name), "mix")
    source = read_yaml(file)
    place = Place(file.name, file=source)
    mix = typed(Mix, source.data, place)
    keys.check(mix, place)
    return mix


def details(name: str) -> dict[str, Any]:
    """Return a mix's rows, data sets and licences; those of a published set, where it is one. None: not known."""
    mix = load(name)
    sources = [
        {"name": one.place, "amount": one.amount, "licence": one.licence or keys.UNKNOWN, "skill": one.skill}
        for one in mix.sources
    ]
    parts = [
        {"name": one.hub or one.name, "amount": one.amount, "licence": one.licence, "part": one.name}
        for one in mix.composition
    ]
    amounts = [one.amount for one in mix.composition or mix.sources]
    known = [amount for amount in amounts if amount is not None]
    rows = sum(known) if len(known) == len(amounts) else mix.published
    notes = [f"kind {mix.kind}" + (f"; published as {mix.released}" if mix.released else "")]
    if mix.published is not None:
        notes.append(f"{mix.published:,} rows as published; those of its parts are not known")
    if parts:
        notes.append(f"read from {sources[0]['name']} (licence {sources[0]['licence']}), which is made of:")
    return {
        "name": name, "kind": mix.kind, "about": mix.about or name, "released": mix.released, "notes": notes,
        "rows": rows,
        "sources": sources, "parts": parts or sources,
    }  # fmt: skip


def summary(name: str) -> dict[str, Any]:
    """Return a mix's size and number of data sets, and how many have no known licence."""
    found = details(name)
    return {
        "name": name, "about": found["about"], "kind": found["kind"], "released": found["released"],
        "rows": found["rows"], "sets": len(found["parts"]),
        "unknown": sum(one["licence"] == keys.UNKNOWN for one in found["parts"]),
    }  # fmt: skip
