"""The rule `strict`: a hit by `own` in which the row also has the item's words and numbers, or the whole sentence."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from decontam.matching.item_text import Part
from decontam.matching.row_text import NEAR_TEXT, Around, Texts
from decontam.matching.verify import NEAR, SHORT, Matches
from decontam.training_data.batches import Batch

WORDS, NUMBERS = 0.8, 0.9
"""More than this share of an item's own words, and no less of its own numbers, must stand near the match."""
_GOES_ON = re.compile(r"[\"'“‘«(\[*_]*\w|,")
"""What follows a short item that is only the beginning of a sentence."""
GAP = 100
"""Most characters between a short item and the text around it."""


def asked(found: list[int], parts: list[Part]) -> bool:
    """Whether more than the last field matches, where others have own text: choices alone are no question."""
    others = [count for count, part in zip(found, parts, strict=True) if any(part.own)][:-1]
    return not others or any(others)


def contains(row: Around, grams: list[int], parts: list[Part]) -> bool:
    """Whether a row has enough of the words and numbers of the fields of which most match by n-grams.

    Training rows often have a question without its choices, or with others.
    """
    words = present = 0
    numbers: set[str] = set()
    for count, part in zip(grams, parts, strict=True):
        if 2 * count > sum(part.own):
            own = [word for word, o in zip(part.words, part.own, strict=True) if o]
            words += len(own)
            present += sum(word in row.words for word in own)
            numbers |= part.numbers
    return (not words or present > WORDS * words) and len(numbers & row.numbers) >= NUMBERS * len(numbers)


def whole_sentences(batch: Batch, matches: Matches) -> NDArray[np.int8]:
    """Return the kinds of pairs, with short items that are only a part of a longer sentence made NEAR.

    "Who are you?" is not in "Tell me who are you voting for".
    """
    kinds, texts = matches.kinds.copy(), Texts(batch)
    for k in np.flatnonzero(kinds == SHORT).tolist():
        row = int(matches.rows[k])
        if not all(_stands_alone(texts.text(row, part), start, end) for part, start, end in matches.train.of(k)):
            kinds[k] = NEAR
    return kinds


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether text[start:end], or another place with the same tokens, is no part of a longer sentence."""
    if _apart(text, start, end):
        return True
    if len(text) > NEAR_TEXT:
        return False
    # Spans name the first place only.
    words = re.findall(r"\w+", text[start:end])
    if not words:
        return False
    same = re.compile(r"(?<!\w)" + r"\W+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)
    return any(_apart(text, match.start(), match.end()) for match in same.finditer(text))


def _apart(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - GAP) : start].rstrip(" \t"), text[end : end + GAP].lstrip(" \t")
    return not before[-1:].isalnum() and _GOES_ON.match(after) is None
