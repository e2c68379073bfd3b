"""Made-up items and training rows, scanned by the index."""

from __future__ import annotations

from hypothesis import strategies as st

from decontam.items.items import Item
from decontam.matching.filter import Filter
from decontam.matching.index import Index, build
from decontam.matching.rule import Rule
from decontam.matching.verify import Pair, Verifier
from decontam.text import tokens
from decontam.training_data.batches import Batch


def index_of(items: list[list[str]], rule: Rule) -> Index:
    group = [Item("t", i, tuple((f"f{k}", text) for k, text in enumerate(parts))) for i, parts in enumerate(items)]
    return build([({"name": "t", "unseen": False}, group)], rule)


def ours(items: list[list[str]], rows: list[list[str]], rule: Rule) -> tuple[Found, dict[tuple[int, int], Pair]]:
    index = index_of(items, rule)
    flat = [(r, text) for r, row in enumerate(rows) for text in row]
    batch = Batch.of_texts(
        [text.encode("utf-8") for _, text in flat], [r for r, _ in flat], len(rows), [f"p{k}" for k in range(len(flat))]
    )
    verdicts = Filter(index, rule.threshold)(batch)
    assert not verdicts.broken
    verifier = Verifier(index, rule.threshold)
    found = verifier(batch, verdicts.candidates, verdicts.normalized)
    pairs = {(r, pair.item): pair for r, pair in found.pairs()}
    return {key: (pair.kind, pair.coverage) for key, pair in pairs.items()}, pairs


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[list[str]], list[list[str]], Rule]:
    n = draw(st.integers(1, 5))
    threshold, stride = draw(st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0])), draw(st.integers(1, n))
    rule = Rule(n, threshold, stride, short=draw(st.booleans()), variant="paper")
    items = draw(st.lists(st.lists(texts(), min_size=1, max_size=3), min_size=1, max_size=6))
    rows = draw(st.lists(st.lists(texts(), max_size=3), min_size=1, max_size=6))
    planted = draw(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 20), st.integers(0, 40))))
    for row, item, start, length in planted:
        source = " ".join(items[item % len(items)])
        rows[row % len(rows)].append(draw(texts(3)) + " " + source[start : start + length] + " " + draw(texts(3)))
    return items, rows, rule


Found = dict[tuple[int, int], tuple[str, float]]


def brute_force(items: list[list[str]], rows: list[list[str]], rule: Rule) -> Found:
    """The rule word for word: sets of token tuples, one comparison for every pair."""
    found: Found = {}
    for r, row in enumerate(rows):
        texts = [tokens.tokenize(text) for text in row]
        for i, item in enumerate(items):
            parts = [tokens.tokenize(text) for text in item]
            total = sum(map(len, parts))
            longest = max(map(len, parts), default=0)
            if not total:
                continue
            if longest < rule.n:
                whole = all(
                    any(text[k : k + len(part)] == part for text in texts for k in range(len(text) - len(part) + 1))
                    for part in parts
                    if part
                )
                if whole and rule.short:
                    found[r, i] = ("short", 1.0)
                continue
            grams = {tuple(text[k : k + rule.n]) for text in texts for k in range(len(text) - rule.n + 1)}
            matched = 0
            for part in parts:
                last = len(part) - rule.n
                marked = set()
                for k in range(last + 1):
                    if (k % rule.stride == 0 or k == last) and tuple(part[k : k + rule.n]) in grams:
                        marked |= set(range(k, k + rule.n))
                matched += len(marked)
            if matched / total > rule.threshold:
                found[r, i] = ("ngram", matched / total)
    return found


@st.composite
def texts(draw: st.DrawFn, size: int = 14) -> str:
    words = draw(st.lists(WORDS, max_size=size))
    return "".join(word + draw(SEPARATORS) for word in words)


WORDS = st.sampled_from(
    ["a", "b", "c", "d", "A", "é", "e\u0301", "ﬁ", "ß", "漢", "字", "ก", "x1", "…", "½", "ｶﾞ", "한국", "İ"]
)


SEPARATORS = st.sampled_from([" ", "  ", ", ", "\n", " – ", "-"])
