"""Filters of generated texts: length, language, repetition, refusals and answers about the answer. Each gives a reason.

Repetition follows the filters of Dolci (OLMo 3, arXiv 2512.13961, A.7.1): a sentence or paragraph ten times, or a
phrase fifty times.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.yaml_files import Place

PHRASES = Path(__file__).parent / "phrases.yaml"
START = 120
"""Characters of a text in which phrases of `start` are looked for."""
SENTENCES, REPEATED_PHRASES, PHRASE = 10, 50, 5
"""Times that a sentence or paragraph, and a phrase, may not reach; words of a phrase."""
LEAST_LETTERS, LEAST_SHARE = 20, 0.5
"""A language is not detected in fewer letters, nor where fewer of a text's characters are letters of words."""
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_FENCED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_FORMULA = re.compile(
    r"""\\begin\{(\w+)(?P<star>\*?)\}.{0,2999}?\\end\{\1(?P=star)\} | \[asy\].*?(?:\[/asy\]|\Z)
      | \$\$.{0,999}?\$\$ | \$[^$\n]{0,999}\$ | \\\[.{0,999}?\\\] | \\\(.{0,999}?\\\) | \\[A-Za-z]+ | https?://\S+""",
    re.DOTALL | re.VERBOSE,
)
_CODE = re.compile(
    r"""^[ \t]*(?:import|from|def|class|return|if|elif|else|for|while|try|except|with|raise|print|assert|break|continue
                |const|let|var|function|public|private|static|void|int|struct|case|switch|SELECT|FROM|WHERE)\b.*$
      | (?<![!-~])[!-~]*(?:[\w)\]][(\[{=_\\<>*^+|@&/]\S|\d[A-Za-z]|[A-Za-z]\d)[!-~]*   # f(x), a_1, 3x, x**2, and/or
      | (?<!\w)[A-Za-z](?![\w'’])                                            # the letter of a variable
    """,
    re.MULTILINE | re.VERBOSE,
)
"""Lines of programs and terms of formulas without marks around them."""
_LEAD = re.compile(
    r"(?:^|[.!?:;,…—–\n]|\b(?:but|and|so|unfortunately|however|sorry|therefore|understand|afraid|regret|that))[\s\"'*_#>-]*$"
)
"""What stands before a phrase that begins a sentence or clause."""
_LETTER = re.compile(r"\W*(?:subject\b.*:|dear\b)")
"""The start of a letter, whose writer may be sorry."""
_AFTER_HELP = re.compile(r" (?:but\b|myself\b|\w+ing\b)")
"""After "I can't help": it is no refusal."""
_THOUGHT = re.compile(r"</?think(?:ing)?>", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFilters:
    """Keys under `filters`: which texts are left out."""

    language: str | None = None
    """ISO 639-1 code of the language that texts must be in, such as en."""
    min_words: int = 1
    max_words: int | None = None
    repetition: bool = True
    refusal: bool = True
    meta: bool = True
    """Whether answers about the answer, or about the model itself, are left out."""


def check(filters: TextFilters, place: Place) -> None:
    """Raise UsageError for impossible lengths and unknown languages."""
    if filters.min_words < 0 or (filters.max_words is not None and filters.max_words < max(1, filters.min_words)):
        bounds = f"min_words {filters.min_words} and max_words {filters.max_words}"
        raise UsageError(f"{place.line(('max_words',))}: {bounds} leave no text")
    if filters.language is not None and filters.language not in _languages():
        raise UsageError(f"{place.at('language')}: {filters.language!r} is none of {', '.join(sorted(_languages()))}")


def fault(text: str, filters: TextFilters) -> str | None:
    """Return why a text is left out, or None.

    Reasons: empty, too_short, too_long, markup, refusal, meta, repetition, language.
    """
    if not text.strip():
        return "empty"
    words = len(text.split())
    if words < filters.min_words:
        return "too_short"
    if filters.max_words is not None and words > filters.max_words:
        return "too_long"
    if _THOUGHT.search(text) or "\ufffd" in text:
        return "markup"
    for name in ("refusal", "meta"):
        if getattr(filters, name) and has_phrase(text, name):
            return name
    if filters.repetition and repeats(text):
        return "repetition"
    if filters.language is not None and not in_language(text, filters.language):
        return "language"
    return None


def has_phrase(text: str, name: str) -> bool:
    """Whether a text has a phrase of a list."""
    lines = text.replace("’", "'").lower().splitlines()
    folded = "\n".join(filter(None, (" ".join(line.split()) for line in lines)))
    phrases = _phrases()[name]
    if _anywhere(name).search(folded.replace("\n", " ")):
        return True
    return not _LETTER.match(folded) and any(_begins(folded, one) for one in phrases["start"])


def _begins(folded: str, phrase: str) -> bool:
    """Whether a phrase begins a sentence or clause at the start of a text."""
    start = folded[: START + len(phrase)]
    if phrase not in start:
        return False
    for found in re.finditer(re.escape(phrase) + r"(?![^\W\d_])", start):
        helps = phrase.endswith(" help") and _AFTER_HELP.match(folded, found.end())
        if found.start() < START and _LEAD.search(folded[: found.start()]) and not helps:
            return True
    return False


def repeats(text: str) -> bool:
    """Whether a text repeats a sentence, a paragraph or a phrase too often. Lines of code may well be equal."""
    prose = _FENCED.sub("\n", text)
    sentences = Counter(part for one in _SENTENCE.split(prose) if len(part := one.strip()) > 3 and _has_word(part))
    if sentences and max(sentences.values()) >= SENTENCES:
        return True
    words = text.lower().split()
    grams = Counter(zip(*(words[start:] for start in range(PHRASE)), strict=False))
    return bool(grams) and max(grams.values()) >= REPEATED_PHRASES


def _has_word(text: str) -> bool:
    return any(map(str.isalpha, _FORMULA.sub(" ", text)))


def in_language(text: str, language: str) -> bool:
    """Whether a text may be in a language: it is found in it, or the text has too few words to tell."""
    found = languages_of(text)
    return not found or language in found


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of the text's language, or None where its words have too few letters to tell."""
    return next(iter(languages_of(text)), None)


def languages_of(text: str) -> list[str]:
    """Return the languages with a probability above 0.1, the most probable first; none where it cannot be told."""
    text = _FORMULA.sub(" ", _FENCED.sub(" ", text))
    words = _CODE.sub(" ", text)
    letters = sum(map(str.isalpha, words))
    if letters < max(LEAST_LETTERS, LEAST_SHARE * len("".join(text.split()))):
        return []
    from langdetect import DetectorFactory, LangDetectException, detect_langs

    DetectorFactory.seed = 0  # it draws at random otherwise
    try:
        return [str(one.lang).partition("-")[0] for one in detect_langs(words)]
    except LangDetectException:
        return []


@lru_cache(maxsize=2)
def _anywhere(name: str) -> re.Pattern[str]:
    found = "|".join(
        re.escape(one) + (r"(?![^\W\d_])" if one[-1].isalpha() else "") for one in _phrases()[name]["anywhere"]
    )
    return re.compile(found)


@lru_cache(maxsize=1)
def _phrases() -> dict[str, dict[str, list[str]]]:
    import yaml

    found = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))
    return {
        name: {place: [phrase for one in listed for phrase in _each(one)] for place, listed in places.items()}
        for name, places in found.items()
    }


def _each(entry: str | list[list[str]]) -> list[str]:
    """Return the phrases of an entry: itself, or each phrase of its first list with each of its second."""
    return [entry] if isinstance(entry, str) else [" ".join(both) for both in product(*entry)]


@lru_cache(maxsize=1)
def _languages() -> frozenset[str]:
    from langdetect import detector_factory

    detector_factory.init_factory()
    factory: Any = detector_factory._factory
    return frozenset(name.partition("-")[0] for name in factory.get_lang_list())
