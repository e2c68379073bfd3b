"""Which pairs of rows and items are hits: the rule `own`, applied to the pairs that share enough n-grams.

N-grams say where a row and an item agree. A pair is a hit if what they agree on is the item's own text, and if the row
also contains the numbers of that text and most of its words. "How far does a train go in 3 hours at 60 miles per hour?"
and the same question with 5 and 80 are two questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from decontam.matching.dense import dense_rows
from decontam.matching.filter import Verdicts
from decontam.matching.index import Index
from decontam.matching.rule import Rule
from decontam.matching.verify import NEAR, NGRAM, SHARED, SHORT, Matches, Verifier
from decontam.text import tokens
from decontam.training_data.batches import Batch

WORDS, NUMBERS = 0.8, 0.9
"""More than this share of an item's own words, and no less of its own numbers, must stand near the match."""
ALONE = 0.75
"""Share of an item's own text that must match where the paper's rule, which counts all text, makes no hit of it."""
BIGRAMS = 0.6
"""Share of the pairs of neighbouring words of a field that a row must contain, where the field has no n-gram left."""
RARE = 0.5
"""Share of an item's rare runs of tokens that must match where the item has no other text of its own."""
_NUMBER = re.compile(r"\d{1,3}(?:,(?:\\!)?\d{3})+(?!\d)|\d+")
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        [
            "zero",
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
            "eleven",
            "twelve",
            "thirteen",
            "fourteen",
            "fifteen",
            "sixteen",
            "seventeen",
            "eighteen",
            "nineteen",
            "twenty",
        ]
    )
}
_GOES_ON = re.compile(r"[\"'“‘«(\[*_]*\w|,")
"""What follows a short item that is only the beginning of a sentence."""
_GAP = 100
"""Most characters between a short item and the text around it."""
_NEAR = 20_000
"""Most characters around a match in which the rest of an item is looked for; otherwise as many as the item has."""


@dataclass(frozen=True, slots=True)
class _Part:
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


