"""Verifiable constraints for prompts, drawn with their arguments, which the verifier of rewards checks later."""

from __future__ import annotations

import random
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from olmes_suite import yaml_files
from olmes_suite.constraints.registry import PROFILES, everything
from olmes_suite.errors import MissingData, UsageError, one_line
from olmes_suite.yaml_files import Place
from train_plugins.verifiers import Malformed
from train_plugins.verifiers.instructions import check_constraints

SHIPPED = Path(__file__).parent / "constraints.yaml"
ALONE = "whole"
"""The group of constraints that stand alone in a prompt."""
_COMMON_LETTERS = "abcdefghiklmnoprstuw"


class TooFewWords(ValueError):
    """The words of the file are not enough for the arguments of a constraint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One constraint of the file."""

    id: str
    """The checker's id in IFEval or IFTrain."""
    text: str
    """The sentence of the prompt, with the arguments' names in braces."""
    group: str
    """At most one constraint of a group stands in a prompt."""
    clashes: tuple[str, ...] = ()
    """Ids of other groups that no answer can follow together with this one."""
    draw: Mapping[str, Any] = field(default_factory=dict)
    """How each argument is drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """A file of constraints."""

    words: tuple[str, ...]
    """Words for the arguments."""
    constraints: tuple[Entry, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A constraint with its arguments."""

    id: str
    kwargs: Mapping[str, Any]
    text: str
    """The sentence that the prompt says."""

    def as_json(self) -> dict[str, Any]:
        """Return the constraint as a row holds it."""
        return {"id": self.id, "kwargs": dict(self.kwargs), "text": self.text}


@lru_cache(maxsize=8)
def load(path: Path = SHIPPED) -> Constraints:
    """Load a file of constraints. Raises UsageError for an id that is unknown or of the unseen suite."""
    if not path.is_file():
        raise UsageError(f"constraints {path}: no such file")
    source = yaml_files.read(path, "constraints")
    place = Place(str(path), file=source)
    found: Constraints = yaml_files.typed(Constraints, source.data, place)
    if not found.constraints:
        raise UsageError(f"{place}: constraints: name at least one")
    unseen = {name for profile in PROFILES for name in everything(profile)}
    for number, entry in enumerate(found.constraints):
        here = place.inside("constraints", number).line(("id",))
        if entry.id in unseen:
            raise UsageError(f"{here}: {entry.id} is a constraint of the unseen suite, which is for the end")
        try:
            drawn = _drawn(entry, random.Random(0), found.words, "Write a short text.")
        except (TypeError, ValueError, KeyError, IndexError) as error:
            why = f"the arguments cannot be drawn as `draw` says ({one_line(error)})"
            raise UsageError(f"{here}: {entry.id}: {why}") from None
        try:
            check_constraints(truth([drawn]), {"prompt": "Write a short text."})
        except Malformed as error:
            raise UsageError(f"{here}: {entry.id}: {error}") from None
        except MissingData as error:
            raise MissingData(error.of("ifeval")) from None
    return found


def check_file(path: Path, place: Place) -> None:
    """Load a file of constraints that a recipe names at `place`. Raises UsageError."""
    if not path.is_file():
        raise UsageError(f"{place}: {path}: no such file")
    load(path)


def draw(found: Constraints, count: int, rng: random.Random, task: str) -> list[Drawn]:
    """Draw `count` constraints that can stand in one prompt, or as many as the file has; no word is in two of them.

    A constraint for which too few words are left is passed over.
    Constraints that stand alone are drawn where `count` is 1.
    """
    entries = [entry for entry in found.constraints if count == 1 or entry.group != ALONE]
    rng.shuffle(entries)
    chosen: list[Entry] = []
    words = list(found.words)
    drawn: list[Drawn] = []
    for entry in entries:
        if len(drawn) == count or any(_clash(entry, other) for other in chosen):
            continue
        try:
            one = _drawn(entry, rng, words, task)
        except TooFewWords:
            continue
        said = str(list(one.kwargs.values()))
        if any(re.search(rf"\b{re.escape(word)}\b", said) for word in set(found.words).difference(words)):
            continue
        chosen.append(entry)
        drawn.append(one)
        words = [word for word in words if word not in said]
    return drawn


def _clash(one: Entry, other: Entry) -> bool:
    return one.group == other.group or one.id in other.clashes or other.id in one.clashes


def truth(drawn: Sequence[Drawn]) -> dict[str, Any]:
    """Return the ground truth of the verifier `ifeval`."""
    return {"instruction_id_list": [one.id for one in drawn], "kwargs": [dict(one.kwargs) for one in drawn]}


def prompt(task: str, drawn: Sequence[Drawn]) -> str:
    """Return the task with the sentences of its constraints."""
    return "\n\n".join([task, " ".join(one.text for one in drawn)]) if drawn else task


def _drawn(entry: Entry, rng: random.Random, words: Sequence[str], task: str) -> Drawn:
    kwargs: dict[str, Any] = {}
    shown: dict[str, str] = {}
    for name, how in entry.draw.items():
        value, text = _value(how, rng, words, task, kwargs)
        kwargs[name], shown[name] = value, text
    said = re.sub(r"\{(\w+)\}", lambda name: shown.get(name[1], name[0]), entry.text)  # once: a task may have braces
    return Drawn(entry.id, kwargs, said)


def _value(how: Any, rng: random.Random, words: Sequence[str], task: str, before: Mapping[str, Any]) -> tuple[Any, str]:
    """Return an argument's value, and how the sentence shows it."""
    if isinstance(how, list | tuple):
        value: Any = rng.choice(list(how))
        return value, str(value)
    if "choice" in how:
        value = rng.choice(sorted(how["choice"]))
        return value, str(how["choice"][value])
    if "words" in how:
        low, high = how["words"]
        if len(words) < high:
            raise TooFewWords(f"{high} words are drawn from {len(words)}")
        value = sorted(rng.sample(list(words), rng.randint(low, high)))
        return value, ", ".join(value)
    if "word" in how:
        left = [word for word in words if word not in before.values()]
        if not left:
            raise TooFewWords("a word is drawn from none")
        value = rng.choice(left)
        return value, value
    if "letter" in how:
        value = rng.choice(_COMMON_LETTERS if how["letter"] is True else string.ascii_lowercase)
        return value, value
    if "task" in how:
        return task, task
    if "from" in how:
        last = before[how["to"]] if isinstance(how["to"], str) else how["to"]
        value = rng.randrange(how["from"], last + 1, how.get("step", 1))
        return value, str(value)
    raise ValueError(f"{dict(how)} is no way to draw an argument")
