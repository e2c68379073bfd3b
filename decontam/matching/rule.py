"""The matching rule: what counts as a hit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rule:
    """What counts as a match: the paper's by default (Tülu 3, § 3.2)."""

    n: int = 8
    threshold: float = 0.5
    """An item is hit by a training row that matches more than this share of its tokens."""
    stride: int = 1
    """Only every stride-th n-gram of an item is compared, and the last one."""
    share: float = 0.02
    """A training set is contaminated if it hits more than this share of the items of any evaluation."""
    short: bool = True
    """Look for items shorter than n too, as a whole."""
