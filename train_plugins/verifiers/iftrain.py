"""The 29 training constraints of open-instruct's IFEvalG (IFTrain), for rewards alone.

They are no constraint of an evaluation, and nothing here is used by one: the unseen suite's checkers live in
`olmes_suite.constraints`, which this module does not import. Names, arguments and meaning are those of open-instruct,
surprising ones included: keywords are regular expressions without word borders, a one-letter word is a palindrome,
and the end of a character span is not part of it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from olmes_suite.scoring import language_resources
from olmes_suite.scoring.scorers import lm_eval_module
from train_plugins.verifiers.base import Malformed, shown

Kinds = Mapping[str, str]
"""Argument to its kind: text, pattern, count (0 or more), number (1 or more), relation or letter."""
RELATIONS = ("less than", "at least")


@dataclass(frozen=True, slots=True)
class Trained:
    """One constraint."""

    holds: Callable[..., bool]
    """A function of the response and the arguments, by name."""
    arguments: Kinds
    needs_nltk: bool = False
    """Whether it splits words with NLTK, which needs the resource punkt_tab."""


TABLE: dict[str, Trained] = {}


def _trained(*names: str, nltk: bool = False, **arguments: str) -> Callable[[Callable[..., bool]], Callable[..., bool]]:
    def add(holds: Callable[..., bool]) -> Callable[..., bool]:
        for name in names:
            TABLE[name] = Trained(holds, arguments, nltk)
        return holds

    return add


def follows(name: str, given: Mapping[str, Any] | None, text: str) -> bool:
    """Return whether a text follows a constraint; a blank text follows none. Raises Malformed for its arguments."""
    return bool(text.strip()) and TABLE[name].holds(text, **arguments_of(name, given))


def arguments_of(name: str, given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the arguments of a constraint. Raises Malformed for one that is missing or has a wrong value.

    Arguments of other constraints are ignored: rows of tables carry all of them, most of them null.
    """
    return {key: _argument(name, key, kind, (given or {}).get(key)) for key, kind in TABLE[name].arguments.items()}


def require(name: str) -> None:
    """Raise MissingData if a constraint needs data of NLTK that is not on this machine."""
    if TABLE[name].needs_nltk:
        language_resources.require(["punkt_tab"])


def _argument(name: str, key: str, kind: str, value: Any) -> Any:
    if isinstance(value, list | tuple) and len(value) == 1:  # first words and keywords come in lists of one
        value = value[0]
    if value is None or value == "":
        raise Malformed(f"{name} lacks its argument {key!r}")
    if kind in ("count", "number"):
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value == int(value)
        if not whole or value < (kind == "number"):
            raise Malformed(f"{name}: {key} must be a whole number of at least {int(kind == 'number')}, "
                            f"not {shown(value)}")  # fmt: skip
        return int(value)
    if not isinstance(value, str) or not value.strip():
        raise Malformed(f"{name}: {key} must be text, not {shown(value)}")
    if kind == "relation" and value not in RELATIONS:
        raise Malformed(f"{name}: {key} must be one of {', '.join(RELATIONS)}, not {shown(value)}")
    if kind == "letter" and len(value.strip()) != 1:
        raise Malformed(f"{name}: {key} must be one letter, not {shown(value)}")
    return _pattern(name, key, value.strip()) if kind == "pattern" else value


def _pattern(name: str, key: str, value: str) -> re.Pattern[str]:
    try:
        return re.compile(value, re.IGNORECASE)
    except (re.error, RecursionError, OverflowError) as error:
        raise Malformed(f"{name}: {key} is no regular expression: {error}") from None


# Tools


def _sentences(text: str) -> list[str]:
    return list(_ifeval_utilities().split_into_sentences(text))


@functools.lru_cache(maxsize=1)
def _ifeval_utilities() -> ModuleType:
    """Load lm-eval's utilities of IFEval without the download that their import would start."""
    import nltk

    download = nltk.download
    nltk.download = lambda name: False
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the import prints
            return lm_eval_module("ifeval/instructions_util.py")
    finally:
        nltk.download = download


