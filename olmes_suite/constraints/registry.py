"""The register of constraints: typed functions of a response and its parameters, registered by a decorator.

    @constraint("count:conjunctions")
    def conjunctions(response: str, *, small_n: int) -> bool:
        return len(...) >= small_n

Keyword parameters are the constraint's arguments and have the names of the data set. A parameter called `prompt`
receives the document's prompt. The docstring of a checker states the condition that a response must meet.
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
FAMILIES = ("count", "format", "format_of_text", "ratio", "sentence", "words", "custom", "repeat")
"""Modules of this package, imported when a constraint is first looked up."""

Check = Callable[..., bool]
Draw = Callable[[random.Random, Mapping[str, Any]], Any]
"""Draws a value for a parameter that the data lacks, from a generator and the parameters before it."""


class CheckerError(ValueError):
    """A parameter of a checker is missing or invalid: recorded, and scored as a constraint that is not followed."""


@dataclass(frozen=True, slots=True)
class Constraint:
    """One constraint in one profile."""

    name: str
    profile: Profile
    check: Check
    version: int
    types: Mapping[str, type]
    """The type of each parameter: int, float or str."""
    draws: Mapping[str, Draw]
    """The draws of the parameters that the reference draws at random where they are missing."""
    needs: tuple[str, ...]
    """Names in `olmes_suite.scoring.language_resources` that the checker reads."""

    def arguments(self, given: Mapping[str, Any], prompt: str, rng: random.Random) -> dict[str, Any]:
        """Convert a document's arguments to keyword arguments of the check.

        The reference filters by truth (`if v`), so that 0 and "" count as missing, and its checkers draw values that
        are missing or negative. `repaired` takes every value except None. Raises CheckerError for an argument that is
        missing, unknown or of the wrong type.
        """
        by_truth = self.profile == "reference"
        present = {name: value for name, value in given.items() if (value if by_truth else value is not None)}
        if unknown := sorted(set(present) - set(self.types)):
            raise CheckerError(f"{self.name} does not take the parameter {unknown[0]}")
        converted: dict[str, Any] = {}
        for name, kind in self.types.items():
            value = prompt if name == "prompt" and name not in present else present.get(name)
            if name in self.draws and (value is None or (isinstance(value, (int, float)) and value < 0)):
                value = self.draws[name](rng, converted)
            if value is None:
                raise CheckerError(f"{self.name} lacks its parameter {name}")
            converted[name] = _convert(value, kind, self.name, name)
        return converted


_REGISTER: dict[tuple[Profile, str], Constraint] = {}


def constraint(
    name: str,
    *,
    profile: Profile | None = None,
    version: int = 1,
    draws: Mapping[str, Draw] | None = None,
    needs: tuple[str, ...] = (),
) -> Callable[[Check], Check]:
    """Register a function as the checker of `name` in one profile, or in both.

    Increase `version` when the verdicts change. `draws` applies to the reference profile only. Raises UsageError for a
    name that is already registered.
    """

    def register(check: Check) -> Check:
        hints = typing.get_type_hints(check)
        keywords = [p.name for p in inspect.signature(check).parameters.values() if p.kind is p.KEYWORD_ONLY]
        types = {keyword: hints[keyword] for keyword in keywords}
        for each in PROFILES if profile is None else (profile,):
            if (each, name) in _REGISTER and _REGISTER[each, name].check.__qualname__ != check.__qualname__:
                raise UsageError(f"constraint {name} is registered twice in profile {each}")
            profile_draws = dict(draws or {}) if each == "reference" else {}
            _REGISTER[each, name] = Constraint(name, each, check, version, types, profile_draws, needs)
        return check

    return register


def find(name: str, profile: Profile) -> Constraint | None:
    """Return the constraint with this name, or None where the profile has no checker for it."""
    return everything(profile).get(name)


def everything(profile: Profile) -> dict[str, Constraint]:
    """Return all constraints of a profile by name, sorted."""
    for family in FAMILIES:
        importlib.import_module(f"olmes_suite.constraints.{family}")
    return {name: entry for (each, name), entry in sorted(_REGISTER.items()) if each == profile}


def total_version(profile: Profile) -> int:
    """Return the version of the profile's scorer, which increases with the version of any of its constraints."""
    return 1 + sum(entry.version - 1 for entry in everything(profile).values())


def _convert(value: str | float, kind: type, name: str, parameter: str) -> str | float:
    """Convert a value to the type of its parameter: the data hold whole numbers as floats and numbers as text."""
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
