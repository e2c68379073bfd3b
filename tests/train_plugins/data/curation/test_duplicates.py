"""Exact and near duplicates, against the similarity of all pairs."""

from __future__ import annotations

import random
import sys

import pytest

from olmes_suite.errors import UsageError
from train_plugins.data.curation.duplicates import (
    NearDuplicates,
    digest,
    duplicates,
    jaccard,
    rows_and_bands,
    shingles,
)

pytest.importorskip("rensa")


def texts_with_copies(count: int, seed: int = 0) -> list[str]:
    """Texts of 40 to 120 words; every second one is a copy of an earlier one with a few words changed."""
    rng = random.Random(seed)
    words = [f"w{number}" for number in range(3000)]
    texts = [" ".join(rng.choices(words, k=rng.randint(40, 120))) for _ in range(count // 2)]
    for _ in range(count - len(texts)):
        copy = rng.choice(texts).split()
        for _ in range(rng.randint(1, 4)):
            copy[rng.randrange(len(copy))] = rng.choice(words)
        texts.append(" ".join(copy))
    return texts


def complete_search(texts: list[str], threshold: float, length: int) -> set[int]:
    """The texts that are at least so similar to an earlier one that is kept."""
    sets = [shingles(text, length) for text in texts]
    kept: list[int] = []
    for row, grams in enumerate(sets):
        if not any(jaccard(sets[one], grams) >= threshold for one in kept):
            kept.append(row)
    return set(range(len(texts))) - set(kept)


@pytest.mark.parametrize(
    ("threshold", "length"), [(0.8, 5), *(pytest.param(*pair, marks=pytest.mark.long) for pair in ((0.8, 3), (0.6, 5)))]
)
def test_nearly_all_are_found_and_nothing_else(threshold: float, length: int) -> None:
    texts = texts_with_copies(800)
    expected = complete_search(texts, threshold, length)
    found = duplicates(texts, threshold, length)
    assert len(expected) > 100
    assert len(expected & set(found)) >= 0.95 * len(expected)
    for row, one in found.items():
        assert one.of < row and one.of not in found
        assert one.similarity == jaccard(shingles(texts[one.of], length), shingles(texts[row], length)) >= threshold


def test_equal_texts_are_found_without_sketches() -> None:
    found = duplicates(["a  b", "c", "a b ", "c"], threshold=None)
    assert {row: one.of for row, one in found.items()} == {2: 0, 3: 1}
    assert digest("a\n b") == digest("a b") != digest("A b")


def test_the_first_of_a_chain_is_kept_and_the_next_compared_with_it() -> None:
    words = [f"w{number}" for number in range(60)]
    near = [*words[:-5], *"stuvw"]
    far = [*"pqrst", *near[5:]]  # similar to `near`, which is dropped, but not to the first
    found = duplicates([" ".join(one) for one in (words, near, far)], 0.8, 3)
    assert set(found) == {1}


def test_results_do_not_depend_on_batches() -> None:
    texts = texts_with_copies(200)
    results = []
    for size in (7, 1000):
        near = NearDuplicates()
        near.add(texts, at_once=size)
        results.append(near.find(texts.__getitem__))
    assert results[0] == results[1]


@pytest.mark.parametrize("text", ["", "?!", "one", "ein Wort", "東京は日本の首都です"])
def test_short_texts_and_other_scripts_have_shingles(text: str) -> None:
    assert shingles(text, 5)
    assert not duplicates([text, "something else altogether, of seven words"])


def test_scripts_without_spaces_are_compared_by_character() -> None:
    assert len(shingles("東京は日本の首都です", 5)) == 6


@pytest.mark.parametrize("threshold", [0.5, 0.7, 0.8, 0.9, 1.0])
def test_bands_reach_the_recall(threshold: float) -> None:
    rows, bands = rows_and_bands(threshold)
    assert rows * bands <= 128 and 1 - (1 - threshold**rows) ** bands >= 0.99


@pytest.mark.parametrize(("threshold", "length"), [(0.0, 5), (1.5, 5), (0.8, 0)])
def test_impossible_settings(threshold: float, length: int) -> None:
    with pytest.raises(UsageError, match="near duplicates need"):
        NearDuplicates(threshold, length)


def test_a_missing_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rensa", None)
    with pytest.raises(UsageError, match=r"pip install 'olmes-suite\[curate\]'"):
        NearDuplicates()
