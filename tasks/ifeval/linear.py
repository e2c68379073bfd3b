r"""Checkers of lm-eval whose patterns take quadratic time on looping answers, with the same verdicts in linear time.

The patterns begin with `\s*`, which `re` tries anew from every blank line, or look for a closing bracket from every
opening one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from olmes_suite.constraints.text import tokens
from olmes_suite.scoring.patterns import between

Arguments = Mapping[str, Any]
_OPEN, _CLOSE = re.compile(r"\["), re.compile(r"\]")
_BULLETS = tuple(re.compile(rf"^[^\S\n]*{mark}.*$", re.MULTILINE) for mark in (r"\*[^\*]", "-"))
_POSTSCRIPTS = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}


def placeholders(given: Arguments, text: str) -> bool:
    r"""At least so many matches of `\[.*?\]`."""
    return sum(1 for _ in between(_OPEN, _CLOSE, text)) >= given["num_placeholders"]


def bullets(given: Arguments, text: str) -> bool:
    r"""Exactly so many matches of `^\s*\*[^\*].*$` and `^\s*-.*$`."""
    return sum(len(pattern.findall(text)) for pattern in _BULLETS) == given["num_bullets"]


def title(given: Arguments, text: str) -> bool:
    r"""A match of `<<[^\n]+>>` that is not blank between its brackets; a line has one match at most."""
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 2 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def postscript(given: Arguments, text: str) -> bool:
    r"""A match of `\s*` and the marker, lower-cased; a marker of the user's is a pattern, as in lm-eval."""
    marker = given["postscript_marker"]
    return re.search(_POSTSCRIPTS.get(marker) or marker.lower(), text.lower(), re.MULTILINE) is not None


def capital_words(given: Arguments, text: str) -> bool:
    """Fewer, or at least, so many of NLTK's tokens in capitals; NLTK is asked once for each different sentence."""
    count = sum(token.isupper() for token in tokens(text))
    less, wanted = given["capital_relation"] == "less than", given["capital_frequency"]
    return bool(count < wanted if less else count >= wanted)


CHECKS: dict[str, Callable[[Arguments, str], bool]] = {
    "change_case:capital_word_frequency": capital_words,
    "detectable_content:number_placeholders": placeholders,
    "detectable_content:postscript": postscript,
    "detectable_format:number_bullet_lists": bullets,
    "detectable_format:title": title,
}
"""Instruction to its check: a function of the arguments of lm-eval's checker, and the text."""
