"""The family `ratio`: proportions of words, characters and kinds of sentences."""

from __future__ import annotations

import re

from olmes_suite.constraints.registry import constraint
from olmes_suite.constraints.text import ending, ruled_sentences, sentences, stop_words, words

_TOLERANCE = 2.0
"""Percentage points, on either side."""


def _trigrams(items: str | list[str]) -> set[tuple[str, ...]]:
    return set(zip(items, items[1:], items[2:], strict=False))


@constraint("ratio:overlap", profile="reference", draws={"percentage": lambda rng, _: rng.randint(1, 100)})
def overlap_of_characters(response: str, *, reference_text: str, percentage: float) -> bool:
    """`percentage` of the response's character trigrams are in the reference text, within two points.

    Raises ZeroDivisionError for fewer than three characters, as the reference does.
    """
    trigrams = _trigrams(response)
    return abs(100 * len(trigrams & _trigrams(reference_text)) / len(trigrams) - percentage) <= _TOLERANCE


@constraint("ratio:overlap", profile="repaired")
def overlap(response: str, *, reference_text: str, percentage: float) -> bool:
    """`percentage` of the response's word trigrams are in the reference text, within two points, ignoring case."""
    trigrams = _trigrams(words(response.lower()))
    if not trigrams:
        return False
    return (
        abs(100 * len(trigrams & _trigrams(words(reference_text.lower()))) / len(trigrams) - percentage) <= _TOLERANCE
    )


def _ends(parts: list[str], mark: str) -> int:
    return sum(sentence.endswith(mark) for sentence in parts)


@constraint("ratio:sentence_balance", profile="reference", version=2)
def balanced_if_any(response: str) -> bool:
    """As many sentences end in . as in ? and in !; a response without any of them passes."""
    parts = ruled_sentences(response)
    return _ends(parts, ".") == _ends(parts, "?") == _ends(parts, "!")


@constraint("ratio:sentence_balance", profile="repaired", needs=("punkt_tab",))
def balanced(response: str) -> bool:
    """As many declarative as interrogative and exclamatory sentences, at least one of each."""
    marks = [ending(sentence) for sentence in sentences(response)]
    return 0 < marks.count(".") == marks.count("?") == marks.count("!")


@constraint("ratio:sentence_type", profile="reference", version=2)
def two_to_one_if_any(response: str) -> bool:
    """Twice as many sentences end in . as in ?; a response with neither passes."""
    parts = ruled_sentences(response)
    return _ends(parts, ".") == 2 * _ends(parts, "?")


@constraint("ratio:sentence_type", profile="repaired", needs=("punkt_tab",))
def two_to_one(response: str) -> bool:
    """Twice as many declarative as interrogative sentences, at least one of the latter."""
    marks = [ending(sentence) for sentence in sentences(response)]
    return marks.count("?") > 0 and marks.count(".") == 2 * marks.count("?")


def _three_of_a_length(parts: list[str]) -> bool:
    return len(parts) == 3 and len({len(sentence.strip()) for sentence in parts}) == 1


@constraint("ratio:sentence_words", profile="reference", version=2)
def three_of_a_length(response: str) -> bool:
    """Three sentences of equal length; whether the words differ is not checked."""
    return _three_of_a_length(ruled_sentences(response))


@constraint("ratio:sentence_words", profile="repaired", needs=("punkt_tab",))
def three_of_a_length_all_different(response: str) -> bool:
    """Three sentences of equal length in characters, without a repeated word."""
    all_words = words(response.lower())
    return _three_of_a_length(sentences(response)) and bool(all_words) and len(set(all_words)) == len(all_words)


@constraint(
    "ratio:stop_words",
    profile="reference",
    draws={"percentage": lambda rng, _: rng.randint(1, 100)},
    needs=("stopwords",),
)
def stop_words_among_runs(response: str, *, percentage: float) -> bool:
    r"""At most `percentage` of the runs of `\w` are stop words: "don't" is two, both of them stop words.

    Raises ZeroDivisionError for a response without such runs, as the reference does.
    """
    runs = re.findall(r"\w+", response)
    return 100 * sum(word.lower() in stop_words() for word in runs) / len(runs) <= percentage


@constraint("ratio:stop_words", profile="repaired", needs=("stopwords",))
def few_stop_words(response: str, *, percentage: float) -> bool:
    """At most `percentage` of the words are stop words, and there is at least one word."""
    lowered = [word.lower().replace("’", "'") for word in words(response)]
    return bool(lowered) and 100 * sum(word in stop_words() for word in lowered) / len(lowered) <= percentage
