"""The family `count`: how many words, names, numbers or marks a response contains."""

from __future__ import annotations

import re
from collections.abc import Callable

from olmes_suite.constraints.places import countries_named, places
from olmes_suite.constraints.registry import CheckerError, constraint
from olmes_suite.constraints.text import PUNCTUATION, bare, listed, tokens, trim, words

_CONJUNCTIONS = frozenset({"and", "but", "for", "nor", "or", "so", "yet"})
_NAMES = listed("names")
"""The fifty names that IFBench's prompts list."""
_PERSONAL = frozenset(listed("personal_pronouns"))
_PRONOUNS = _PERSONAL | frozenset(listed("other_pronouns"))
_MARKS = frozenset(".,!?;:")
_INTERROBANGS = ("?!", "!?", "‽")
_TIMES = (1, 2, 3, 5, 7)


@constraint("count:conjunctions", profile="reference", draws={"small_n": lambda rng, _: rng.randint(2, 6)})
def conjunctions_as_written(response: str, *, small_n: int) -> bool:
    """At least `small_n` different spellings of coordinating conjunctions: "And", "and" and "and," are three."""
    return len({word for word in response.split() if trim(word).lower() in _CONJUNCTIONS}) >= small_n


@constraint("count:conjunctions", profile="repaired")
def conjunctions(response: str, *, small_n: int) -> bool:
    """At least `small_n` different coordinating conjunctions."""
    return len(_CONJUNCTIONS & {word.lower() for word in words(response)}) >= small_n


@constraint("count:countries", profile="reference", needs=("spacy_model",))
def countries_as_written(response: str, *, percentage: int) -> bool:
    """At least `percentage` different geopolitical entities, told apart by the text after the last comma.

    A city counts as a country. `percentage` is a number of countries; the name is the reference's.
    """
    return len({place.split(",")[-1].strip() for place in places(response)}) >= percentage


@constraint("count:countries", profile="repaired", needs=("spacy_model",))
def countries(response: str, *, percentage: int) -> bool:
    """Places in at least `percentage` different countries: two cities of one country count once."""
    return len(countries_named(places(response))) >= percentage


@constraint("count:levenshtein", profile="reference")
def levenshtein(response: str, *, reference_text: str, N: int) -> bool:
    """At most `N` edits from the reference text; the unchanged text passes."""
    return within(response, reference_text, N)


@constraint("count:levenshtein", profile="repaired")
def rewritten(response: str, *, reference_text: str, N: int) -> bool:
    """At least one and at most `N` edits from the reference text, ignoring white space at both ends."""
    response, reference_text = response.strip(), reference_text.strip()
    return response != reference_text and within(response, reference_text, N)


def within(one: str, other: str, limit: int) -> bool:
    """Return whether the Levenshtein distance is at most `limit`. Only the band of that width is computed."""
    if abs(len(one) - len(other)) > limit:
        return False
    too_far = limit + 1
    previous = {j: j for j in range(min(limit, len(other)) + 1)}
    for i, character in enumerate(one, 1):
        row: dict[int, int] = {}
        for j in range(max(0, i - limit), min(len(other), i + limit) + 1):
            if j == 0:
                row[0] = i
                continue
            changed = previous.get(j - 1, too_far) + (character != other[j - 1])
            row[j] = min(changed, previous.get(j, too_far) + 1, row.get(j - 1, too_far) + 1)
        previous = row
    return previous.get(len(other), too_far) <= limit


@constraint("count:numbers", profile="reference", draws={"N": lambda rng, _: rng.randint(1, 6)})
def numbers_without_punctuation(response: str, *, N: int) -> bool:
    """Exactly `N` runs of digits after all punctuation is removed: "3.14" is one, and so is "2-3"."""
    return len(re.findall(r"\d+", bare(response))) == N


@constraint("count:numbers", profile="repaired")
def numbers(response: str, *, N: int) -> bool:
    """Exactly `N` numbers. A decimal point or thousands separator is part of a number, a hyphen is not."""
    return len(re.findall(r"\d+(?:[.,]\d+)*", response)) == N


@constraint("count:person_names", profile="reference", draws={"N": lambda rng, _: rng.randint(1, 50)})
def person_names_anywhere(response: str, *, N: int) -> bool:
    """At least `N` of the fifty names, also inside words ("Leo" in "Leopard")."""
    return sum(name in response for name in _NAMES) >= N


@constraint("count:person_names", profile="repaired")
def person_names(response: str, *, N: int) -> bool:
    """At least `N` of the fifty names, as whole words."""
    return sum(re.search(rf"\b{name}\b", response) is not None for name in _NAMES) >= N


@constraint("count:pronouns", profile="reference", draws={"N": lambda rng, _: rng.randint(1, 25)})
def personal_pronouns(response: str, *, N: int) -> bool:
    """At least `N` personal or possessive pronouns; without apostrophes "it's" counts as "its", "I'm" is skipped."""
    return sum(word in _PERSONAL for word in bare(response.replace("/", " ").lower()).split()) >= N


