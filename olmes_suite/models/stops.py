"""The cut of a text at stop strings."""

from __future__ import annotations

from collections.abc import Iterable


def cut_at_stop(text: str, stops: Iterable[str]) -> str:
    """Return the text before the earliest stop string, or the whole text without one. Empty stop strings are ignored.

    lm-eval cuts at one stop string after the other instead, which differs where stop strings overlap.
    """
    positions = [position for stop in stops if stop and (position := text.find(stop)) >= 0]
    return text[: min(positions)] if positions else text
