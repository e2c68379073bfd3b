"""words: how single words are made, and how they follow each other."""

from __future__ import annotations

import re
import string
from collections import Counter
from itertools import pairwise

from olmes_suite.constraints.registry import CheckerError, constraint
from olmes_suite.constraints.text import (
    PUNCTUATION,
    bare,
    lines,
    ruled_sentences,
    sentences,
    tag_first,
    tokens,
    trim,
    words,
)

_ALPHABET = string.ascii_lowercase
_PRIMES = frozenset(n for n in range(2, 100) if all(n % d for d in range(2, n)))
_CLUSTER = re.compile(r"[bcdfghjklmnpqrstvwxyz]{2}")


def _follow(initials: list[str]) -> bool:
    """Each initial is the next letter, z before a; only letters."""
    places = [_ALPHABET.find(initial) for initial in initials]
    return -1 not in places and all((one + 1) % 26 == other for one, other in pairwise(places))


@constraint("words:alphabet", profile="reference")
def alphabet_from_the_first(response: str) -> bool:
    """Initials follow the alphabet, from whatever letter the first word has; one word passes.

    Raises IndexError for a response of punctuation only, as the reference does.
    """
    found = bare(response).lower().split()
    return found[0][0] in _ALPHABET and _follow([word[0] for word in found])


@constraint("words:alphabet", profile="repaired")
def alphabet(response: str) -> bool:
    """Initials of at least two words follow the alphabet, looping from z to a."""
    found = words(response.lower())
    return len(found) > 1 and _follow([word[0] for word in found])


@constraint("words:consonants", profile="reference")
def clusters(response: str) -> bool:
    """Every piece between spaces holds two consonants together; a lone dash fails."""
    return all(_CLUSTER.search(piece) for piece in response.lower().split())


@constraint("words:consonants", profile="repaired")
def clusters_in_words(response: str) -> bool:
    """Every word holds two consonants together, and there is a word; punctuation is no word."""
    found = words(response.lower())
    return bool(found) and all(_CLUSTER.search(word) for word in found)


@constraint("words:last_first", profile="reference", version=2)
def last_first_if_any(response: str) -> bool:
    """The last word of each sentence begins the next one; one sentence passes.

    Raises IndexError where a sentence holds only punctuation, as the reference does.
    """
    for one, other in pairwise(ruled_sentences(response)):
        last, first = one.rstrip(PUNCTUATION + " ").split()[-1], other.lstrip(PUNCTUATION + " ").split()[0]
        if last.lower() != first.lower():
            return False
    return True


@constraint("words:last_first", profile="repaired", needs=("punkt_tab",))
def last_first(response: str) -> bool:
    """The last word of each sentence begins the next one, over at least two sentences; punctuation apart."""
    found = [each for each in (words(sentence.lower()) for sentence in sentences(response)) if each]
    return len(found) > 1 and all(one[-1] == other[0] for one, other in pairwise(found))


def _no_neighbours(found: list[str]) -> bool:
    return all(one[0] != other[0] for one, other in pairwise(found))


@constraint("words:no_consecutive", profile="reference")
def no_consecutive_if_any(response: str) -> bool:
    """No two neighbours share their first letter; one word passes."""
    return _no_neighbours(bare(response.lower()).split())


@constraint("words:no_consecutive", profile="repaired")
def no_consecutive(response: str) -> bool:
    """No two neighbours of at least two words share their first letter."""
    found = words(response.lower())
    return len(found) > 1 and _no_neighbours(found)


def _alternate(found: list[str]) -> bool:
    import syllapy

    parities = [syllapy.count(word) % 2 for word in found]
    return all(one != other for one, other in pairwise(parities))


@constraint("words:odd_even_syllables", profile="reference", needs=("syllapy",))
def odd_even_if_any(response: str) -> bool:
    """Words alternate between odd and even numbers of syllables; one word passes, a number counts as even."""
    return _alternate(bare(response).lower().split())


@constraint("words:odd_even_syllables", profile="repaired", needs=("syllapy",))
def odd_even(response: str) -> bool:
    """At least two words alternate between odd and even numbers of syllables; with a number nobody can say."""
    found = [word.replace("'", "").replace("’", "") for word in words(response.lower())]
    return len(found) > 1 and not any(re.search(r"\d", word) for word in found) and _alternate(found)


_PALINDROMES, _PALINDROME_LENGTH = 10, 5


@constraint("words:palindrome", profile="reference")
def palindromes(response: str) -> bool:
    """Ten palindromes of five characters or more; the same one ten times will do, and so will a number."""
    found = [word for word in bare(response).lower().split() if len(word) >= _PALINDROME_LENGTH]
    return sum(word == word[::-1] for word in found) >= _PALINDROMES


@constraint("words:palindrome", profile="repaired")
def different_palindromes(response: str) -> bool:
    """Ten different palindromes of five letters or more, not all of one letter."""
    found = {word for word in words(response.lower()) if word.isalpha() and len(word) >= _PALINDROME_LENGTH}
    return sum(word == word[::-1] and len(set(word)) > 1 for word in found) >= _PALINDROMES


