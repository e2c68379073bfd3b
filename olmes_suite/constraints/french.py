"""Recognition of French words by the list of the package pyspellchecker: 140,000 forms, counted in film subtitles."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

_ELISION = re.compile(r"^(?:[cdjlmnst]|qu|jusqu|lorsqu|puisqu|quoiqu)'(?=\w)", re.IGNORECASE)
_INVERSION = re.compile(r"-t?-?(?:je|tu|ils?|elles?|on|nous|vous|ce|la|le|les|lui|leur|moi|toi|y|en|ci|là)$")

_ENGLISH = 20.0
"""A word in both lists is English where its English share is at least this multiple of its French share ("for")."""


def is_french(word: str) -> bool:
    """Return whether the French list has the word: "est", "C'est", "parle-t-il", and "table", a word of both languages.

    An accent alone does not make a word French; French words far more frequent in English ("or", "but") are not
    recognised.
    """
    form = word.lower().replace("’", "'")
    if _known(form):
        return True
    stem = _INVERSION.sub("", _ELISION.sub("", form))
    return _known(stem) or ("-" in stem and all(map(_known, stem.split("-"))))


def _known(form: str) -> bool:
    french, english = _shares("fr"), _shares("en")
    return form in french and english.get(form, 0.0) < _ENGLISH * french[form]


@functools.lru_cache(maxsize=2)
def _shares(language: str) -> Mapping[str, float]:
    """Return each form's share of all words in the language's corpus, as a fraction."""
    from olmes_suite.scoring import language_resources

    language_resources.require(["french_words"])
    from spellchecker import SpellChecker

    counts: Mapping[str, int] = SpellChecker(language=language).word_frequency.dictionary
    total = sum(counts.values())
    return {form: count / total for form, count in counts.items()}
