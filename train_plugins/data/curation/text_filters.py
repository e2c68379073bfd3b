"""Filters of generated texts: length, language, repetition, refusals and answers about the answer. Each gives a reason.

Repetition follows the filters of Dolci (OLMo 3, arXiv 2512.13961, A.7.1): a sentence or paragraph ten times, or a
phrase fifty times.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.yaml_files import Place

PHRASES = Path(__file__).parent / "phrases.yaml"
START = 120
"""Characters of a text in which phrases of `start` are looked for."""
SENTENCES, REPEATED_PHRASES, PHRASE = 10, 50, 5
"""Times that a sentence or paragraph, and a phrase, may not reach; words of a phrase."""
LEAST_LETTERS = 20
"""A language is not detected in fewer letters."""
_SENTENCE = re.compile(r"(?<=[.!?。！？])\s+|\n+")
_NOT_WORDS = re.compile(
    r"""```.{0,9999}?(?:```|\Z) | \$\$.{0,999}?\$\$ | \$[^$\n]{0,999}\$ | \\\[.{0,999}?\\\] | \\\(.{0,999}?\\\)
      | \\[A-Za-z]+ | https?://\S+""",
    re.DOTALL | re.VERBOSE,
)
"""Code, formulas and addresses, whose letters are of no language."""
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
        raise UsageError(
            f"{place.line(('language',))}: language: {filters.language!r} is none of {', '.join(sorted(_languages()))}"
        )


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
    if filters.language is not None and language_of(text) not in (filters.language, None):
        return "language"
    return None


def has_phrase(text: str, name: str) -> bool:
    """Whether a text has a phrase of a list."""
    folded = " ".join(text.replace("’", "'").lower().split())
    phrases = _phrases()[name]
    return any(one in folded[:START] for one in phrases["start"]) or any(one in folded for one in phrases["anywhere"])


def repeats(text: str) -> bool:
    """Whether a text repeats a sentence, a paragraph or a phrase too often."""
    sentences = Counter(part for one in _SENTENCE.split(text) if len(part := one.strip()) > 3)
    if sentences and max(sentences.values()) >= SENTENCES:
        return True
    words = text.lower().split()
    grams = Counter(zip(*(words[start:] for start in range(PHRASE)), strict=False))
    return bool(grams) and max(grams.values()) >= REPEATED_PHRASES


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code of the text's language, or None where its words have too few letters to tell."""
    text = _NOT_WORDS.sub(" ", text)
    if sum(map(str.isalpha, text)) < LEAST_LETTERS:
        return None
    from langdetect import DetectorFactory, LangDetectException, detect

    DetectorFactory.seed = 0  # it draws at random otherwise
    try:
        return str(detect(text)).partition("-")[0]
    except LangDetectException:
        return None


@lru_cache(maxsize=1)
def _phrases() -> dict[str, dict[str, list[str]]]:
    import yaml

    found: dict[str, dict[str, list[str]]] = yaml.safe_load(PHRASES.read_text(encoding="utf-8"))
    return found


@lru_cache(maxsize=1)
def _languages() -> frozenset[str]:
    from langdetect import detector_factory

    detector_factory.init_factory()
    factory: Any = detector_factory._factory
    return frozenset(name.partition("-")[0] for name in factory.get_lang_list())
