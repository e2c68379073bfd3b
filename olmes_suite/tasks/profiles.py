"""Profiles: sampling settings that the makers of a model recommend, in a YAML file each.

about: Qwen3 with thinking
source: where the values are from
gen_kwargs: {temperature: 0.6, top_p: 0.95, max_tokens: context}
chat_template_args: {enable_thinking: true}
system: text of a system prompt     # "" for none
samples: 4
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from olmes_suite import yaml_files
from olmes_suite.errors import UsageError, nearest
from olmes_suite.tasks.overrides import checked

SHIPPED = Path(__file__).parent.parent / "profiles"


@dataclass(frozen=True, slots=True)
class Profile:
    """The keys of a profile's file."""

    about: str = ""
    source: str = ""
    """Where the values are from."""
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Settings under the names of `overrides.FIELDS` or their synonyms."""
    chat_template_args: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    samples: int | None = None


def names() -> list[str]:
    """Return the names of the profiles that ship with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(name: str) -> Profile:
    """Read a shipped profile by name or a user's by path. Raises UsageError for an unknown or invalid one."""
    path = _path_of(name)
    file = yaml_files.read(path, "profile")
    if file.data is None:
        raise UsageError(f"profile {path}: is empty; give at least one key, such as gen_kwargs")
    profile = yaml_files.typed(Profile, file.data, file.place)
    if profile.samples is not None and profile.samples < 1:
        raise UsageError(f"{file.place.line(('samples',))}: samples: expected a number from 1, not {profile.samples}")
    checked(profile.gen_kwargs, f"{file.place.line(('gen_kwargs',))}: gen_kwargs")
    return profile


def _path_of(name: str) -> Path:
    if name in names():
        return SHIPPED / f"{name}.yaml"
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if path.is_file():
            return path
        raise UsageError(f"--profile {name}: no such file")
    raise UsageError(
        f"unknown profile {name!r}{nearest(name, names())}; known: {', '.join(names())}, or a YAML file's path"
    )