@constraint("words:paragraph_last_first", profile="reference")
def paragraphs_return_if_any(response: str) -> bool:
    """Each line ends with the word it began with; a line of one word passes."""
    found = [trim(line.strip().lower()).split() for line in response.split("\n")]
    return all(line[0] == line[-1] for line in found if line)


@constraint("words:paragraph_last_first", profile="repaired")
def paragraphs_return(response: str) -> bool:
    """Each paragraph (line) ends with the word it began with, and has at least two."""
    found = [each for each in (words(line.lower()) for line in lines(response)) if each]
    return bool(found) and all(len(each) > 1 and each[0] == each[-1] for each in found)


@constraint("words:prime_lengths", profile="reference")
def prime_lengths_if_any(response: str) -> bool:
    """Every word's length is a prime below 100; punctuation alone passes."""
    return all(len(word) in _PRIMES for word in bare(response).split())


@constraint("words:prime_lengths", profile="repaired")
def prime_lengths(response: str) -> bool:
    """Every word's length in letters and digits is a prime below 100, and there is a word."""
    found = words(response)
    return bool(found) and all(sum(map(str.isalnum, word)) in _PRIMES for word in found)


@constraint("words:repeats", profile="reference", draws={"small_n": lambda rng, _: rng.randint(1, 5)})
def repeats_of_pieces(response: str, *, small_n: int) -> bool:
    """No word more than `small_n` times, words being what is left between spaces without punctuation."""
    return max(Counter(bare(response.lower()).split()).values(), default=0) <= small_n


@constraint("words:repeats", profile="repaired")
def repeats(response: str, *, small_n: int) -> bool:
    """No word more than `small_n` times, and there is a word; 0 can be met by nothing."""
    counts = Counter(words(response.lower()))
    return bool(counts) and max(counts.values()) <= small_n


_TAGGING = ("punkt_tab", "averaged_perceptron_tagger_eng")


@constraint("words:start_verb", profile="reference", needs=_TAGGING)
def starts_with_a_verb(response: str) -> bool:
    """NLTK tags the first token as a verb; a quotation mark or an asterisk is a token."""
    found = tokens(response)
    return bool(found) and "VB" in tag_first(found)


@constraint("words:start_verb", profile="repaired", needs=_TAGGING)
def first_word_is_a_verb(response: str) -> bool:
    """NLTK tags the first word as a verb; marks before it do not count."""
    found = tokens(re.sub(r"^[\W_]+", "", response))
    return bool(found) and tag_first(found).startswith("VB")


_TYPES = {"one": 1, "two": 2, "three": 3, "four": 4}


def _vowels(response: str) -> set[str]:
    return set("aeiou") & set(response.lower())


@constraint("words:vowel", profile="reference")
def three_vowels(response: str) -> bool:
    """One line with at most three of a, e, i, o, u: none passes, whatever number the prompt names."""
    return "\n" not in response.strip() and len(_vowels(response)) <= 3


@constraint("words:vowel", profile="repaired")
def vowels(response: str, *, prompt: str) -> bool:
    """One paragraph with at least one and at most as many types of vowels as the prompt says.

    IFEval-OOD's prompts say "only one type of vowel", IFBench's "only three types of vowels".
    """
    asked = re.search(r"only (one|two|three|four) types? of vowels?", prompt, re.IGNORECASE)
    if asked is None:
        raise CheckerError("words:vowel: the prompt does not say how many types of vowels")
    return "\n" not in response.strip() and 1 <= len(_vowels(response)) <= _TYPES[asked[1].lower()]


@constraint("words:keywords_specific_position", profile="reference")
def never(response: str, *, keyword: str, n: int, m: int) -> bool:
    """Never followed: the reference's registry has no entry for it."""
    return False


@constraint("words:keywords_specific_position", profile="repaired", needs=("punkt_tab",))
def keyword_at(response: str, *, keyword: str, n: int, m: int) -> bool:
    """The `m`-th word of the `n`-th sentence is the keyword, whatever its case."""
    if n < 1 or m < 1:
        raise CheckerError(f"words:keywords_specific_position: there is no word {m} of sentence {n}")
    found = sentences(response)
    place = words(found[n - 1].lower()) if len(found) >= n else []
    return len(place) >= m and place[m - 1] == keyword.strip().lower()


@constraint("words:words_position", profile="reference", needs=("punkt_tab",))
def keyword_among_tokens(response: str, *, keyword: str) -> bool:
    """The second and the last but one token are the keyword, in its own case; a full stop is a token."""
    found = tokens(response)
    return len(found) > 1 and found[1] == found[-2] == keyword.strip()


@constraint("words:words_position", profile="repaired")
def keyword_second_and_last_but_one(response: str, *, keyword: str) -> bool:
    """The second and the last but one of at least three words are the keyword, whatever its case."""
    found = words(response.lower())
    return len(found) > 2 and found[1] == found[-2] == keyword.strip().lower()
