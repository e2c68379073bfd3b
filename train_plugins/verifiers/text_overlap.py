"""The verifier of the overlap of words, F1, as in the evaluation of answers in free text (SQuAD)."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import Any

from train_plugins.verifiers.final_answer import accepted_of

_ARTICLE = re.compile(r"\b(?:a|an|the)\b")


def string_f1(response: str, truth: Any, row: Mapping[str, Any]) -> float:
    """Return the best F1 of the response's words with those of an accepted answer: one, or a list.

    Case, punctuation and English articles are ignored.
    """
    said = _words(response)
    return max(_f1(said, _words(one)) for one in accepted_of(truth))


def _words(text: str) -> Counter[str]:
    folded = unicodedata.normalize("NFC", text).lower()
    kept = "".join(character for character in folded if unicodedata.category(character)[0] != "P")
    return Counter(_ARTICLE.sub(" ", kept).split())


def _f1(said: Counter[str], wanted: Counter[str]) -> float:
    if not said or not wanted:  # an accepted answer of articles or punctuation alone
        return float(said == wanted)
    common = (said & wanted).total()
    return 2 * common / (said.total() + wanted.total())
