r"""BIG-Bench Hard in the OLMo 3 regime (allenai/olmes `bbh_<name>:cot::olmo3:adapt`), and a repaired variant.

The reference tries the templates of the cascade with the form of the sub-task's answers, then `\b([A-Z])\b` in a string
that is not raw, whose `\b` is a backspace, then the bare form. A template that ends in `\b` after a parenthesis needs a
word character behind it, so that "(A)." is read by later templates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from olmes_suite.records import Scored
from olmes_suite.scoring import Scorer, cascade, exact_match, scorer

CHOICE = r"\([A-Z]\)"
BRACKETS = r"[\]\)\}\> ]+"
WORDS = "[a-z ]+"
_BACKSPACES = "\x08([A-Z])\x08"
_THEREFORE = cascade.TEMPLATES[0]
_CORRECT = cascade.TEMPLATES[6]
_HEAD = re.compile(r"(?i)therefore,?\s*the\s*answer\s*is:?")
_TAIL = re.compile(r"(?i)is\s+correct")


def doc_to_target(doc: Mapping[str, Any]) -> str:
    """Return the target."""
    return str(doc["target"])


def extract(response: str, pattern: str) -> str:
    """Extract the answer that the reference reads: the last match of the first pattern that matches."""
    for template in cascade.TEMPLATES:
        if (answer := _last(template, pattern, response)) is not None:
            return _completed(answer, pattern)
    others = [_BACKSPACES] if pattern == CHOICE else []
    for other in (*others, f"(?i)({pattern})"):
        if match := cascade.last(re.finditer(other, response)):
            return _completed(match.group(1), pattern)
    return ""


def _completed(answer: str, pattern: str) -> str:
    answer = answer.strip()
    return f"({answer})" if pattern == CHOICE and len(answer) == 1 else answer


def _last(template: str, pattern: str, response: str) -> str | None:
    if pattern in (WORDS, BRACKETS) and template in (_THEREFORE, _CORRECT):
        return last_therefore(response, pattern) if template == _THEREFORE else last_correct(response, pattern)
    match = cascade.last(cascade.compiled(template, pattern).finditer(response))
    return match.group(1) if match else None


def last_therefore(response: str, pattern: str) -> str | None:
    """Find the last match of the first template in linear time; `pattern` repeats a class that holds the space.

    The group begins at the first character behind the white space; failing that, it is the white space's last
    character. An earlier start could not match either.
    """
    answer, blank = re.compile(rf"(?i)\(?({pattern})\b"), re.compile(r"( )\b")
    position, found = 0, None
    while head := _HEAD.search(response, position):
        start = head.end()
        while start < len(response) and response[start].isspace():
            start += 1
        match = answer.match(response, start)
        if match is None and start > head.end():
            match = blank.match(response, start - 1)
        position = match.end() if match else head.end()
        found = match.group(1) if match else found
    return found


def last_correct(response: str, pattern: str) -> str | None:
    """Find the last match of the template "X is correct" in linear time; `pattern` as above.

    Only a run of the class that reaches "is correct" can match. Within it the last "is correct" counts, in front of
    which the group leaves one character of white space, or more where they are no spaces.
    """
    whole = re.compile(rf"(?i)({pattern})(?:\)\s+|[^\S ]\s*|\s)is\s+correct")
    one = re.compile(f"(?i){pattern.removesuffix('+')}")
    position, found = 0, None
    for tail in _TAIL.finditer(response):
        begin = tail.start()
        while begin > position and response[begin - 1].isspace():
            begin -= 1
        if begin >= tail.start():
            continue
        end = begin  # of the run in front of the white space
        if end - 1 > position and response[end - 1] == ")" and not one.match(")"):
            end -= 1
        start = end
        while start > position and one.match(response[start - 1]):
            start -= 1
        bounds = (place for place in range(start, begin + 1) if _bound(response, place))
        if (place := next(bounds, None)) is not None and (match := whole.match(response, place)):
            position, found = match.end(), match.group(1)
    return found


def _bound(text: str, place: int) -> bool:
    r"""Return whether `\b` matches in front of the character at `place`."""
    return _word(text, place - 1) != _word(text, place)


def _word(text: str, place: int) -> bool:
    return 0 <= place < len(text) and (text[place].isalnum() or text[place] == "_")


_STATEMENTS = (
    r"(?i)\banswer\b[\s*_]*(?:is|:|=)[\s*_:]*(?:(?:option|choice)\s+)?[\s*_$]*(?:\\boxed\{|\\text\{)*[\s*_\"']*ANSWER",
    r"\\boxed\{(?:\\text\{)?\s*ANSWER",
)


def read_carefully(response: str, pattern: str) -> str:
    """Read the answer as a careful reader does: a last statement or box, letters with or without parentheses."""
    answer = r"(?:\(([A-Za-z])\)|([A-Z])(?![A-Za-z0-9_]))" if pattern == CHOICE else f"({pattern})(?![A-Za-z0-9_])"
    for statement in _STATEMENTS:
        if match := cascade.last(re.finditer(statement.replace("ANSWER", f"(?-i:{answer})"), response)):
            return _completed(cascade.last_group(match), pattern)
    match = cascade.last(re.finditer(CHOICE if pattern == CHOICE else rf"(?<![A-Za-z0-9_]){answer}", response))
    if match is None and pattern == CHOICE:
        match = cascade.last(re.finditer(r"(?<![\w'’])([A-HJ-Z])(?![\w'’])", response))
    return _completed(cascade.last_group(match), pattern) if match else ""


def _scorer(pattern: str, ignore_punctuation: bool = True, careful: bool = False) -> Scorer:
    read = read_carefully if careful else extract

    def score(doc: Mapping[str, Any], response: str) -> Scored:
        """Score the exact match of the answer; case does not count."""
        answer = read(response, pattern)
        value = exact_match(answer, doc["target"], ignore_punctuation=ignore_punctuation)
        return Scored({"exact_match": value}, answer, failed=not answer)

    return scorer()(score)


choice = _scorer(CHOICE)
boolean = _scorer("[tT]rue|[fF]alse")
yes_no = _scorer("[yY]es|[nN]o")
no_yes = _scorer("[nN]o|[yY]es")
validity = _scorer("[iI]nvalid|[vV]alid")
integer = _scorer(r"-?\d+")
count = _scorer(r"\d+")
words = _scorer(WORDS)
brackets = _scorer(BRACKETS, ignore_punctuation=False)
choice_repaired = _scorer(CHOICE, careful=True)
boolean_repaired = _scorer("[tT]rue|[fF]alse", careful=True)
yes_no_repaired = _scorer("[yY]es|[nN]o", careful=True)
no_yes_repaired = yes_no_repaired
validity_repaired = _scorer("[iI]nvalid|[vV]alid", careful=True)
integer_repaired = _scorer(r"-?\d+", careful=True)
count_repaired = _scorer(r"\d+", careful=True)
words_repaired = _scorer(WORDS, careful=True)
brackets_repaired = _scorer(BRACKETS, ignore_punctuation=False, careful=True)