def _tokens(text: str) -> list[str]:
    import nltk

    try:
        return list(nltk.word_tokenize(text))
    except LookupError:
        language_resources.extend_nltk_path()
        language_resources.require(["punkt_tab"])
        return list(nltk.word_tokenize(text))


def _equal(text: str, wanted: str) -> bool:
    return text.strip().lower() == wanted.strip().lower()


def _compared(number: int, relation: str, bound: int) -> bool:
    return number < bound if relation == "less than" else number >= bound


def _parts(text: str, border: str) -> list[str] | None:
    """Return the parts between borders, without an empty first or last one; None if another one is empty."""
    parts = re.split(border, text)
    for end in (0, -1):
        if parts and not parts[end].strip():
            del parts[end]
    return parts if all(part.strip() for part in parts) else None


_STARS = r"\s?\*\*\*\s?"

# Copies


@_trained("copy:copy", "copy:copying_simple", prompt_to_repeat="text")
def _copies(text: str, prompt_to_repeat: str) -> bool:
    return _equal(text, prompt_to_repeat)


@_trained("copy:copying_multiple", prompt_to_repeat="text", N="number")
def _copies_several(text: str, prompt_to_repeat: str, N: int) -> bool:
    parts = text.split("******")
    return len(parts) == N and all(_equal(part, prompt_to_repeat) for part in parts)


