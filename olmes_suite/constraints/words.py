"""The family `words`: the form of single words, and the order of words."""

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
    """Return whether all initials are letters and each is the next letter after the one before; a follows z."""
    places = [_ALPHABET.find(initial) for initial in initials]
    return -1 not in places and all((one + 1) % 26 == other for one, other in pairwise(places))


@constraint("words:alphabet", profile="reference")
def alphabet_from_the_first(response: str) -> bool:
    """Initials follow the alphabet from the first word's letter on; one word passes.

    Raises IndexError for a response of punctuation alone, as the reference does.
    """
    pieces = bare(response).lower().split()
    return pieces[0][0] in _ALPHABET and _follow([word[0] for word in pieces])


@constraint("words:alphabet", profile="repaired")
def alphabet(response: str) -> bool:
    """Initials of at least two words follow the alphabet, looping from z to a."""
    lowered = words(response.lower())
    return len(lowered) > 1 and _follow([word[0] for word in lowered])


@constraint("words:consonants", profile="reference")
def clusters(response: str) -> bool:
    """Every piece between spaces contains two adjacent consonants; a lone dash fails."""
    return all(_CLUSTER.search(piece) for piece in response.lower().split())


@constraint("words:consonants", profile="repaired")
def clusters_in_words(response: str) -> bool:
    """Every word contains two adjacent consonants, and there is at least one word; punctuation is ignored."""
    lowered = words(response.lower())
    return bool(lowered) and all(_CLUSTER.search(word) for word in lowered)


@constraint("words:last_first", profile="reference", version=2)
def last_first_if_any(response: str) -> bool:
    """The last word of each sentence begins the next sentence; one sentence passes.

    Raises IndexError for a sentence of punctuation alone, as the reference does.
    """
    for one, other in pairwise(ruled_sentences(response)):
        last, first = one.rstrip(PUNCTUATION + " ").split()[-1], other.lstrip(PUNCTUATION + " ").split()[0]
        if last.lower() != first.lower():
            return False
    return True


@constraint("words:last_first", profile="repaired", needs=("punkt_tab",))
def last_first(response: str) -> bool:
    """The last word of each of at least two sentences begins the next sentence, ignoring punctuation."""
    word_lists = [in_sentence for sentence in sentences(response) if (in_sentence := words(sentence.lower()))]
    return len(word_lists) > 1 and all(one[-1] == other[0] for one, other in pairwise(word_lists))


def _initials_change(pieces: list[str]) -> bool:
    return all(one[0] != other[0] for one, other in pairwise(pieces))


@constraint("words:no_consecutive", profile="reference")
def no_consecutive_if_any(response: str) -> bool:
    """No two adjacent words have the same first letter; one word passes."""
    return _initials_change(bare(response.lower()).split())


@constraint("words:no_consecutive", profile="repaired")
def no_consecutive(response: str) -> bool:
    """There are at least two words, and no two adjacent words have the same first letter."""
    lowered = words(response.lower())
    return len(lowered) > 1 and _initials_change(lowered)


def _alternate(lowered: list[str]) -> bool:
    import syllapy

    parities = [syllapy.count(word) % 2 for word in lowered]
    return all(one != other for one, other in pairwise(parities))


@constraint("words:odd_even_syllables", profile="reference", needs=("syllapy",))
def odd_even_if_any(response: str) -> bool:
    """Words alternate between odd and even numbers of syllables; one word passes, and a number counts as even."""
    return _alternate(bare(response).lower().split())


@constraint("words:odd_even_syllables", profile="repaired", needs=("syllapy",))
def odd_even(response: str) -> bool:
    """At least two words alternate between odd and even numbers of syllables; a word with a digit fails."""
    lowered = [word.replace("'", "").replace("’", "") for word in words(response.lower())]
    return len(lowered) > 1 and not any(re.search(r"\d", word) for word in lowered) and _alternate(lowered)


_PALINDROMES, _PALINDROME_LENGTH = 10, 5


@constraint("words:palindrome", profile="reference")
def palindromes(response: str) -> bool:
    """Ten palindromes of five characters or more; the same one ten times passes, and so do numbers."""
    pieces = [word for word in bare(response).lower().split() if len(word) >= _PALINDROME_LENGTH]
    return sum(word == word[::-1] for word in pieces) >= _PALINDROMES


@constraint("words:palindrome", profile="repaired")
def different_palindromes(response: str) -> bool:
    """Ten different palindromes of five letters or more; each has at least two different letters."""
    long_words = {word for word in words(response.lower()) if word.isalpha() and len(word) >= _PALINDROME_LENGTH}
    return sum(word == word[::-1] and len(set(word)) > 1 for word in long_words) >= _PALINDROMES


@constraint("words:paragraph_last_first", profile="reference")
def paragraphs_return_if_any(response: str) -> bool:
    """Each line ends with the word that begins it; a line of one word passes."""
    line_pieces = [trim(line.strip().lower()).split() for line in response.split("\n")]
    return all(pieces[0] == pieces[-1] for pieces in line_pieces if pieces)


