"""Sentences, words and tokens, as the reference cuts them and as the repaired checkers do."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import string
import unicodedata
from pathlib import Path
from typing import Any

import yaml

from olmes_suite.scoring import language_resources
from olmes_suite.scoring.patterns import rstripped
from olmes_suite.scoring.scorers import lm_eval_module

PUNCTUATION = string.punctuation
_NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_CLOSING = "\"'”’»)]}*_~`"


def bare(text: str) -> str:
    """The text without ASCII punctuation."""
    return text.translate(_NO_PUNCTUATION)


def trim(text: str) -> str:
    """The text without ASCII punctuation and spaces at its ends."""
    return text.strip(PUNCTUATION + " ")


def words(text: str) -> list[str]:
    """Words in a reader's sense: letters and digits, with inner hyphens and apostrophes ("don't" is one)."""
    return _WORD.findall(text)


@functools.lru_cache(maxsize=1)
def _rule_book() -> Any:
    """IFEval's utilities in the installed lm-eval. Their import would download NLTK's data where they are missing."""
    import nltk

    download = nltk.download
    nltk.download = lambda name: False
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it says what it downloaded
            return lm_eval_module("ifeval/instructions_util.py")
    finally:
        nltk.download = download


def ruled_sentences(text: str) -> list[str]:
    """Sentences by the rules of IFEval's `split_into_sentences`, which the reference's checkers use in place of NLTK.

    Every `.`, `?` and `!` ends a sentence but in a few abbreviations and numbers, and a mark inside closing quotation
    marks is put behind them. Line breaks are spaces.
    """
    return list(_rule_book().split_into_sentences(text))


def sentences(text: str) -> list[str]:
    """NLTK's sentences. Raises MissingData without its punkt_tab."""
    import nltk

    return list(_asking("punkt_tab", nltk.sent_tokenize, text))


def tokens(text: str) -> list[str]:
    """NLTK's word tokens; a punctuation mark is a token. Raises MissingData without its punkt_tab."""
    return [token for sentence in sentences(text) for token in _tokens_of_sentence(sentence)]


@functools.lru_cache(maxsize=4096)
def _tokens_of_sentence(sentence: str) -> tuple[str, ...]:
    """What `nltk.word_tokenize` makes of one sentence; a looping answer repeats a few of them thousands of times."""
    import nltk

    return tuple(nltk.word_tokenize(sentence, preserve_line=True))


def tag_first(found: list[str]) -> str:
    """Part of speech of the first token, in Penn's tags. The tagger looks two tokens ahead and no further."""
    import nltk

    return str(_asking("averaged_perceptron_tagger_eng", nltk.pos_tag, found[:3])[0][1])


@functools.lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """NLTK's English stop words."""
    from nltk.corpus import stopwords

    return frozenset(_asking("stopwords", stopwords.words, "english"))


def _asking(name: str, function: Any, argument: Any) -> Any:
    try:
        return function(argument)
    except LookupError:
        language_resources.require([name])  # the mirrors' folders are made known here, else the one line for the user
        return function(argument)


def ending(sentence: str) -> str:
    """The mark that ends a sentence, closing quotes, brackets and emphasis apart; "" for an empty one."""
    return rstripped(sentence, _CLOSING)[-1:]


def lines(text: str) -> list[str]:
    """The lines that are not blank."""
    return [line for line in text.split("\n") if line.strip()]


def ascii_only(text: str) -> str:
    """The text without accents and without what is then not ASCII."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


@functools.lru_cache(maxsize=16)
def listed(name: str) -> tuple[str, ...]:
    """One of the lists in `lists.yaml`, in order. Raises KeyError for an unknown name."""
    lists = yaml.safe_load(Path(__file__).with_name("lists.yaml").read_text(encoding="utf-8"))
    return tuple(lists[name].split(", "))
