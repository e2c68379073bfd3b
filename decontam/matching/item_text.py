"""An item's fields with its own tokens, and which of them a row matches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from decontam.matching.index import Index
from decontam.matching.row_text import NUMBER, NUMBER_WORDS, Around, digits
from decontam.matching.verify import Matches
from decontam.text import tokens

_BIGRAMS = 0.6
"""Share of the pairs of neighbouring words of a field that a row must contain, where the field has no n-gram left."""


@dataclass(frozen=True, slots=True)
class Part:
    """One field of an item."""

    words: list[str]
    own: list[bool]
    rare: list[int]
    """Tokens at which a rare run of 2n tokens begins."""
    starts: list[int]
    ends: list[int]
    lines: list[tuple[int, int]]
    """First and last (exclusive) token of each line that is shorter than an n-gram and has own tokens."""
    numbers: frozenset[str]


class ItemTexts:
    """The items of an index; the last ones are kept."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self.of = lru_cache(maxsize=8192)(self._read_item)

    def _read_item(self, item: int) -> list[Part]:
        arrays, parts = self._index.arrays, []
        first = int(arrays["part_items"][item])
        for number, (_, text) in enumerate(self._index.parts_of(item), first):
            chosen = slice(int(arrays["part_tokens"][number]), int(arrays["part_tokens"][number + 1]))
            starts, ends = arrays["token_starts"][chosen].tolist(), arrays["token_ends"][chosen].tolist()
            own, rare = arrays["own"][chosen].tolist(), np.flatnonzero(arrays["rare"][chosen]).tolist()
            words = tokens.tokenize(text)
            numbers = {
                digits(match.group())
                for match in NUMBER.finditer(text)
                if any(o for s, o in zip(starts, own, strict=True) if match.start() <= s < match.end())
            }
            # "one" is mostly a pronoun.
            numbers |= {NUMBER_WORDS.get(w, "") for w, o in zip(words, own, strict=True) if o and w != "one"} - {""}
            parts.append(Part(words, own, rare, starts, ends, self._lines(text, starts, own), frozenset(numbers)))
        return parts

    def _lines(self, text: str, starts: list[int], own: list[bool]) -> list[tuple[int, int]]:
        lines, at, place = [], 0, 0
        for line in text.split("\n"):
            place += len(line) + 1
            begin = at
            while at < len(starts) and starts[at] < place:
                at += 1
            if 0 < at - begin < self._index.n and any(own[begin:at]):
                lines.append((begin, at))
        return lines

    def marks(
        self, matches: Matches, k: int, parts: list[Part], row: Around
    ) -> tuple[list[list[bool]], list[list[bool]]]:
        """Mark the tokens of an item that match by n-grams, and those that match.

        A line that is shorter than an n-gram matches if the row contains it as a whole. One of several fields without
        n-grams in the row, such as a short question with a word changed, matches by its pairs of neighbouring words.
        """
        first = int(self._index.arrays["part_items"][matches.items[k]])
        marks = [[False] * len(part.words) for part in parts]
        for number, start, end in matches.eval.of(k):
            part = parts[number - first]
            marks[number - first] = [
                mark or start <= s < end for mark, s in zip(marks[number - first], part.starts, strict=True)
            ]
        grams = [list(mark) for mark in marks]
        for mark, part in zip(marks, parts, strict=True):
            for begin, end in part.lines:
                if f" {' '.join(part.words[begin:end])} " in row.joined:
                    mark[begin:end] = [True] * (end - begin)
            if len(parts) > 1 and 2 * matched(mark, part.own) <= sum(part.own):
                pairs = [at for at in range(len(part.words) - 1) if part.own[at] or part.own[at + 1]]
                near = [at for at in pairs if f" {part.words[at]} {part.words[at + 1]} " in row.joined]
                for at in near if len(near) >= _BIGRAMS * len(pairs) else ():
                    mark[at : at + 2] = [True, True]
        return grams, marks

    def rare(self, grams: list[list[bool]], parts: list[Part]) -> float:
        """Compute the share of an item's rare runs that match; 0 for an item with fewer than n of them."""
        size = 2 * self._index.n
        count = sum(len(part.rare) for part in parts)
        found = sum(all(mark[at : at + size]) for mark, part in zip(grams, parts, strict=True) for at in part.rare)
        return found / count if count >= self._index.n else 0.0


def matched(marks: list[bool], own: list[bool]) -> int:
    """Count the own tokens of a field that match."""
    return sum(mark and o for mark, o in zip(marks, own, strict=True))
