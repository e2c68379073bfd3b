"""Fields of an evaluation to compare: those that its task declares, or those that the user names instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from olmes_suite.errors import UsageError
from olmes_suite.tasks import catalog

EVERYWHERE = ""
"""Stands for every task where fields are named without one."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The fields that the user names, by leaf task."""

    by_leaf: Mapping[str, tuple[str, ...]]
    everywhere: tuple[str, ...]
    named: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """The leaf tasks of each task or group as the user names it."""

    def of(self, leaf: str) -> tuple[tuple[str, ...], bool]:
        """Return the fields of a leaf task, none where the user names none, and whether it must have each of them."""
        return (self.by_leaf[leaf], True) if leaf in self.by_leaf else (self.everywhere, False)

    def check(self, leaves: Sequence[str]) -> None:
        """Raise UsageError where the user names fields of a task that is not compared."""
        for name, meant in self.named.items():
            if meant.isdisjoint(leaves):
                raise UsageError(f"--eval-field {name}:FIELD: {name} is not among the evaluations to compare")


NOTHING = Chosen({}, ())


def chosen(fields: Mapping[str, Sequence[str]]) -> Chosen:
    """Resolve field names by task, group or EVERYWHERE to leaf tasks. The narrowest name that covers a leaf wins.

    Raises UsageError for an unknown task.
    """
    entries = [(catalog.find(name), tuple(names)) for name, names in fields.items() if name != EVERYWHERE]
    by_leaf: dict[str, tuple[str, ...]] = {}
    for entry, names in sorted(entries, key=lambda pair: -len(pair[0].leaves)):
        by_leaf.update(dict.fromkeys(entry.leaves, names))
    named = {name: frozenset(catalog.find(name).leaves) for name in fields if name != EVERYWHERE}
    return Chosen(by_leaf, tuple(fields.get(EVERYWHERE, ())), named)
