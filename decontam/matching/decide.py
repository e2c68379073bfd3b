"""Which pairs of rows and items are hits: the rules `own` and `strict`, applied to the pairs that share enough n-grams.

N-grams say where a row and an item agree. A pair is a hit by `own` if what they agree on is more than the threshold's
share of the item's own text; where an item shares no text with others, this is the paper's rule. `strict` also demands
the item's words and numbers (`decontam.matching.strict`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from decontam.matching import own_text, strict
from decontam.matching.dense import dense_rows
from decontam.matching.filter import Verdicts
from decontam.matching.index import Index
from decontam.matching.item_text import ItemTexts, Part, matched
from decontam.matching.row_text import Texts
from decontam.matching.rule import Rule
from decontam.matching.verify import NEAR, NGRAM, SHARED, SHORT, Matches, Verifier
from decontam.text import tokens
from decontam.training_data.batches import Batch

ALONE = 0.75
"""Share of an item's own text that must match by `strict` where the paper's rule, which counts all text, has no hit."""
RARE = 0.3
"""Share of an item's rare runs of tokens that must match where the item has no other text of its own."""


class Decider:
    """The rule with its index and scratch memory; one for each process."""

    def __init__(self, index: Index, rule: Rule) -> None:
        self.index = index
        self._rule = rule
        self._verifier = Verifier(index, rule.threshold)
        self._needed_own = index.needed_own(rule.threshold)
        symbols = index.symbols
        self._symbols = Verifier(symbols, rule.threshold, symbols=True) if symbols is not None else None
        self._items = ItemTexts(index)

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
        found = replace(found, kinds=strict.whole_sentences(batch, found))
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
        index, texts = self._symbols.index, Texts(batch)
        whole, lengths = index.arrays["whole"][found.items], index.lengths[found.items]
        longer = np.zeros(len(found), np.bool_)
        for k in np.flatnonzero(whole | (found.kinds == SHORT)).tolist():
            spans = found.train.of(k)
            part, start, _ = spans[0]
            text, end = texts.text(int(found.rows[k]), part), max(stop for other, _, stop in spans if other == part)
            before, after = (
                text[max(0, start - strict.GAP) : start].rstrip(" \t"),
                text[end : end + strict.GAP].lstrip(" \t"),
            )
            longer[k] = any(tokens.is_symbol(char) for char in before[-1:] + after[:1]) or (
                lengths[k] < 2 * self._rule.n and before[-1:].isalnum()
            )
        return longer

    def _checked(self, batch: Batch, matches: Matches) -> Matches:
        """Decide about every pair whose n-grams alone do not."""
        demanding, arrays, items = self._rule.variant == "strict", self.index.arrays, matches.items
        unique = arrays["unique"][items]
        if demanding:
            kinds = strict.whole_sentences(batch, matches)
        else:
            kinds = np.where((matches.kinds == SHORT) & (unique == 0), SHARED, matches.kinds).astype(np.int8)
        # A match that is a hit by the paper's rule and by that of own text needs no further look.
        open_ = (matches.coverage < 1) & ~arrays["by_symbols"][items] & ~arrays["short"][items]
        if not demanding:
            open_ &= ~matches.paper | (kinds != NGRAM)
        own, texts = matches.own_coverage.copy(), Texts(batch)
        for k in np.flatnonzero(open_).tolist():
            kinds[k], own[k] = self._judged(matches, k, texts, demanding)
        return replace(matches, kinds=kinds, own_coverage=own)

    def _judged(self, matches: Matches, k: int, texts: Texts, demanding: bool) -> tuple[int, float]:
        """Return a pair's kind and the share of the item's own tokens that match."""
        item, paper = int(matches.items[k]), bool(matches.paper[k])
        parts, whole = self._items.of(item), bool(self.index.arrays["whole"][item])
        row = texts.around(matches, k, sum(part.ends[-1] for part in parts if part.ends))
        grams, marks = self._items.marks(matches, k, parts, row)
        found = [matched(mark, part.own) for mark, part in zip(marks, parts, strict=True)]
        if not demanding and paper and (asked := self._question(found, parts)) > self._rule.threshold:
            return NGRAM, asked
        if sum(found) < self._needed_own[item] and not (whole and self._items.rare(grams, parts) > RARE):
            return SHARED, float(matches.own_coverage[k])
        own = sum(found) / sum(sum(part.own) for part in parts)
        if demanding:
            enough = (paper or (own >= ALONE and not whole)) and strict.asked(found, parts)
            counts = [matched(mark, part.own) for mark, part in zip(grams, parts, strict=True)]
            return NGRAM if enough and strict.contains(row, counts, parts) else NEAR, own
        # Without the text around it, own text must be long enough to tell the item from others.
        alone = sum(found) >= 2 * self._rule.n and not whole and self.index.arrays["unique"][item] >= own_text.LEAST
        return NGRAM if paper or alone else NEAR, own

    def _question(self, found: list[int], parts: list[Part]) -> float:
        """Compute the share of own tokens that match without the last field: rows often lack an item's choices."""
        own = sum(sum(part.own) for part in parts[:-1])
        return sum(found[:-1]) / own if own >= own_text.LEAST else 0.0
