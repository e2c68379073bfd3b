"""Rows that hold many items, or one item many times: what they cost, and what is reported of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from decontam_cases import cases, index_of, ours
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.matching import exact
from decontam.matching.filter import Filter
from decontam.matching.index import Index
from decontam.matching.rule import Rule
from decontam.matching.verify import Verifier
from decontam.text import tokens
from decontam.training_data.batches import Batch

Spans = list[tuple[str, tuple[int, int]]]


def spans_by_brute_force(item: Sequence[str], row: Sequence[str], first: int, rule: Rule) -> tuple[Spans, Spans]:
    """The stretches of an item and of a row, whose parts count from `first`, that a pair lists: sets of tokens."""
    texts = [tokens.tokenize(text) for text in row]
    parts = [tokens.tokenize(text) for text in item]
    short = max(map(len, parts)) < rule.n
    marked: list[set[int]] = [set() for _ in parts]
    shown: list[list[tuple[int, int]]] = [[] for _ in texts]
    for part, words in enumerate(parts):
        size = len(words) if short else rule.n
        last = len(words) - size
        for k in range(last + 1 if size else 0):
            gram = words[k : k + size]
            places = [(t, p) for t, text in enumerate(texts) for p in range(len(text)) if text[p : p + size] == gram]
            if (k % rule.stride == 0 or k == last) and places:
                marked[part] |= set(range(k, k + size))
                text, place = places[0]
                shown[text].append((place, place + size))
    evals = [(f"f{k}", span) for k, own in enumerate(marked) for span in _runs([(t, t + 1) for t in own], item[k])]
    trains = [(f"p{first + k}", span) for k, own in enumerate(shown) for span in _runs(own, row[k])]
    return evals, trains


def _runs(stretches: list[tuple[int, int]], text: str) -> list[tuple[int, int]]:
    """Stretches of tokens, those that touch as one, as places in the text."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(set(stretches)):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    places = tokens.spans(text)
    return [(places[start][0], places[end - 1][1]) for start, end in joined]


@settings(max_examples=100, deadline=None)
@given(cases())
def test_a_pair_lists_the_item_and_the_first_place_of_each_gram(
    case: tuple[list[list[str]], list[list[str]], Rule],
) -> None:
    items, rows, rule = case
    firsts = np.cumsum([0, *map(len, rows)]).tolist()
    _, pairs = ours(items, rows, rule)
    for (row, item), pair in pairs.items():
        evals, trains = spans_by_brute_force(items[item], rows[row], firsts[row], rule)
        assert list(zip(pair.eval.parts, pair.eval.spans, strict=True)) == evals
        assert list(zip(pair.train.parts, pair.train.spans, strict=True)) == trains


def alike(count: int) -> list[list[str]]:
    """Items that share most of their words."""
    random = np.random.default_rng(1)
    opening = "read the passage below and then choose the answer that the author would most likely give"
    return [[f"{opening} {' '.join(f'w{w}' for w in random.integers(0, 60, 12))}"] for _ in range(count)]


def work(index: Index, texts: Sequence[str], row_of: Sequence[int]) -> tuple[int, int, int]:
    """(pairs, stretches of training text that they list, places of items that were compared)."""
    rows = max(row_of) + 1
    batch = Batch.of_texts([text.encode() for text in texts], row_of, rows, [f"p{k}" for k in range(len(texts))])
    verifier = Verifier(index, 0.5)
    found = verifier(batch, range(rows), frozenset())
    return len(found), len(found.train.places), verifier.compared


def test_a_row_costs_what_it_holds_and_not_how_often() -> None:
    """Without `done`, 50 copies of 200 items that share an opening are 50 × 200 × 200 comparisons for each n-gram."""
    items = alike(200)
    index = index_of(items, Rule())
    whole = " | ".join(text for (text,) in items)
    once = work(index, [whole], [0])
    assert once == work(index, [" | ".join([whole] * 50)], [0]) == work(index, [whole] * 50, [0] * 50)
    pairs, stretches, compared = once
    assert pairs == 200 and compared <= len(index.arrays["postings"]) and stretches <= compared
    rows = work(index, [text for (text,) in items], range(200))
    assert rows[0] >= 200 and rows[2] <= 200 * 200 * 30


def test_scratch_is_left_as_it_was() -> None:
    """A row's verdict does not hang on the rows before it."""
    items = alike(30)
    index = index_of(items, Rule())
    texts = [text for (text,) in items] * 3
    alone = [work(index, [text], [0])[:2] for text in texts]
    together = work(index, texts, range(len(texts)))
    assert together[:2] == (sum(pairs for pairs, _ in alone), sum(spans for _, spans in alone))


@pytest.mark.parametrize("filler", ["word ", "猫", "é, ", "ﬁ ½ "])
def test_a_row_longer_than_the_window(filler: str) -> None:
    """Grams that lie across the border of two windows are found, at their places in the whole text."""
    secret = "one question that nobody else would ever put in quite these words before lunch"
    short = ["noon sharp"]
    size = len(tokens.tokenize(filler))
    for before in (exact.WINDOW // size - 8, exact.WINDOW // size - 3, exact.WINDOW // size, 3 * exact.WINDOW // size):
        row = filler * before + " " + secret + " " + filler * 20_000 + " noon sharp"
        _, pairs = ours([[secret], short], [[row]], Rule())
        assert {pair.kind for pair in pairs.values()} == {"ngram", "short"}
        texts = [row[start:end] for pair in pairs.values() for start, end in pair.train.spans]
        assert sorted(texts) == sorted([secret, "noon sharp"])


def test_a_word_longer_than_the_window() -> None:
    word = "ab" * 3 * exact.WINDOW
    text = f"{word} is the one word that nobody says in here"
    found, pairs = ours([[text], [f"{word} {word}x"]], [["so: " + text + ", and more"]], Rule())
    assert found == {(0, 0): ("ngram", 1.0)}
    assert pairs[0, 0].train.spans == ((4, 4 + len(text)),)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.text(max_size=6), st.sampled_from([" ", "\n", "e\u0301", " \u0301x", "ﬁ", "각", "\u00a0"])))
)
def test_pieces_have_the_tokens_of_the_text(some: list[str]) -> None:
    text = "".join(some)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "PIECE", 3)
        cut = list(tokens.pieces(text))
    assert "".join(text[start:end] for start, end in cut) == text
    assert [token for start, end in cut for token in tokens.tokenize(text[start:end])] == tokens.tokenize(text)


def test_of_a_long_row_python_reads_only_what_must_be_normalised(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "one question that nobody else would ever put in quite these words before lunch at the cafe\u0301"
    row = "word é, " * 30_000 + secret + " word" * 50_000
    index = index_of([[secret], ["lunch at the café"]], Rule())
    batch = Batch.of_texts([row.encode()], [0], 1, ["p0"])
    verdicts = Filter(index, 0.5)(batch)
    assert verdicts.candidates == [0] and verdicts.normalized == {0}
    read: list[int] = []
    tokenize = tokens.tokenize

    def counted(text: str, *, symbols: bool = False) -> list[str]:
        read.append(len(text))
        return tokenize(text, symbols=symbols)

    monkeypatch.setattr(tokens, "tokenize", counted)
    found = Verifier(index, 0.5)(batch, verdicts.candidates, verdicts.normalized)
    spans = [[row[start:end] for start, end in pair.train.spans] for _, pair in found.pairs()]
    assert spans == [[secret], ["lunch at the cafe\u0301"]]
    assert 0 < sum(read) < 4 * tokens.PIECE
