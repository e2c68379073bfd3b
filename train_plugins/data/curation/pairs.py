"""The pair of a prompt: which answer is chosen and which is rejected, by their scores."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from train_plugins.data.curation.candidates import Candidate

ROUNDING = 1e-9
"""Least difference that counts: 13/3 - 10/3 is a little below 1."""
Rule = Literal["random_lower", "worst"]


@dataclass(frozen=True, slots=True)
class Pair:
    """The numbers of the chosen and the rejected answer."""

    chosen: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Rules:
    """How a pair is made."""

    rejected: Rule = "random_lower"
    """random_lower: any answer with a lower score (Tülu 3); worst: the lowest (OLMo 3)."""
    margin: float = 0.0
    """The least difference of scores, besides being above 0."""
    length_ratio: float | None = None
    """The longer answer has at most so many times the words of the shorter one."""
    policy: str | None = None
    """Model of which one side has to be, where one of its answers is there."""


def pair_of(candidates: Sequence[Candidate], scores: Sequence[float], rules: Rules, rng: random.Random) -> Pair | str:
    """Return a pair, or why there is none: tie, margin, length, no_policy_side.

    Among several highest or lowest answers one is drawn. Two answers of equal score never make a pair.
    """
    if len(set(scores)) < 2:
        return "tie"
    best = max(scores)
    highest = [n for n, score in enumerate(scores) if score == best]
    lower = [n for n, score in enumerate(scores) if score < best]
    chosen_from, rejected_from = highest, [n for n in lower if best - scores[n] >= rules.margin - ROUNDING]
    if not rejected_from:
        return "margin"
    policy = {n for n, one in enumerate(candidates) if one.model == rules.policy}
    if policy:
        if own := [n for n in highest if n in policy]:
            chosen_from = own
        elif own := [n for n in rejected_from if n in policy]:
            rejected_from = own
        else:
            return "no_policy_side"
    pairs = [(a, b) for a in chosen_from for b in rejected_from if _fits(candidates[a], candidates[b], rules)]
    if not pairs:
        return "length"
    if rules.rejected == "worst":
        worst = min(scores[b] for _, b in pairs)
        pairs = [(a, b) for a, b in pairs if scores[b] == worst]
    chosen = rng.choice(sorted({a for a, _ in pairs}))
    return Pair(chosen, rng.choice([b for a, b in pairs if a == chosen]))


def _fits(one: Candidate, other: Candidate, rules: Rules) -> bool:
    if rules.length_ratio is None:
        return True
    short, long = sorted((len(one.text.split()), len(other.text.split())))
    return long <= rules.length_ratio * max(1, short)
