"""How many more answers a task could give, and what to advise where a verdict needs more. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from olmes_suite.runs.scores import TaskScores
from olmes_suite.tasks.sizes import sizes as published


@dataclass(frozen=True, slots=True)
class Room:
    """The answers of a task, or of several, that two runs have not compared."""

    left: int | None = None
    """Number of documents that the task has beside the compared ones; None where its size is not known."""
    sampled: bool = False
    """Whether answers are drawn at a temperature, so that a document can be asked several times."""
    benchmark: int | None = None
    """Number of documents of the benchmark where the runs had fewer, such as the samples that ship with a task."""


NOTHING_KNOWN = Room()


def room(a: TaskScores, b: TaskScores, compared: int) -> Room:
    """Return what a task has left after two runs of it shared `compared` documents."""
    sizes = [
        sum(leaf.population for leaf in task.leaves.values())
        for task in (a, b)
        if all(leaf.fingerprint is not None for leaf in task.leaves.values())
    ]
    settings = [leaf.settings for task in (a, b) for leaf in task.leaves.values()]
    sampled = bool(settings) and all(one is not None and (one.get("temperature") or 0) > 0 for one in settings)
    if not sizes:
        return Room(None, sampled)
    full = sum(published().get(leaf, 0) for leaf in a.leaves)
    return Room(max(0, max(sizes) - compared), sampled, full if full > max(sizes) else None)


def joined(rooms: Sequence[Room]) -> Room:
    """Return what several tasks have left together."""
    known = [one.left for one in rooms if one.left is not None]
    full = [one.benchmark for one in rooms if one.benchmark is not None]
    return Room(
        sum(known) if known and len(known) == len(rooms) else None,
        all(one.sampled for one in rooms),
        sum(full) if full and len(full) == len(rooms) else None,
    )


def advice(more: int, n: int, left: Room, what: str = "task") -> str:
    """Say what would decide a verdict that needs `more` documents beside the `n` compared ones.

    Only what can be done is advised: documents that the task has, and samples where the answers are drawn.
    """
    samples = math.ceil(1 + more / n)
    documents, decide = ("document", "decides") if more == 1 else ("documents", "decide")
    if left.left is None:
        also = f" (or {samples} samples of each)" if left.sampled else ""
        return f"about {more:,} more {documents} like {'this' if n == 1 else 'these'}{also} {decide} it"
    if more <= left.left:
        also = f", or {samples} samples of each of these," if left.sampled else ""
        return f"about {more:,} of the {left.left:,} documents that were not compared{also} {decide} it"
    needed = f"about {more:,} more {documents} would decide it"
    if left.benchmark is not None and more <= left.benchmark:
        whole = "benchmarks themselves" if what == "suite" else "benchmark itself"
        return f"{needed}: evaluate on the {whole} ({left.benchmark:,} documents)"
    if left.benchmark is not None:
        needed += f", and the {'benchmarks have' if what == 'suite' else 'benchmark has'} {left.benchmark:,}"
    else:
        needed += f", and the {what} {f'has {left.left:,} more' if left.left else 'has no more'}"
    return f"{needed}: {f'take {samples} samples of each' if left.sampled else 'only a wider margin decides it'}"
