"""Splitting of texts into sentences, words and tokens, for the reference's checkers and the repaired ones."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import string
import unicodedata
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import yaml

from olmes_suite.scoring import language_resources
from olmes_suite.scoring.patterns import rstripped
from olmes_suite.scoring.scorers import lm_eval_module

Argument = TypeVar("Argument")
Result = TypeVar("Result")
PUNCTUATION = string.punctuation
_NO_PUNCTUATION = str.maketrans("", "", PUNCTUATION)
_WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*")
_CLOSING = "\"'”’»)]}*_~`"


def bare(text: str) -> str:
    """Remove ASCII punctuation from the text."""
    return text.translate(_NO_PUNCTUATION)


def trim(text: str) -> str:
    """Strip ASCII punctuation and spaces from both ends of the text."""
    return text.strip(PUNCTUATION + " ")


def words(text: str) -> list[str]:
    """Split the text into words as a reader would: letters and digits with inner hyphens and apostrophes ("don't")."""
    return _WORD.findall(text)


@functools.lru_cache(maxsize=1)
def _ifeval_utilities() -> ModuleType:
    """Load IFEval's utilities from the installed lm-eval, without the download that their import would start."""
    import nltk

    download = nltk.download
    nltk.download = lambda name: False
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the import prints that it downloaded something
            return lm_eval_module("ifeval/instructions_util.py")
    finally:
        nltk.download = download


def ruled_sentences(text: str) -> list[str]:
    """Split the text by the rules of IFEval's `split_into_sentences`, which the reference's checkers call.

    Each `.`, `?` and `!` ends a sentence, except in some abbreviations and numbers; a mark before a closing quotation
    mark is moved behind it. A line break is a space.
    """
    return list(_ifeval_utilities().split_into_sentences(text))


def sentences(text: str) -> list[str]:
    """Split the text into NLTK's sentences. Raises MissingData without NLTK's punkt_tab."""
    import nltk

    return list(_with_resource("punkt_tab", nltk.sent_tokenize, text))


def tokens(text: str) -> list[str]:
    """Split the text into NLTK's tokens, punctuation marks included. Raises MissingData without NLTK's punkt_tab."""
    return [token for sentence in sentences(text) for token in _tokens_of_sentence(sentence)]


@functools.lru_cache(maxsize=4096)
def _tokens_of_sentence(sentence: str) -> tuple[str, ...]:
    """Split one sentence as `nltk.word_tokenize` does. A looping answer repeats a few sentences thousands of times."""
    import nltk

    return tuple(nltk.word_tokenize(sentence, preserve_line=True))


def tag_first(tokens: list[str]) -> str:
    """Return the Penn tag of the first token. The tagger looks at most two tokens ahead."""
    import nltk

    return str(_with_resource("averaged_perceptron_tagger_eng", nltk.pos_tag, tokens[:3])[0][1])


@functools.lru_cache(maxsize=1)
def stop_words() -> frozenset[str]:
    """Return NLTK's English stop words. Raises MissingData without NLTK's stopwords."""
    from nltk.corpus import stopwords

    return frozenset(_with_resource("stopwords", stopwords.words, "english"))


def _with_resource(name: str, function: Callable[[Argument], Result], argument: Argument) -> Result:
    try:
        return function(argument)
    except LookupError:
        language_resources.extend_nltk_path()
        language_resources.require([name])  # raises MissingData
        return function(argument)


def ending(sentence: str) -> str:
    """Return the mark that ends a sentence, before closing quotes, brackets and emphasis; "" for an empty sentence."""
    return rstripped(sentence, _CLOSING)[-1:]


def lines(text: str) -> list[str]:
    """Return the lines that are not blank."""
    return [line for line in text.split("\n") if line.strip()]


def ascii_only(text: str) -> str:
    """Remove accents, and all characters that are not ASCII without them."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")


@functools.lru_cache(maxsize=16)
def listed(name: str) -> tuple[str, ...]:
    """Return a list of `lists.yaml` in order. Raises KeyError for an unknown name."""
    lists = yaml.safe_load(Path(__file__).with_name("lists.yaml").read_text(encoding="utf-8"))
    return tuple(lists[name].split(", "))
