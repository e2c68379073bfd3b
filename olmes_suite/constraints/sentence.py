"""sentence: what one sentence has to do with the one before it, or with its place."""

from __future__ import annotations

import re
from itertools import pairwise

from olmes_suite.constraints.registry import CheckerError, constraint
from olmes_suite.constraints.text import PUNCTUATION, bare, ruled_sentences, sentences, words


def _alliterative(initials: list[str]) -> int:
    """How many words stand in runs of two or more with the same initial."""
    same = [one == other for one, other in pairwise(initials)]
    return sum(before or after for before, after in zip([False, *same], [*same, False], strict=True))


def _rising(counts: list[int]) -> bool:
    return all(one < other for one, other in pairwise(counts))


@constraint("sentence:alliteration_increment", profile="reference", version=2)
def alliteration_rises(response: str) -> bool:
    """More alliterative words in each sentence than in the one before; one sentence passes."""
    pieces = [[piece.lstrip(PUNCTUATION + " ") for piece in s.lower().split()] for s in ruled_sentences(response)]
    return _rising([_alliterative([piece[0] for piece in found if piece]) for found in pieces])


@constraint("sentence:alliteration_increment", profile="repaired", needs=("punkt_tab",))
def alliteration_rises_over_two(response: str) -> bool:
    """More alliterative words in each sentence than in the one before, over at least two sentences."""
    found = [words(sentence.lower()) for sentence in sentences(response)]
    counts = [_alliterative([word[0] for word in each]) for each in found if each]
    return len(counts) > 1 and _rising(counts)


@constraint(
    "sentence:increment",
    profile="reference",
    version=2,
    draws={"small_n": lambda rng, _: rng.randint(1, 5)},
)
def grows(response: str, *, small_n: int) -> bool:
    """Each sentence has `small_n` words more than the one before; one sentence passes."""
    counts = [len(bare(sentence).split()) for sentence in ruled_sentences(response)]
    return all(other - one == small_n for one, other in pairwise(counts))


@constraint("sentence:increment", profile="repaired", needs=("punkt_tab",))
def grows_over_two(response: str, *, small_n: int) -> bool:
    """Each of at least two sentences has `small_n` words more than the one before; 0 asks for equal lengths."""
    counts = [count for count in (len(words(sentence)) for sentence in sentences(response)) if count]
    return len(counts) > 1 and all(other - one == small_n for one, other in pairwise(counts))


@constraint(
    "sentence:keyword",
    profile="reference",
    version=2,
    draws={"N": lambda rng, _: rng.randint(1, 20)},
)
def keyword_inside_words(response: str, *, word: str, N: int) -> bool:
    """The `N`-th sentence holds `word`, inside another word too; a missing word is an error, not a random one."""
    found = ruled_sentences(response)
    return len(found) >= N and word.lower() in found[N - 1].lower()


@constraint("sentence:keyword", profile="repaired", needs=("punkt_tab",))
def keyword(response: str, *, word: str, N: int) -> bool:
    """The `N`-th sentence holds `word` as a whole word."""
    if N < 1:
        raise CheckerError(f"sentence:keyword: there is no sentence {N}")
    found = sentences(response)
    return len(found) >= N and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", found[N - 1], re.IGNORECASE) is not None