class Decider:
    """The rule with its index and scratch memory; one for each process."""

    def __init__(self, index: Index, rule: Rule) -> None:
        self.index = index
        self._rule = rule
        self._verifier = Verifier(index, rule.threshold)
        self._needed_own = index.needed_own(rule.threshold)
        symbols = index.symbols
        self._symbols = Verifier(symbols, rule.threshold, symbols=True) if symbols is not None else None
        self._item = lru_cache(maxsize=8192)(self._read_item)

    def __call__(self, batch: Batch, verdicts: Verdicts) -> Iterator[Matches]:
        """Find the pairs of a batch, first those that share words and then those that share symbols only."""
        matches = self._verifier(batch, verdicts.candidates, verdicts.normalized)
        if self._rule.variant == "paper":
            yield matches
            return
        matches = self._checked(batch, matches)
        if self._symbols is None:
            yield matches
            return
        by_symbols = self.index.arrays["by_symbols"][matches.items]
        rows = set(matches.rows[by_symbols].tolist()) | set(dense_rows(batch).tolist())
        found = self._symbols(batch, sorted(rows.difference(verdicts.broken)), verdicts.normalized)
        found = replace(found, kinds=_whole_sentences(batch, found))
        found = found.take((found.kinds <= SHORT) & ~self._goes_on(batch, found))
        parents = self._symbols.index.arrays["parents"]
        decided = {
            (row, int(parents[item])): k
            for k, (row, item) in enumerate(zip(found.rows.tolist(), found.items.tolist(), strict=True))
        }
        kinds, own = matches.kinds.copy(), matches.own_coverage.copy()
        both = np.zeros(len(found), np.bool_)
        for k in np.flatnonzero(by_symbols).tolist():
            other = decided.get((int(matches.rows[k]), int(matches.items[k])))
            kinds[k] = SHARED if other is None else found.kinds[other]
            if other is not None:
                own[k], both[other] = found.own_coverage[other], True
        yield replace(matches, kinds=kinds, own_coverage=own)
        more = found.take(~both)
        yield replace(more, items=np.asarray(parents[more.items]))

    def _goes_on(self, batch: Batch, found: Matches) -> NDArray[np.bool_]:
        """Mark the pairs of which the row's expression is longer than the item: "( < > )" is not "( < > ) ]"."""
        assert self._symbols is not None
        index, texts = self._symbols.index, _Texts(batch)
        whole, lengths = index.arrays["whole"][found.items], index.lengths[found.items]
        longer = np.zeros(len(found), np.bool_)
        for k in np.flatnonzero(whole | (found.kinds == SHORT)).tolist():
            spans = found.train.of(k)
            part, start, _ = spans[0]
            text, end = texts.text(int(found.rows[k]), part), max(stop for other, _, stop in spans if other == part)
            before, after = text[max(0, start - _GAP) : start].rstrip(" \t"), text[end : end + _GAP].lstrip(" \t")
            longer[k] = any(tokens.is_symbol(char) for char in before[-1:] + after[:1]) or (
                lengths[k] < 2 * self._rule.n and before[-1:].isalnum()
            )
        return longer

    def _checked(self, batch: Batch, matches: Matches) -> Matches:
        """Decide about every pair whose n-grams alone do not."""
        kinds, own = _whole_sentences(batch, matches), matches.own_coverage.copy()
        texts = _Texts(batch)
        for k in np.flatnonzero((matches.coverage < 1) & ~self.index.arrays["by_symbols"][matches.items]).tolist():
            if kinds[k] == SHORT:
                continue
            parts = self._item(int(matches.items[k]))
            whole = bool(self.index.arrays["whole"][matches.items[k]])
            row = texts.around(matches, k, sum(part.ends[-1] for part in parts if part.ends))
            grams, marks = self._marks(matches, k, parts, row)
            found = [_both(mark, part.own) for mark, part in zip(marks, parts, strict=True)]
            if sum(found) < self._needed_own[matches.items[k]] and not (whole and self._rare(grams, parts) > RARE):
                kinds[k] = SHARED
                continue
            own[k] = sum(found) / sum(sum(part.own) for part in parts)
            enough = matches.paper[k] or (own[k] >= ALONE and not whole)
            counts = [_both(mark, part.own) for mark, part in zip(grams, parts, strict=True)]
            kinds[k] = NGRAM if enough and _asked(found, parts) and _contains(row, counts, parts) else NEAR
        return replace(matches, kinds=kinds, own_coverage=own)

    def _read_item(self, item: int) -> list[_Part]:
        arrays, parts = self.index.arrays, []
        first = int(arrays["part_items"][item])
        for number, (_, text) in enumerate(self.index.parts_of(item), first):
            chosen = slice(int(arrays["part_tokens"][number]), int(arrays["part_tokens"][number + 1]))
            starts, ends = arrays["token_starts"][chosen].tolist(), arrays["token_ends"][chosen].tolist()
            own, rare = arrays["own"][chosen].tolist(), np.flatnonzero(arrays["rare"][chosen]).tolist()
            words = tokens.tokenize(text)
            numbers = {
                _digits(match.group())
                for match in _NUMBER.finditer(text)
                if any(o for s, o in zip(starts, own, strict=True) if match.start() <= s < match.end())
            }
            # "one" is mostly a pronoun.
            numbers |= {_NUMBER_WORDS.get(w, "") for w, o in zip(words, own, strict=True) if o and w != "one"} - {""}
            parts.append(_Part(words, own, rare, starts, ends, self._lines(text, starts, own), frozenset(numbers)))
        return parts

    def _lines(self, text: str, starts: list[int], own: list[bool]) -> list[tuple[int, int]]:
        lines, at, place = [], 0, 0
        for line in text.split("\n"):
            place += len(line) + 1
            begin = at
            while at < len(starts) and starts[at] < place:
                at += 1
            if 0 < at - begin < self._rule.n and any(own[begin:at]):
                lines.append((begin, at))
        return lines

    def _marks(
        self, matches: Matches, k: int, parts: list[_Part], row: _Around
    ) -> tuple[list[list[bool]], list[list[bool]]]:
        """Mark the tokens of an item that match by n-grams, and those that match.

        A line that is shorter than an n-gram matches if the row contains it as a whole. One of several fields without
        n-grams in the row, such as a short question with a word changed, matches by its pairs of neighbouring words.
        """
        first = int(self.index.arrays["part_items"][matches.items[k]])
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
            if len(parts) > 1 and 2 * _both(mark, part.own) <= sum(part.own):
                pairs = [at for at in range(len(part.words) - 1) if part.own[at] or part.own[at + 1]]
                near = [at for at in pairs if f" {part.words[at]} {part.words[at + 1]} " in row.joined]
                for at in near if len(near) >= BIGRAMS * len(pairs) else ():
                    mark[at : at + 2] = [True, True]
        return grams, marks

    def _rare(self, grams: list[list[bool]], parts: list[_Part]) -> float:
        """Compute the share of an item's rare runs that match; 0 for an item with fewer than n of them."""
        size = 2 * self._rule.n
        count = sum(len(part.rare) for part in parts)
        matched = sum(all(mark[at : at + size]) for mark, part in zip(grams, parts, strict=True) for at in part.rare)
        return matched / count if count >= self._rule.n else 0.0


