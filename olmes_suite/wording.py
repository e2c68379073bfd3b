"""Numbers with their nouns, in the sentences that commands print."""

from __future__ import annotations


def count(number: int, noun: str, separated: bool = False) -> str:
    """Return a number with its noun: 1 task, 2 tasks, 2 processes. `separated`: with commas between thousands."""
    shown = f"{number:,}" if separated else str(number)
    return f"{shown} {noun if number == 1 else plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a regular noun: tasks, passes, entries."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"


def points(fraction: float) -> str:
    """Return a difference of scores in points: 1 point, 2.5 points."""
    shown = f"{100 * fraction:g}"
    return f"{shown} point{'' if shown == '1' else 's'}"


def tokens(mean: float) -> str:
    """Return a mean number of tokens: 5.5, 36, 1,200; 0 for none at all."""
    return f"{mean:,.0f}" if mean >= 10 or mean == 0 else f"{mean:.1f}"


def size(number: int) -> str:
    """Return a number of bytes for people: 640 bytes, 12 kB, 1.5 MB, 2.0 GB; a kB is 1,000 bytes."""
    if number < 1000:
        return count(number, "byte")
    if number < 999_500:
        return f"{number / 1e3:.0f} kB"
    return f"{number / 1e6:.1f} MB" if number < 999_950_000 else f"{number / 1e9:.1f} GB"
