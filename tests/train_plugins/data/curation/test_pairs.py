"""The pair of a prompt: rules, ties, margins, lengths, the policy's side."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from train_plugins.data.curation.candidates import Candidate
from train_plugins.data.curation.pairs import Pair, Rules, pair_of


def texts(*words: int, models: str = "abcd") -> list[Candidate]:
    return [Candidate(model, 0, "word " * count) for model, count in zip(models, words, strict=False)]


FOUR = texts(10, 10, 10, 10)


def pairs(scores: list[float], rules: Rules, candidates: list[Candidate] = FOUR) -> Counter[Pair | str]:
    return Counter(pair_of(candidates, scores, rules, random.Random(seed)) for seed in range(200))


def test_any_lower_answer_is_rejected_in_tulu_3_and_the_worst_in_olmo_3() -> None:
    assert set(pairs([5, 3, 4, 1], Rules("random_lower"))) == {Pair(0, 1), Pair(0, 2), Pair(0, 3)}
    assert set(pairs([5, 3, 4, 1], Rules("worst"))) == {Pair(0, 3)}


def test_among_equal_answers_one_is_drawn() -> None:
    found = pairs([5, 5, 1, 1], Rules("worst"))
    assert set(found) == {Pair(0, 2), Pair(0, 3), Pair(1, 2), Pair(1, 3)} and min(found.values()) > 20


def test_ties_make_no_pair() -> None:
    assert set(pairs([3, 3, 3, 3], Rules())) == {"tie"}
    assert set(pairs([3, 3, 3, 2.75], Rules(margin=0.5))) == {"margin"}
    assert set(pairs([13 / 3, 10 / 3, 10 / 3, 4], Rules(margin=1.0))) == {Pair(0, 1), Pair(0, 2)}
    assert set(pairs([3, 3, 2.5, 2.75], Rules(margin=0.5))) == {Pair(0, 2), Pair(1, 2)}


def test_the_difference_of_lengths_is_bounded() -> None:
    candidates = texts(10, 30, 15, 10)
    assert set(pairs([5, 1, 2, 5], Rules("worst", length_ratio=2.0), candidates)) == {Pair(0, 2), Pair(3, 2)}
    assert set(pairs([1, 5, 1, 1], Rules(length_ratio=1.5), candidates)) == {"length"}


@pytest.mark.parametrize("scores", [[5, 3, 4, 1], [1, 5, 4, 3], [5, 5, 1, 2]])
def test_one_side_is_the_policys(scores: list[float]) -> None:
    for pair in pairs(scores, Rules(policy="a")):
        assert isinstance(pair, Pair) and 0 in (pair.chosen, pair.rejected)


def test_a_policy_within_the_margin_has_no_pair() -> None:
    assert set(pairs([4.75, 5, 1, 1], Rules(margin=0.5, policy="a"))) == {"no_policy_side"}


def test_an_absent_policy_changes_nothing() -> None:
    assert set(pairs([5, 3, 4, 1], Rules("worst", policy="z"))) == {Pair(0, 3)}