def _both(marks: list[bool], own: list[bool]) -> int:
    """Count the own tokens of a field that match."""
    return sum(mark and o for mark, o in zip(marks, own, strict=True))


def _asked(found: list[int], parts: list[_Part]) -> bool:
    """Whether more than the last field matches, where others have own text: choices alone are no question."""
    others = [count for count, part in zip(found, parts, strict=True) if any(part.own)][:-1]
    return not others or any(others)


def _contains(row: _Around, grams: list[int], parts: list[_Part]) -> bool:
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


@dataclass(frozen=True, slots=True)
class _Around:
    """The text of a row around its matches with one item."""

    joined: str
    """Its tokens, with a space before and after each."""
    words: frozenset[str]
    numbers: frozenset[str]


class _Texts:
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

    def around(self, matches: Matches, k: int, size: int) -> _Around:
        """Read the text around the matching stretches of a pair: `size` characters on either side of each."""
        row, size = int(matches.rows[k]), min(size, _NEAR)
        pieces, segment, begin, end = [], -1, 0, 0
        for part, start, stop in [*matches.train.of(k), (-1, 0, 0)]:
            if part == segment and start - size <= end:
                end = max(end, stop + size)
                continue
            if segment >= 0:
                pieces.append(self.text(row, segment)[begin:end])
            segment, begin, end = part, max(0, start - size), stop + size
        words = [word for piece in pieces for word in tokens.tokenize(piece)]
        numbers = {_digits(number) for piece in pieces for number in _NUMBER.findall(piece)}
        numbers.update(_NUMBER_WORDS.get(word, word) for word in words)
        return _Around(f" {' '.join(words)} ", frozenset(words), frozenset(numbers))


def _digits(number: str) -> str:
    return re.sub(r"\D", "", number)


def _whole_sentences(batch: Batch, matches: Matches) -> NDArray[np.int8]:
    """Return the kinds of pairs, with short items that are only a part of a longer sentence made NEAR.

    "Who are you?" is not in "Tell me who are you voting for".
    """
    kinds, texts = matches.kinds.copy(), _Texts(batch)
    for k in np.flatnonzero(kinds == SHORT).tolist():
        row = int(matches.rows[k])
        if not all(_stands_alone(texts.text(row, part), start, end) for part, start, end in matches.train.of(k)):
            kinds[k] = NEAR
    return kinds


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether text[start:end], or another place with the same tokens, is no part of a longer sentence."""
    if _apart(text, start, end):
        return True
    if len(text) > _NEAR:
        return False
    # Spans name the first place only.
    words = re.findall(r"\w+", text[start:end])
    if not words:
        return False
    same = re.compile(r"(?<!\w)" + r"\W+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)
    return any(_apart(text, match.start(), match.end()) for match in same.finditer(text))


def _apart(text: str, start: int, end: int) -> bool:
    before, after = text[max(0, start - _GAP) : start].rstrip(" \t"), text[end : end + _GAP].lstrip(" \t")
    return not before[-1:].isalnum() and _GOES_ON.match(after) is None
