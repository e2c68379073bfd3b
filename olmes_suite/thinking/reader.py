"""The split of a text at the marks of a thought, with the results of OLMES's regular expressions in linear time.

OLMES (`extract_think_answer`, `r1_style`) deletes everything through the last closing mark, then an opening answer mark
at the start of any line and a closing one at the end of any line, each with the white space around it. Its patterns
start with `^\\s*` and end with `\\s*$`, which take quadratic time on runs of blank lines; the functions here look at
each character a constant number of times.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

_SPACE = re.compile(r"\s*")


class Split(NamedTuple):
    """The parts of a text."""

    thinking: str | None
    """The thought without its opening mark; None where the text has no thought."""
    answer: str
    """The text after the last thought, byte for byte but for the answer marks; the whole text where no thought ends."""
    unclosed: bool
    """Whether the text ends inside a thought."""


@dataclass(frozen=True, slots=True)
class AnswerMarks:
    """Marks around the answer, which are removed with the white space around them."""

    open: str | None = None
    """Removed at the start of a line."""
    close: str | None = None
    """Removed at the end of a line."""


@dataclass(frozen=True, slots=True)
class Reader:
    """The marks of a model's thoughts, as a reader's YAML file holds them."""

    open: str
    """The mark before a thought."""
    close: tuple[str, ...]
    """The mark after a thought, or several of which the last one in the text counts."""
    answer: AnswerMarks = field(default_factory=AnswerMarks)
    template_opens: bool | None = None
    """Whether the chat template ends prompts with the opening mark; by default the rendered template tells."""
    anywhere: bool = False
    """Whether an opening mark inside a line opens a thought after an answer. Text marks may be mentioned in answers, so
    that they only count at the start of a line; special tokens cannot be."""
    about: str = ""
    name: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """All marks of the reader."""
        return tuple(mark for mark in (self.open, *self.close, self.answer.open, self.answer.close) if mark)

    def split(self, text: str, opened: bool | None = None) -> Split:
        """Split a text. `opened`: whether the prompt ended with an opened thought; None: the reader's own default."""
        opened = bool(self.template_opens) if opened is None else opened
        start, end = self.last_close(text)
        if start >= 0:
            answer = text[end:]
            return Split(text[self._after_open(text) : start], self._bare(answer), self._reopened(answer))
        place = -1 if opened else text.rfind(self.open)
        if not opened and place < 0:
            return Split(None, self._bare(text), False)
        begin = self._after_open(text)
        if not begin and not opened:
            begin = text.find(self.open) + len(self.open)
        return Split(text[begin:], self._bare(text), True)

    def last_close(self, text: str) -> tuple[int, int]:
        """Return the start and the end of the last closing mark, (-1, -1) without one."""
        found = [(place, place + len(mark)) for mark in self.close if (place := text.rfind(mark)) >= 0]
        return max(found, key=lambda span: (span[1], -span[0]), default=(-1, -1))

    def _after_open(self, text: str) -> int:
        """Return where a thought at the start of a text begins, after its opening mark and the white space around."""
        start = _end_of_space(text, 0)
        return _end_of_space(text, start + len(self.open)) if text.startswith(self.open, start) else 0

    def _reopened(self, answer: str) -> bool:
        """Return whether a thought opens in the text after the last closing mark."""
        if answer.rfind(self.open) < 0:
            return False
        return self.anywhere or re.search(rf"^[^\S\n]*{re.escape(self.open)}", answer, re.MULTILINE) is not None

    def _bare(self, text: str) -> str:
        """Return the text without the answer marks."""
        marks = self.answer
        if marks.open and text.rfind(marks.open) >= 0:
            text = _without_line_starts(text, marks.open)
        if marks.close and text.rfind(marks.close) >= 0:
            text = _without_line_ends(text, marks.close)
        return text


def _end_of_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def _without_line_starts(text: str, mark: str) -> str:
    """Return `re.sub("(?m)^\\s*MARK\\s*", "", text)`."""
    kept: list[str] = []
    copied = 0
    """Where the part that is neither copied nor removed starts."""
    line_start = True
    """Whether a line starts there."""
    searched = 0
    while (place := text.find(mark, searched)) >= 0:
        before = text[max(searched, copied) : place]
        space = place - len(before) + len(before.rstrip())
        if space == copied and line_start:
            start = copied
        else:
            newline = text.find("\n", space, place)
            start = newline + 1 if newline >= 0 else -1
        searched = place + len(mark)
        if start < 0:
            continue
        kept.append(text[copied:start])
        copied = searched = _end_of_space(text, searched)
        line_start = text[copied - 1] == "\n"
    return "".join([*kept, text[copied:]])


def _without_line_ends(text: str, mark: str) -> str:
    """Return `re.sub("(?m)MARK\\s*$", "", text)`."""
    kept: list[str] = []
    copied = searched = 0
    while (place := text.find(mark, searched)) >= 0:
        searched = place + len(mark)
        end = _end_of_space(text, searched)
        if end < len(text):
            end = text.rfind("\n", searched, end)
        if end < 0:
            continue
        kept.append(text[copied:place])
        copied = searched = end
    return "".join([*kept, text[copied:]])
