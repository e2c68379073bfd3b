"""The register of constraints: a typed function of a response and its parameters, entered by one line.

    @constraint("count:conjunctions")
    def conjunctions(response: str, *, small_n: int) -> bool:
        return len(...) >= small_n

Keyword parameters are the constraint's arguments, by the names of the data set. A parameter called `prompt` gets the
document's prompt.
"""

from __future__ import annotations

import importlib
import inspect
import random
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from olmes_suite.errors import UsageError

Profile = Literal["reference", "repaired"]
PROFILES: tuple[Profile, ...] = ("reference", "repaired")
FAMILIES = ("count", "format", "ratio", "sentence", "words", "custom", "repeat")
"""Modules of this package that are imported when a constraint is first looked up."""

Check = Callable[..., bool]
Draw = Callable[[random.Random, Mapping[str, Any]], Any]
"""A value for a parameter that the data leaves out, from a generator and the parameters so far."""


class CheckerError(ValueError):
    """The checker cannot say: a parameter is missing or makes no sense. Recorded, and not followed in the score."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint in one profile."""

    name: str
    profile: Profile
    check: Check
    version: int
    types: Mapping[str, type]
    """Parameter to type: int, float or str."""
    draws: Mapping[str, Draw]
    """Where the reference draws a missing parameter at random, how."""
    needs: tuple[str, ...]
    """Names of `olmes_suite.scoring.language_resources`."""

    def arguments(self, given: Mapping[str, Any], prompt: str, rng: random.Random) -> dict[str, Any]:
        """The check's keyword arguments from a document's. Raises CheckerError for one that is missing or unknown.

        Source of the reference's rule: OLMES filters by truth (`if v`), so that 0 and "" count as not given, and its
        checkers draw what is then None or negative. `repaired` takes every value but None.
        """
        drawing = self.profile == "reference"
        kept = {name: value for name, value in given.items() if (value if drawing else value is not None)}
        if unknown := sorted(set(kept) - set(self.types)):
            raise CheckerError(f"{self.name} takes no {unknown[0]}")
        made: dict[str, Any] = {}
        for name, kind in self.types.items():
            value = prompt if name == "prompt" and name not in kept else kept.get(name)
            if name in self.draws and (value is None or (isinstance(value, (int, float)) and value < 0)):
                value = self.draws[name](rng, made)
            if value is None:
                raise CheckerError(f"{self.name} lacks its parameter {name}")
            made[name] = _as(kind, value, self.name, name)
        return made


_REGISTER: dict[tuple[Profile, str], Constraint] = {}


def constraint(
    name: str,
    *,
    profile: Profile | None = None,
    version: int = 1,
    draws: Mapping[str, Draw] | None = None,
    needs: tuple[str, ...] = (),
) -> Callable[[Check], Check]:
    """Enter a function as the checker of `name`, in one profile or in both.

    Raise `version` when its verdicts change. `draws` is for the reference profile only. Raises UsageError for a name
    that is taken.
    """

    def enter(check: Check) -> Check:
        hints = typing.get_type_hints(check)
        keywords = [p.name for p in inspect.signature(check).parameters.values() if p.kind is p.KEYWORD_ONLY]
        types = {keyword: hints[keyword] for keyword in keywords}
        for one in PROFILES if profile is None else (profile,):
            if (one, name) in _REGISTER and _REGISTER[one, name].check.__qualname__ != check.__qualname__:
                raise UsageError(f"constraint {name} stands twice in profile {one}")
            drawn = dict(draws or {}) if one == "reference" else {}
            _REGISTER[one, name] = Constraint(name, one, check, version, types, drawn, needs)
        return check

    return enter


def find(name: str, profile: Profile) -> Constraint | None:
    """The constraint of that name, None where the profile has no checker for it."""
    return everything(profile).get(name)


def everything(profile: Profile) -> dict[str, Constraint]:
    """All constraints of a profile, by name, sorted."""
    for family in FAMILIES:
        importlib.import_module(f"olmes_suite.constraints.{family}")
    return {name: entry for (one, name), entry in sorted(_REGISTER.items()) if one == profile}


def total_version(profile: Profile) -> int:
    """Changes when the version of any of the profile's constraints is raised: a scorer's version."""
    return 1 + sum(entry.version - 1 for entry in everything(profile).values())


def _as(kind: type, value: Any, name: str, parameter: str) -> Any:
    """The value as the parameter's type: the data hold whole numbers as floats and numbers as text."""
    try:
        if kind is str:
            return str(value)
        number = float(value)
    except (TypeError, ValueError):
        raise CheckerError(f"{name}: {parameter} must be a number, not {value!r}") from None
    if kind is int:
        if number != int(number):
            raise CheckerError(f"{name}: {parameter} must be a whole number, not {value!r}")
        return int(number)
    return number
