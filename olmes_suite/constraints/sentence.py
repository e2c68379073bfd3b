"""The family `sentence`: how a sentence relates to the previous sentence or to its position."""

from __future__ import annotations

import re
from itertools import pairwise

from olmes_suite.constraints.registry import CheckerError, constraint
from olmes_suite.constraints.text import PUNCTUATION, bare, ruled_sentences, sentences, words


def _alliterative(initials: list[str]) -> int:
    """Count the words in runs of two or more with the same initial."""
    same = [one == other for one, other in pairwise(initials)]
    return sum(before or after for before, after in zip([False, *same], [*same, False], strict=True))


def _rising(counts: list[int]) -> bool:
    return all(one < other for one, other in pairwise(counts))


@constraint("sentence:alliteration_increment", profile="reference", version=2)
def alliteration_rises(response: str) -> bool:
    """More alliterative words in each sentence than in the previous sentence; one sentence passes."""
    piece_lists = [[piece.lstrip(PUNCTUATION + " ") for piece in s.lower().split()] for s in ruled_sentences(response)]
    return _rising([_alliterative([piece[0] for piece in pieces if piece]) for pieces in piece_lists])


@constraint("sentence:alliteration_increment", profile="repaired", needs=("punkt_tab",))
def alliteration_rises_over_two(response: str) -> bool:
    """More alliterative words in each of at least two sentences than in the previous sentence."""
    word_lists = [words(sentence.lower()) for sentence in sentences(response)]
    counts = [_alliterative([word[0] for word in in_sentence]) for in_sentence in word_lists if in_sentence]
    return len(counts) > 1 and _rising(counts)


@constraint(
    "sentence:increment",
    profile="reference",
    version=2,
    draws={"small_n": lambda rng, _: rng.randint(1, 5)},
)
def grows(response: str, *, small_n: int) -> bool:
    """Each sentence has `small_n` words more than the previous sentence; one sentence passes."""
    counts = [len(bare(sentence).split()) for sentence in ruled_sentences(response)]
    return all(other - one == small_n for one, other in pairwise(counts))


@constraint("sentence:increment", profile="repaired", needs=("punkt_tab",))
def grows_over_two(response: str, *, small_n: int) -> bool:
    """Each of at least two sentences has `small_n` words more than the previous sentence; 0 requires equal lengths."""
    counts = [count for count in (len(words(sentence)) for sentence in sentences(response)) if count]
    return len(counts) > 1 and all(other - one == small_n for one, other in pairwise(counts))


@constraint(
    "sentence:keyword",
    profile="reference",
    version=2,
    draws={"N": lambda rng, _: rng.randint(1, 20)},
)
def keyword_inside_words(response: str, *, word: str, N: int) -> bool:
    """The `N`-th sentence contains `word`, also inside another word.

    A missing `word` is an error: it is not drawn at random.
    """
    parts = ruled_sentences(response)
    return len(parts) >= N and word.lower() in parts[N - 1].lower()


@constraint("sentence:keyword", profile="repaired", needs=("punkt_tab",))
def keyword(response: str, *, word: str, N: int) -> bool:
    """The `N`-th sentence contains `word` as a whole word."""
    if N < 1:
        raise CheckerError(f"sentence:keyword: the parameter N must be at least 1, not {N}")
    parts = sentences(response)
    return len(parts) >= N and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", parts[N - 1], re.IGNORECASE) is not None
