"""The matching rule, which defines a hit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Variant = Literal["own", "strict", "paper"]


@dataclass(frozen=True, slots=True)
class Rule:
    """The definition of a match; the numbers are the paper's (Tülu 3, § 3.2)."""

    n: int = 8
    threshold: float = 0.5
    """A training row hits an item when it matches more than this share of the item's tokens."""
    stride: int = 1
    """Only every stride-th n-gram of an item is compared, and the last one."""
    share: float = 0.02
    """A training set is contaminated if it hits more than this share of the items of any evaluation."""
    short: bool = True
    """Whether to look for items shorter than n too, as a whole."""
    variant: Variant = "own"
    """`own`: the paper's rule on the tokens that an item does not share with others of its task. `strict`: a row must
    also contain most of the item's words and its numbers (`decontam.matching.strict`). `paper`: every token counts."""


VARIANTS: tuple[Variant, ...] = get_args(Variant)
