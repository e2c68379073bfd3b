"""The text of training rows around their matches with an item."""

from __future__ import annotations

import re
from dataclasses import dataclass

from decontam.matching.verify import Matches
from decontam.text import tokens
from decontam.training_data.batches import Batch

NEAR_TEXT = 20_000
"""Most characters around a match in which the rest of an item is looked for; otherwise as many as the item has."""
NUMBER = re.compile(r"\d{1,3}(?:,(?:\\!)?\d{3})+(?!\d)|\d+")
_NAMES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
NUMBER_WORDS = {word: str(number) for number, word in enumerate(_NAMES.split())}


@dataclass(frozen=True, slots=True)
class Around:
    """The text of a row around its matches with one item."""

    joined: str
    """Its tokens, with a space before and after each."""
    words: frozenset[str]
    numbers: frozenset[str]


class Texts:
    """The texts of a batch's segments; those of one row are kept."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._row, self._texts = -1, dict[int, str]()

    def text(self, row: int, segment: int) -> str:
        """Return the text of a segment."""
        if row != self._row:
            self._row, self._texts = row, {}
        if segment not in self._texts:
            raw = self._batch.data[self._batch.starts[segment] : self._batch.ends[segment]].tobytes()
            self._texts[segment] = raw.decode("utf-8", "replace")
        return self._texts[segment]

    def around(self, matches: Matches, k: int, size: int) -> Around:
        """Read the text around the matching stretches of a pair: `size` characters on either side of each."""
        row, size = int(matches.rows[k]), min(size, NEAR_TEXT)
        pieces, segment, begin, end = [], -1, 0, 0
        for part, start, stop in [*matches.train.of(k), (-1, 0, 0)]:
            if part == segment and start - size <= end:
                end = max(end, stop + size)
                continue
            if segment >= 0:
                pieces.append(self.text(row, segment)[begin:end])
            segment, begin, end = part, max(0, start - size), stop + size
        words = [word for piece in pieces for word in tokens.tokenize(piece)]
        numbers = {digits(number) for piece in pieces for number in NUMBER.findall(piece)}
        numbers.update(NUMBER_WORDS.get(word, word) for word in words)
        return Around(f" {' '.join(words)} ", frozenset(words), frozenset(numbers))


def digits(number: str) -> str:
    return re.sub(r"\D", "", number)
