"""How many more answers a task could give, and what to advise where a verdict needs more. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from olmes_suite.errors import counted
from olmes_suite.runs.scores import TaskScores


@dataclass(frozen=True, slots=True)
class Room:
    """The answers of a task, or of several, that two runs have not compared."""

    left: int | None = None
    """Number of documents that the task has beside the compared ones; None where its size is not known."""
    sampled: bool = False
    """Whether answers are drawn at a temperature, so that a document can be asked several times."""


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
    return Room(max(0, max(sizes) - compared) if sizes else None, sampled)


def joined(rooms: Sequence[Room]) -> Room:
    """Return what several tasks have left together."""
    known = [one.left for one in rooms if one.left is not None]
    return Room(sum(known) if known and len(known) == len(rooms) else None, all(one.sampled for one in rooms))


def advice(more: int, n: int, left: Room, what: str = "task") -> str:
    """Say what would decide a verdict that needs `more` documents beside the `n` compared ones.

    Only what can be done is advised: documents that the task has, and samples where the answers are drawn.
    """
    samples = math.ceil(1 + more / n)
    if left.left is None:
        also = f" (or {samples} samples of each)" if left.sampled else ""
        return f"about {counted(more, 'more document')} like these{also} decide it"
    if more <= left.left:
        also = f", or {samples} samples of each of these," if left.sampled else ""
        return f"about {more:,} of the {left.left:,} documents that were not compared{also} decide it"
    has = f"has {left.left:,} more" if left.left else "has no more"
    needed = f"about {counted(more, 'more document')} would decide it, and the {what} {has}"
    return f"{needed}: {f'take {samples} samples of each' if left.sampled else 'only a wider margin decides it'}"