@constraint("words:paragraph_last_first", profile="repaired")
def paragraphs_return(response: str) -> bool:
    """Each paragraph (line) ends with the word that begins it, and has at least two words."""
    word_lists = [in_line for line in lines(response) if (in_line := words(line.lower()))]
    return bool(word_lists) and all(len(in_line) > 1 and in_line[0] == in_line[-1] for in_line in word_lists)


@constraint("words:prime_lengths", profile="reference")
def prime_lengths_if_any(response: str) -> bool:
    """The length of every word is a prime below 100; punctuation alone passes."""
    return all(len(word) in _PRIMES for word in bare(response).split())


@constraint("words:prime_lengths", profile="repaired")
def prime_lengths(response: str) -> bool:
    """The number of letters and digits of every word is a prime below 100, and there is at least one word."""
    all_words = words(response)
    return bool(all_words) and all(sum(map(str.isalnum, word)) in _PRIMES for word in all_words)


@constraint("words:repeats", profile="reference", draws={"small_n": lambda rng, _: rng.randint(1, 5)})
def repeats_of_pieces(response: str, *, small_n: int) -> bool:
    """No word more than `small_n` times; words are the pieces between spaces after punctuation is removed."""
    return max(Counter(bare(response.lower()).split()).values(), default=0) <= small_n


@constraint("words:repeats", profile="repaired")
def repeats(response: str, *, small_n: int) -> bool:
    """No word more than `small_n` times, and there is at least one word, so that no response passes for 0."""
    counts = Counter(words(response.lower()))
    return bool(counts) and max(counts.values()) <= small_n


_TAGGING = ("punkt_tab", "averaged_perceptron_tagger_eng")


@constraint("words:start_verb", profile="reference", needs=_TAGGING)
def starts_with_a_verb(response: str) -> bool:
    """NLTK tags the first token as a verb; a quotation mark or an asterisk counts as a token."""
    token_list = tokens(response)
    return bool(token_list) and "VB" in tag_first(token_list)


@constraint("words:start_verb", profile="repaired", needs=_TAGGING)
def first_word_is_a_verb(response: str) -> bool:
    """NLTK tags the first word as a verb; marks before the word are ignored."""
    token_list = tokens(re.sub(r"^[\W_]+", "", response))
    return bool(token_list) and tag_first(token_list).startswith("VB")


_TYPES = {"one": 1, "two": 2, "three": 3, "four": 4}


def _vowels(response: str) -> set[str]:
    return set("aeiou") & set(response.lower())


@constraint("words:vowel", profile="reference")
def three_vowels(response: str) -> bool:
    """One line with at most three of a, e, i, o, u, whatever number the prompt names; a line without vowels passes."""
    return "\n" not in response.strip() and len(_vowels(response)) <= 3


@constraint("words:vowel", profile="repaired")
def vowels(response: str, *, prompt: str) -> bool:
    """One paragraph with at least one vowel and at most as many types of vowels as the prompt says.

    IFEval-OOD's prompts say "only one type of vowel", IFBench's "only three types of vowels".
    """
    limit = re.search(r"only (one|two|three|four) types? of vowels?", prompt, re.IGNORECASE)
    if limit is None:
        raise CheckerError("words:vowel: the prompt does not say how many types of vowels")
    return "\n" not in response.strip() and 1 <= len(_vowels(response)) <= _TYPES[limit[1].lower()]


@constraint("words:keywords_specific_position", profile="reference")
def never(response: str, *, keyword: str, n: int, m: int) -> bool:
    """Never passes: the reference's registry has no entry for this constraint."""
    return False


@constraint("words:keywords_specific_position", profile="repaired", needs=("punkt_tab",))
def keyword_at(response: str, *, keyword: str, n: int, m: int) -> bool:
    """The `m`-th word of the `n`-th sentence is the keyword, ignoring case."""
    if n < 1 or m < 1:
        raise CheckerError(f"words:keywords_specific_position: n and m must be at least 1, not {n} and {m}")
    parts = sentences(response)
    in_sentence = words(parts[n - 1].lower()) if len(parts) >= n else []
    return len(in_sentence) >= m and in_sentence[m - 1] == keyword.strip().lower()


@constraint("words:words_position", profile="reference", needs=("punkt_tab",))
def keyword_among_tokens(response: str, *, keyword: str) -> bool:
    """The second token and the last but one are the keyword in its exact case; a full stop counts as a token."""
    token_list = tokens(response)
    return len(token_list) > 1 and token_list[1] == token_list[-2] == keyword.strip()


@constraint("words:words_position", profile="repaired")
def keyword_second_and_last_but_one(response: str, *, keyword: str) -> bool:
    """The second and the last but one of at least three words are the keyword, ignoring case."""
    lowered = words(response.lower())
    return len(lowered) > 2 and lowered[1] == lowered[-2] == keyword.strip().lower()
