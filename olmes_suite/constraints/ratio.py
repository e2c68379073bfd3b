"""ratio: proportions of words, characters and kinds of sentences."""

from __future__ import annotations

import re

from olmes_suite.constraints.registry import constraint
from olmes_suite.constraints.text import ending, ruled_sentences, sentences, stop_words, words

_TOLERANCE = 2.0
"""Points of percentage, on either side."""


def _trigrams(items: str | list[str]) -> set[tuple[str, ...]]:
    return set(zip(items, items[1:], items[2:], strict=False))


@constraint("ratio:overlap", profile="reference", draws={"percentage": lambda rng, _: rng.randint(1, 100)})
def overlap_of_characters(response: str, *, reference_text: str, percentage: float) -> bool:
    """Share of the response's character trigrams that the reference text has, within two points.

    Raises ZeroDivisionError for fewer than three characters, as the reference does.
    """
    own = _trigrams(response)
    return abs(100 * len(own & _trigrams(reference_text)) / len(own) - percentage) <= _TOLERANCE


@constraint("ratio:overlap", profile="repaired")
def overlap(response: str, *, reference_text: str, percentage: float) -> bool:
    """Share of the response's word trigrams that the reference text has, within two points; case does not count."""
    own = _trigrams(words(response.lower()))
    if not own:
        return False
    return abs(100 * len(own & _trigrams(words(reference_text.lower()))) / len(own) - percentage) <= _TOLERANCE


def _ends(found: list[str], mark: str) -> int:
    return sum(sentence.endswith(mark) for sentence in found)


@constraint("ratio:sentence_balance", profile="reference", version=2)
def balanced_if_any(response: str) -> bool:
    """As many sentences end in . as in ? and in !; none of each passes."""
    found = ruled_sentences(response)
    return _ends(found, ".") == _ends(found, "?") == _ends(found, "!")


@constraint("ratio:sentence_balance", profile="repaired", needs=("punkt_tab",))
def balanced(response: str) -> bool:
    """As many declarative as interrogative and exclamatory sentences, at least one of each."""
    marks = [ending(sentence) for sentence in sentences(response)]
    return 0 < marks.count(".") == marks.count("?") == marks.count("!")


@constraint("ratio:sentence_type", profile="reference", version=2)
def two_to_one_if_any(response: str) -> bool:
    """Twice as many sentences end in . as in ?; none of either passes."""
    found = ruled_sentences(response)
    return _ends(found, ".") == 2 * _ends(found, "?")


@constraint("ratio:sentence_type", profile="repaired", needs=("punkt_tab",))
def two_to_one(response: str) -> bool:
    """Twice as many declarative as interrogative sentences, at least one of the latter."""
    marks = [ending(sentence) for sentence in sentences(response)]
    return marks.count("?") > 0 and marks.count(".") == 2 * marks.count("?")


def _three_of_a_length(found: list[str]) -> bool:
    return len(found) == 3 and len({len(sentence.strip()) for sentence in found}) == 1


@constraint("ratio:sentence_words", profile="reference", version=2)
def three_of_a_length(response: str) -> bool:
    """Three sentences of equal length; whether their words differ is not looked at."""
    return _three_of_a_length(ruled_sentences(response))


@constraint("ratio:sentence_words", profile="repaired", needs=("punkt_tab",))
def three_of_a_length_all_different(response: str) -> bool:
    """Three sentences of equal length in characters, no word twice."""
    used = words(response.lower())
    return _three_of_a_length(sentences(response)) and bool(used) and len(set(used)) == len(used)


@constraint(
    "ratio:stop_words",
    profile="reference",
    draws={"percentage": lambda rng, _: rng.randint(1, 100)},
    needs=("stopwords",),
)
def stop_words_among_runs(response: str, *, percentage: float) -> bool:
    r"""At most `percentage` of the runs of `\w` are stop words: "don't" is two, both of them stop words.

    Raises ZeroDivisionError for a response without any, as the reference does.
    """
    found = re.findall(r"\w+", response)
    return 100 * sum(word.lower() in stop_words() for word in found) / len(found) <= percentage


@constraint("ratio:stop_words", profile="repaired", needs=("stopwords",))
def few_stop_words(response: str, *, percentage: float) -> bool:
    """At most `percentage` of the words are stop words; there is at least one word."""
    found = [word.lower().replace("’", "'") for word in words(response)]
    return bool(found) and 100 * sum(word in stop_words() for word in found) / len(found) <= percentage
