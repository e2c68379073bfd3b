"""What a checkpoint's lineage says of its training data: which tasks were looked for, and which documents are in it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from olmes_suite.runs.schema import NO_LINEAGE, Lineage


@dataclass(frozen=True, slots=True)
class Known:
    """Leaf tasks by name; of a task that was not looked for, nothing is known but the documents that are named."""

    flags: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Task to the doc_ids that the data is known to contain."""
    short: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Those of them that match only as items too short for an n-gram: no part of the share that a gate judges."""
    scanned: frozenset[str] = frozenset()
    """Tasks that the data of every stage was compared with."""

    def of(self, task: str) -> set[int] | None:
        """The documents of a task, None where nobody has looked."""
        return set(self.flags.get(task, ())) if task in self.scanned or task in self.flags else None

    def short_of(self, task: str) -> set[int]:
        """The documents of a task that are flagged for a short match alone."""
        return set(self.short.get(task, ())) & set(self.flags.get(task, ()))


NOTHING = Known()


def known(lineage: Lineage) -> Known:
    """What a lineage file says; one without `scanned` (older, or a user's own) knows the tasks of its flags."""
    return Known(lineage.flags, lineage.short, frozenset(lineage.scanned or ()))


def inherited(parent: Lineage, own: Known, earlier: Lineage = NO_LINEAGE) -> Known:
    """`flags`, `short` and `scanned` of a stage's lineage: its own, its parent's, and those of its `earlier` start.

    A task counts as scanned only if the data of all stages were compared with it; without a lineage the parent is the
    first of all, and its data are nobody's business. An earlier start, if there was one, had the same data.
    """
    before, begun = known(parent), known(earlier)
    scanned = own.scanned & before.scanned if parent.is_known else own.scanned
    both = joined(joined(before, own), begun)
    return Known(both.flags, both.short, scanned | begun.scanned)


def _long(found: Known, task: str) -> set[int]:
    return set(found.flags.get(task, ())) - found.short_of(task)


def _union(first: Mapping[str, Collection[int]], second: Mapping[str, Collection[int]]) -> dict[str, Sequence[int]]:
    return {task: sorted({*first.get(task, ()), *second.get(task, ())}) for task in sorted({*first, *second})}


def joined(first: Known, second: Known) -> Known:
    """Two findings about the same data."""
    short = {task: set(ids) - _long(first, task) - _long(second, task)
             for task, ids in _union(first.short, second.short).items()}  # fmt: skip
    return Known(
        _union(first.flags, second.flags), {task: sorted(ids) for task, ids in short.items() if ids},
        first.scanned | second.scanned,
    )  # fmt: skip
