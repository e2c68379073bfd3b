"""Contamination according to a checkpoint's lineage: the scanned tasks, and the documents in the training data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from olmes_suite.runs.schema import NO_LINEAGE, Lineage


@dataclass(frozen=True, slots=True)
class Known:
    """The known contamination of leaf tasks. For a task that was not scanned, only the named documents are known."""

    flags: Mapping[str, Collection[int]] = field(default_factory=dict)
    """Task to the doc_ids that the training data contains."""
    short: Mapping[str, Collection[int]] = field(default_factory=dict)
    """The doc_ids among `flags` that match only as items too short for an n-gram; a gate does not count them."""
    scanned: frozenset[str] = frozenset()
    """Tasks that were compared with the data of every stage."""

    def of(self, task: str) -> set[int] | None:
        """Return the contaminated documents of a task; None if the task was not scanned."""
        return set(self.flags.get(task, ())) if task in self.scanned or task in self.flags else None

    def short_of(self, task: str) -> set[int]:
        """Return the documents of a task that are flagged only for a short match."""
        return set(self.short.get(task, ())) & set(self.flags.get(task, ()))


NOTHING = Known()


def known(lineage: Lineage) -> Known:
    """Read the contamination from a lineage. Without `scanned`, the tasks of `flags` count as scanned."""
    return Known(lineage.flags, lineage.short, frozenset(lineage.scanned or ()))


def inherited(parent: Lineage, own: Known, earlier: Lineage = NO_LINEAGE) -> Known:
    """Combine the contamination of a stage: `own`, its parent's, and that of an `earlier` start of the stage.

    A task counts as scanned only if it was compared with the data of all stages. A parent without a lineage is the base
    model, whose data is not considered. An earlier start of the stage had the same data.
    """
    inherited_part, earlier_part = known(parent), known(earlier)
    scanned = own.scanned & inherited_part.scanned if parent.is_known else own.scanned
    combined = joined(joined(inherited_part, own), earlier_part)
    return Known(combined.flags, combined.short, scanned | earlier_part.scanned)


def _long(finding: Known, task: str) -> set[int]:
    return set(finding.flags.get(task, ())) - finding.short_of(task)


def _union(first: Mapping[str, Collection[int]], second: Mapping[str, Collection[int]]) -> dict[str, Sequence[int]]:
    return {task: sorted({*first.get(task, ()), *second.get(task, ())}) for task in sorted({*first, *second})}


def joined(first: Known, second: Known) -> Known:
    """Combine two findings about the same data."""
    short = {task: set(ids) - _long(first, task) - _long(second, task)
             for task, ids in _union(first.short, second.short).items()}  # fmt: skip
    return Known(
        _union(first.flags, second.flags), {task: sorted(ids) for task, ids in short.items() if ids},
        first.scanned | second.scanned,
    )  # fmt: skip
