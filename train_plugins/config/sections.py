"""Keys of a recipe that stand in the wrong section, and where they belong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from train_plugins.config import trainer_fields
from train_plugins.config.trainer_fields import Role

TOP = ""
"""The section of the keys that stand beside the sections."""
_ALGORITHMS = {"rlvr": ("ppo", "grpo", "rloo")}
"""Tables of the trainer's arguments of a stage that has several."""


def misplaced(
    data: Mapping[str, Any], kind: str, sections: Mapping[str, type]
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the way to each key that only another section knows, and a sentence that names that section.

    `sections` are the dataclasses of the sections of a recipe for the stage `kind`, with the recipe's own under TOP;
    the trainer's arguments are added. Unknown keys that no section or several know are left to the general check.
    """
    known = {
        name: {one.name for one in fields(keys) if not one.name.startswith("_")} for name, keys in sections.items()
    }
    tables = [trainer_fields.TABLES[one] for one in _ALGORITHMS.get(kind, (kind,)) if one in trainer_fields.TABLES]
    used = {name for table in tables for name, entry in table.items() if entry.role in (Role.TRAINS, Role.RUNS)}
    anywhere = {name for table in trainer_fields.TABLES.values() for name in table} | set(trainer_fields.RENAMED)
    for section in (TOP, *(name for name in known if name != TOP), *(["trainer"] if tables else [])):
        given = data if section == TOP else data.get(section)
        own = anywhere if section == "trainer" else known[section]
        for key in given if isinstance(given, Mapping) else ():
            others = {**known, "trainer": used}
            homes = [name for name, keys in others.items() if name != section and key in keys]
            if key not in own and key not in sections and len(homes) == 1:
                yield (section, key) if section else (key,), _sentence(str(key), section, homes[0])


def _sentence(key: str, section: str, home: str) -> str:
    if section == TOP:
        return f"the key {key!r} stands under {home!r}, not beside it"
    if home == TOP:
        return f"the key {key!r} stands beside {section!r}, not under it"
    return f"the key {key!r} stands under {home!r}, not under {section!r}"
