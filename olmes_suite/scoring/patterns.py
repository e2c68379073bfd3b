"""Patterns whose plain form takes quadratic time on looping answers, matched in time linear in the text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class Span(NamedTuple):
    """Where a match begins, where its inner text begins and ends, and where the match ends."""

    start: int
    inner: int
    inner_end: int
    end: int


def between(head: re.Pattern[str], tail: re.Pattern[str], text: str) -> Iterator[Span]:
    """Yield the matches of `head(.*?)tail` in order. Neither pattern may match a line break, nor nothing.

    `re` looks for the tail anew from every head, up to the end of the line; here a line without a further tail is left
    at once.
    """
    position, line_end = 0, -1
    while begun := head.search(text, position):
        if line_end < begun.end():
            line_end = text.find("\n", begun.end())
            line_end = len(text) if line_end < 0 else line_end
        ended = tail.search(text, begun.end(), line_end)
        if ended is None:
            position = line_end
        else:
            yield Span(begun.start(), begun.end(), ended.start(), ended.end())
            position = ended.end()


def unwrapped(head: re.Pattern[str], tail: re.Pattern[str], text: str) -> str:
    r"""Do what `re.sub(r"head(.*?)tail", r"\1", text)` does. Neither pattern may match a line break, nor nothing."""
    pieces, position = [], 0
    for span in between(head, tail, text):
        pieces += [text[position : span.start], text[span.inner : span.inner_end]]
        position = span.end
    return "".join(pieces) + text[position:]


def rstripped(text: str, ends: str) -> str:
    r"""The text without the white space and the characters of `ends` at its end: `re.sub(r"[\s…]+$", "", text)`."""
    end = len(text)
    while end and (text[end - 1].isspace() or text[end - 1] in ends):
        end -= 1
    return text[:end]
