"""What the multiple-choice tasks share: lettered options, the wrapper of a question, letters read from a response."""

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
    """One line for each option: ` (A) text`."""
    return "".join(f" ({letter}) {option}\n" for letter, option in zip(ascii_uppercase, options, strict=False))


def dotted(options: Sequence[str]) -> str:
    """One line for each option: ` A. text`."""
    return "".join(f" {letter}. {option}\n" for letter, option in zip(ascii_uppercase, options, strict=False))


def wrapped(query: str, letters: str) -> str:
    """`query` between the description and the reminder of the reference's `0shot_cot::tulu3` configurations.

    Source: allenai/olmes `configs/tasks.py`; `query` ends with the blank lines that precede the
    reminder, `letters` with a full stop.
    """
    return _WRAPPER.format(query=query, letters=letters)


def alone(letters: str, text: str) -> list[tuple[int, str]]:
    """Position and letter of every stand-alone capital of the character class `letters` (such as `A-D`)."""
    return [(match.start(), match.group()) for match in re.finditer(rf"\b[{letters}]\b", text)]


def last_alone(letters: str, text: str) -> str:
    r"""The last stand-alone capital, or "".

    What the last of the matches of `.*\b([A-J])\b` gives, without that pattern's quadratic time on long lines.
    """
    found = alone(letters, text)
    return found[-1][1] if found else ""


def first_line_last_alone(letters: str, text: str) -> str:
    r"""The last stand-alone capital of the first line that has one, or "".

    What the first match of `.*\b([A-D])\b` gives, without that pattern's quadratic time on long lines.
    """
    found = alone(letters, text)
    if not found:
        return ""
    end = text.find("\n", found[0][0])
    return [letter for position, letter in found if end < 0 or position < end][-1]


def another(letter: str, count: int) -> str:
    """A letter of the first `count` that is not `letter`."""
    return ascii_uppercase[(ascii_uppercase.index(letter) + 1) % count]
