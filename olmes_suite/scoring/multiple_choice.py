"""Helpers of the multiple-choice tasks: lettered options, the wrapper of a question, letters in a response."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase

_WRAPPER = (
    "Answer the following multiple-choice question by giving the correct answer letter in parentheses. "
    "Provide CONCISE reasoning for the answer, and make sure to finish the response with "
    '"Therefore, the answer is (ANSWER_LETTER)" where (ANSWER_LETTER) is one of {letters}\n\n'
    "{query}"
    "Answer the above question and REMEMBER to finish your response with the exact phrase "
    '"Therefore, the answer is (ANSWER_LETTER)" where (ANSWER_LETTER) is one of {letters}'
)


def parenthesised(options: Sequence[str]) -> str:
    """Format the options, each on a line: ` (A) text`."""
    return "".join(f" ({letter}) {option}\n" for letter, option in zip(ascii_uppercase, options, strict=False))


def dotted(options: Sequence[str]) -> str:
    """Format the options, each on a line: ` A. text`."""
    return "".join(f" {letter}. {option}\n" for letter, option in zip(ascii_uppercase, options, strict=False))


def wrapped(query: str, letters: str) -> str:
    """Put `query` between the description and the reminder of the reference's `0shot_cot::tulu3` configurations.

    `query` ends with the blank lines before the reminder, `letters` with a full stop.

    Source: allenai/olmes `configs/tasks.py`.
    """
    return _WRAPPER.format(query=query, letters=letters)


def alone(letters: str, text: str) -> list[tuple[int, str]]:
    """Find the stand-alone capitals of the character class `letters` (such as `A-D`), with their positions."""
    return [(match.start(), match.group()) for match in re.finditer(rf"\b[{letters}]\b", text)]


def last_alone(letters: str, text: str) -> str:
    r"""Return the last stand-alone capital, or "".

    Equivalent to the last match of `.*\b([A-J])\b`, without that pattern's quadratic time on long lines.
    """
    matches = alone(letters, text)
    return matches[-1][1] if matches else ""


def first_line_last_alone(letters: str, text: str) -> str:
    r"""Return the last stand-alone capital of the first line that has one, or "".

    Equivalent to the first match of `.*\b([A-D])\b`, without that pattern's quadratic time on long lines.
    """
    matches = alone(letters, text)
    if not matches:
        return ""
    end = text.find("\n", matches[0][0])
    return [letter for position, letter in matches if end < 0 or position < end][-1]


def another(letter: str, count: int) -> str:
    """Return one of the first `count` letters that is not `letter`."""
    return ascii_uppercase[(ascii_uppercase.index(letter) + 1) % count]