@_trained("new:copy_span_idx", prompt_to_repeat="text", n_start="count", n_end="count")
def _copies_span(text: str, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    return _equal(text, prompt_to_repeat[n_start:n_end])


@_trained("copy:repeat_phrase", phrase="text", small_n="number")
def _varies_phrase(text: str, phrase: str, small_n: int) -> bool:
    wanted = phrase.split()
    found = re.findall(rf"{re.escape(wanted[0])} .*? {re.escape(wanted[-1])}", text)
    return len(found) == small_n and all(_one_word_differs(span.split(), wanted) for span in found)


def _one_word_differs(said: list[str], wanted: list[str]) -> bool:
    return len(said) == len(wanted) and sum(one != other for one, other in zip(said, wanted, strict=True)) == 1


# Words


@_trained("keywords:word_once", keyword="pattern")
def _keyword_once(text: str, keyword: re.Pattern[str]) -> bool:
    return len(keyword.findall(text)) == 1


@_trained("keywords:word_count_different_numbers", keyword="pattern", frequency="count", relation="relation")
def _keyword_counted(text: str, keyword: re.Pattern[str], frequency: int, relation: str) -> bool:
    return _compared(len(keyword.findall(text)), relation, frequency)


@_trained("keywords:exclude_word_harder", keyword="text")
def _keyword_absent(text: str, keyword: str) -> bool:
    return f" {keyword.strip()} " not in text


@_trained("keywords:no_adjacent_consecutive")
def _initials_apart(text: str) -> bool:
    initials = [word[0].lower() for word in text.split()]
    if any(len(one) != 1 for one in initials) and len(initials) > 1:
        return False
    return all(ord(after) - ord(before) != 1 for before, after in itertools.pairwise(initials))


@_trained("keywords:palindrome")
def _has_palindrome(text: str) -> bool:
    return any(word == word[::-1] for word in text.split())


@_trained("keywords:keyword_specific_position", nltk=True, keyword="text", n="number", m="number")
def _keyword_placed(text: str, keyword: str, n: int, m: int) -> bool:
    sentences = _sentences(text)
    words = _tokens(sentences[n - 1]) if len(sentences) >= n else []
    return len(words) >= m and words[m - 1] == keyword.strip()


@_trained("keywords:start_end", nltk=True)
def _ends_as_it_starts(text: str) -> bool:
    words = _tokens(text)
    return len(words) > 1 and words[0].lower() == words[-1].lower()


@_trained("first_word:first_word_sent", first_word="text")
def _each_sentence_starts(text: str, first_word: str) -> bool:
    firsts = [sentence.split()[:1] for sentence in _sentences(text)]
    return all(first and _equal(first[0], first_word) for first in firsts)


@_trained("first_word:first_word_answer", first_word="text")
def _starts_with_word(text: str, first_word: str) -> bool:
    return _equal(text.split()[0], first_word)


@_trained("last_word:last_word_sent", last_word="text")
def _each_sentence_ends(text: str, last_word: str) -> bool:
    lasts = [sentence.split()[-1:] for sentence in _sentences(text)]
    return all(last and _equal(_without_marks(last[0]), last_word) for last in lasts)


@_trained("last_word:last_word_answer", last_word="text")
def _ends_with_word(text: str, last_word: str) -> bool:
    return _equal(_without_marks(text.split()[-1]), last_word)


def _without_marks(word: str) -> str:
    return re.sub(r"[^\w\s]", "", word)


# Paragraphs, brackets, marks


@_trained("paragraphs:paragraphs")
def _two_parts_by_stars(text: str) -> bool:
    return len(_parts(text, _STARS) or ()) == 2


@_trained("paragraphs:paragraphs2")
def _two_parts_by_blank_line(text: str) -> bool:
    return len(_parts(text, "\n\n") or ()) == 2


@_trained("detectable_format:square_brackets")
def _words_in_brackets(text: str) -> bool:
    return all(word.startswith("[") and word.endswith("]") for word in text.split())


@_trained("detectable_format:bigram_wrapping")
def _pairs_in_brackets(text: str) -> bool:
    words = text.split()
    pairs = zip(words[::2], words[1::2], strict=False)
    return all(left.startswith("<<") and right.endswith(">>") for left, right in pairs)


@_trained("detectable_format:sentence_hyphens")
def _sentences_joined(text: str) -> bool:
    """Compare what stands between hyphens with the sentences of the text without them."""
    pairs = zip(text.split("-"), _sentences(text.replace("-", " ")), strict=False)
    return all(part.strip() == part == sentence for part, sentence in pairs)


@_trained("punctuation:punctuation_dot")
def _has_no_dot(text: str) -> bool:
    return "." not in text


@_trained("punctuation:punctuation_exclamation")
def _has_no_exclamation(text: str) -> bool:
    return "!" not in text


# Counts


@_trained("count:lowercase_counting", N="count")
def _few_lowercase_words(text: str, N: int) -> bool:
    return len(re.findall(r"\b[a-z]+\b", text)) <= N


@_trained("count:count_unique", nltk=True)
def _no_token_twice(text: str) -> bool:
    words = _tokens(text)
    return len(set(words)) == len(words)


@_trained("count:count_increment_word", keyword1="pattern", keyword2="pattern")
def _once_and_twice(text: str, keyword1: re.Pattern[str], keyword2: re.Pattern[str]) -> bool:
    return len(keyword1.findall(text)) == 1 and len(keyword2.findall(text)) == 2


@_trained("count:counting_composition", nltk=True, n_sent="number", n_words="number")
def _three_parts_of_shape(text: str, n_sent: int, n_words: int) -> bool:
    """Check three parts between `***`, each of `n_sent` sentences of `n_words` tokens; an outer empty part fails."""
    parts = re.split(_STARS, text)
    shapes = [[len(_tokens(sentence)) for sentence in _sentences(part)] for part in parts]
    return len(parts) == 3 and all(shape == [n_words] * n_sent for shape in shapes)


@_trained("letters:letter_counting", N="count", relation="relation")
def _letters_counted(text: str, N: int, relation: str) -> bool:
    return _compared(len(re.findall("[a-zA-Z]", text)), relation, N)


@_trained("letters:letter_counting2", letter="letter", let_frequency="count", let_relation="relation")
def _one_letter_counted(text: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compared(text.lower().count(letter.strip().lower()), let_relation, let_frequency)
