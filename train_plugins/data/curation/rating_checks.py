"""What can be wrong with a judge's ratings: bias to a position, bias to length, disagreement with itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from train_plugins.data.curation.ratings import Ratings

NO_BREAK = "\u00a0"
"""A space in a number with its unit or error, at which a line is not folded."""


def measured(ratings: Sequence[Ratings], lengths: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return the measures over all prompts whose ratings were read; `lengths` are words of each candidate."""
    read = [(one, words) for one, words in zip(ratings, lengths, strict=True) if one.problem is None and one.read]
    return {
        "position": positions([one for one, _ in read]),
        "length": length_bias([one for one, _ in read], [words for _, words in read]),
        "agreement": agreement([one for one, _ in read]),
    }


def positions(ratings: Sequence[Ratings]) -> list[dict[str, float]]:
    """Return, for each place in the judge's list, the mean rating above the prompt's mean, with its standard error.

    The order is random, so that a judge without bias gives every place a mean of 0.
    """
    places: dict[int, list[float]] = {}
    for one in ratings:
        for rated in one.read:
            mean = sum(rated.ratings) / len(rated.ratings)
            for place, candidate in enumerate(rated.order):
                places.setdefault(place, []).append(rated.ratings[candidate] - mean)
    return [{"place": place + 1, **_mean(values)} for place, values in sorted(places.items())]


def length_bias(ratings: Sequence[Ratings], lengths: Sequence[Sequence[int]]) -> dict[str, float | None]:
    """Return the correlation of scores and lengths (log of words) within prompts, and its standard error.

    Both are centred by prompt. A judge may prefer longer answers because they are better: the correlation is a warning.
    """
    scores, words = [], []
    for one, length in zip(ratings, lengths, strict=True):
        own, log = np.array(one.scores()), np.log1p(np.array(length, dtype=float))
        scores.append(own - own.mean())
        words.append(log - log.mean())
    x, y = (np.concatenate(scores), np.concatenate(words)) if scores else (np.zeros(0), np.zeros(0))
    spread = float(np.sqrt((x**2).sum() * (y**2).sum()))
    free = len(x) - len(scores) - 1
    if not spread or free < 1:
        return {"correlation": None, "stderr": None}
    correlation = max(-1.0, min(1.0, float((x * y).sum()) / spread))
    return {"correlation": correlation, "stderr": math.sqrt(max(0.0, 1 - correlation**2) / free)}


def agreement(ratings: Sequence[Ratings]) -> dict[str, Any] | None:
    """Return how far the judge's second ratings, in another order, agree with the first; None without second ones.

    `exact`: share of equal ratings; `within_one`: share that differ by at most one; `difference`: mean absolute
    difference; `same_order`: share of pairs of answers, not tied in either reading of an aspect, in the same order.
    """
    exact = near = total = ordered = same = 0
    difference = 0
    for one in ratings:
        first = {rated.aspect: rated.ratings for rated in one.first()}
        for rated in one.read:
            if rated.repeat == 0 or rated.aspect not in first:
                continue
            for a, b in zip(first[rated.aspect], rated.ratings, strict=True):
                exact, near, total = exact + (a == b), near + (abs(a - b) <= 1), total + 1
                difference += abs(a - b)
            again, before = rated.ratings, first[rated.aspect]
            for i in range(len(again)):
                for j in range(i):
                    signs = (before[i] - before[j]) * (again[i] - again[j])
                    ordered, same = ordered + (signs != 0), same + (signs > 0)
    if not total:
        return None
    return {
        "ratings": total, "exact": exact / total, "within_one": near / total, "difference": difference / total,
        "same_order": same / ordered if ordered else None,
    }  # fmt: skip


def described(checks: dict[str, Any]) -> list[str]:
    """Return the measures as lines, with `NO_BREAK` inside of numbers."""
    lines = []
    if places := checks["position"]:
        each = ", ".join(
            f"{one['place']}: {one['mean']:+.2f} ± {1.96 * one['stderr']:.2f}".replace(" ", NO_BREAK) for one in places
        )
        lines.append(f"position bias (rating above the prompt's mean, by place): {each}")
        length = checks["length"]
        shown = "not measurable, the answers to a prompt hardly differ in length or score"
        if length["correlation"] is not None:
            shown = f"{length['correlation']:+.2f} ± {1.96 * length['stderr']:.2f}"
        lines.append(f"length bias (correlation of score and length): {shown}")
    if again := checks["agreement"]:

        def share(name: str) -> str:
            return f"{100 * again[name]:.0f}{NO_BREAK}%"

        order = "" if again["same_order"] is None else f", {share('same_order')} of pairs in the same order"
        lines.append(
            f"judge's agreement with itself ({again['ratings']} ratings twice): {share('exact')} equal, "
            f"{share('within_one')} within one{order}"
        )
    return lines


def _mean(values: Sequence[float]) -> dict[str, float]:
    array = np.array(values)
    stderr = float(array.std(ddof=1) / math.sqrt(len(array))) if len(array) > 1 else 0.0
    return {"mean": float(array.mean()), "stderr": stderr}