@constraint("count:pronouns", profile="repaired", needs=("punkt_tab",))
def pronouns(response: str, *, N: int) -> bool:
    """At least `N` pronouns of any kind; contractions are split."""
    return sum(token in _PRONOUNS for token in tokens(response.replace("/", " ").replace("’", "'").lower())) >= N


@constraint("count:punctuation", profile="reference")
def punctuation_but_one_interrobang(response: str) -> bool:
    """An interrobang, and each of . , ! ? ; : after one interrobang is removed: a second one supplies ! and ?."""
    if not any(mark in response for mark in _INTERROBANGS):
        return False
    first = "?!" if "?!" in response else "!?"
    return set(response.replace(first, "", 1)) >= _MARKS


@constraint("count:punctuation", profile="repaired")
def punctuation(response: str) -> bool:
    """An interrobang, and each of . , ! ? ; : outside of interrobangs."""
    rest = response
    for mark in _INTERROBANGS:
        rest = rest.replace(mark, " ")
    return rest != response and set(rest) >= _MARKS


_FIRST_LIMIT, _LAST_LIMIT = 100, 500


@constraint(
    "count:unique_word_count",
    profile="reference",
    draws={"N": lambda rng, _: rng.randint(_FIRST_LIMIT, _LAST_LIMIT)},
)
def unique_pieces(response: str, *, N: int) -> bool:
    """At least `N` different pieces between spaces; all pieces of punctuation alone count as one."""
    return len({piece.strip(PUNCTUATION + " ") for piece in response.lower().split()}) >= N


@constraint("count:unique_word_count", profile="repaired")
def unique_words(response: str, *, N: int) -> bool:
    """At least `N` different words."""
    return len({word.lower() for word in words(response)}) >= N


@constraint(
    "count:word_count_range",
    profile="reference",
    draws={
        "min_words": lambda rng, _: rng.randint(_FIRST_LIMIT, _LAST_LIMIT),
        "max_words": lambda rng, drawn: (
            drawn["min_words"] + rng.randint(int(drawn["min_words"] * 0.05), int(drawn["min_words"] * 0.1))
        ),
    },
)
def runs_in_range(response: str, *, min_words: int, max_words: int) -> bool:
    r"""Between `min_words` and `max_words` runs of `\w`: "don't" is two."""
    return min_words <= len(re.findall(r"\w+", response)) <= max_words


@constraint("count:word_count_range", profile="repaired")
def words_in_range(response: str, *, min_words: int, max_words: int) -> bool:
    """Between `min_words` and `max_words` words."""
    if min_words > max_words:
        raise CheckerError(f"count:word_count_range: min_words {min_words} is above max_words {max_words}")
    return min_words <= len(words(response)) <= max_words


def every_nth(response: str, n: int, predicate: Callable[[str], bool]) -> list[bool]:
    """Apply the predicate to every n-th piece between spaces, skipping punctuation and numbers.

    Raises CheckerError where `n` is below 1.
    """
    if n < 1:
        raise CheckerError(f"count: the parameter N must be at least 1, not {n}")
    pieces = [trim(piece) for piece in response.split()[n - 1 :: n]]
    return [predicate(piece) for piece in pieces if piece and not piece.isdigit()]


def is_japanese(piece: str) -> bool:
    """Return whether the piece contains kana or kanji."""
    return re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", piece) is not None


@constraint("count:words_japanese", profile="reference")
def japanese_if_any(response: str, *, N: int) -> bool:
    """Every N-th word is Japanese; a response of fewer than `N` words passes."""
    return all(every_nth(response, N, is_japanese))


@constraint("count:words_japanese", profile="repaired")
def japanese(response: str, *, N: int) -> bool:
    """Every N-th word is Japanese, and there is at least one."""
    results = every_nth(response, N, is_japanese)
    return bool(results) and all(results)


@constraint("count:words_french", profile="repaired", needs=("french_words",))
def french(response: str, *, N: int) -> bool:
    """Every N-th word is French, and there is at least one. The reference no longer has this checker."""
    from olmes_suite.constraints.french import is_french

    results = every_nth(response, N, is_french)
    return bool(results) and all(results)


@constraint("count:keywords_multiple", profile="reference")
def keywords_inside_words(
    response: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str
) -> bool:
    """The five keywords 1, 2, 3, 5 and 7 times, also inside other words."""
    text, keys = response.lower(), (keyword1, keyword2, keyword3, keyword4, keyword5)
    return all(text.count(key.strip().lower()) == times for key, times in zip(keys, _TIMES, strict=True))


@constraint("count:keywords_multiple", profile="repaired")
def keywords_multiple(
    response: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str
) -> bool:
    """The five keywords 1, 2, 3, 5 and 7 times, as whole words."""
    keys = (keyword1, keyword2, keyword3, keyword4, keyword5)
    patterns = (rf"\b{re.escape(key.strip())}\b" for key in keys)
    return all(
        len(re.findall(pattern, response, re.IGNORECASE)) == times
        for pattern, times in zip(patterns, _TIMES, strict=True)
    )
