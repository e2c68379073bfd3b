r"""The cascade that reads an answer in the OLMo 3 regime (allenai/olmes `tasks/utils.py:extract_answer`).

The first non-empty text wins: the last match of the form that the prompt requests; the last match of the first template
that matches; the answer after a prefix such as "the answer is"; the last match of a bare answer pattern.

Patterns are searched so that the time is linear in the length of the answer, with the results of the plain search.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from olmes_suite.scoring.patterns import between

ANSWER = "$ANS$"
"""Stands for the pattern of an answer in a template."""
TEMPLATES = (
    rf"(?i)therefore,?\s*the\s*answer\s*is:?\s*\(?({ANSWER})\b",
    rf"(?i)so\s+the\s+answer\s+is\s+({ANSWER})\.?",
    rf"(?i)the\s+correct\s+answer\s+is:?\s*({ANSWER})",
    rf"(?i)the\s+answer\s+is\s+({ANSWER})\.?",
    rf"(?i)a:\s*({ANSWER})",
    rf"(?i)answer:\s*({ANSWER})",
    rf"(?i)\b({ANSWER})\)?\s+is\s+correct",
    rf"(?i)\(({ANSWER})\)",
    rf"(?i)\b({ANSWER})\b",
)
r"""The reference's list `OLMO_3_REGEXES`, without its last two: the ninth twice, and the ninth after `.*`, which match
nothing where the ninth does not."""
BOXED_TEMPLATES = (
    *TEMPLATES[:1],
    rf"(?i)so\s+the\s+answer\s+is:?\s*({ANSWER})\.?",
    *TEMPLATES[2:7],
    rf"\\boxed\{{({ANSWER})\}}",
    *TEMPLATES[7:],
)
"""The newer list of allenai/olmo-eval (`evals/extract/answer_format.py`), which also reads a box."""


@dataclass(frozen=True, slots=True)
class Read:
    """An answer that was read from a response."""

    answer: str
    """"" where nothing matches."""
    form: float
    """The reference's score of the answer's form: 1 as requested, 0.5, 0.2 or 0.1 in looser forms, 0 without one."""


def last_group(match: re.Match[str]) -> str:
    """Return the last group that is not empty, or the whole match without one."""
    return next((group for group in reversed(match.groups()) if group), match.group())


def last(matches: Iterator[re.Match[str]]) -> re.Match[str] | None:
    """Return the last of the matches."""
    match = None
    for match in matches:  # noqa: B007 - only the last one is used
        pass
    return match


@functools.lru_cache(maxsize=256)
def compiled(template: str, answer: str) -> re.Pattern[str]:
    """Compile a template for an answer's pattern."""
    return re.compile(template.replace(ANSWER, answer))


def requested(pattern: str | re.Pattern[str], response: str) -> Read | None:
    """Read the last answer in the form that the prompt requests; `pattern` has one group."""
    match = last(re.finditer(pattern, response))
    return Read(match.group(1), 1.0) if match and match.group(1) else None


def templated(response: str, answers: Sequence[str], templates: Sequence[str] = TEMPLATES) -> Read | None:
    """Read the last match of the first template that matches. The answers' patterns hold no white space."""
    for number, template in enumerate(templates):
        for answer in answers:
            match = last(compiled(template, answer).finditer(response))
            if match and (text := last_group(match)):
                return Read(text, 1.0 if number == 0 else 0.5)
    return None


def bare(response: str, answers: Sequence[str]) -> Read:
    """Read the last match of the first answer's pattern that matches; "" where none does."""
    for number, answer in enumerate(answers):
        match = last(re.finditer(answer, response))
        if match and (text := last_group(match)):
            return Read(text, 0.2 if number == 0 else 0.1)
    return Read("", 0.0)


def choice(response: str, letters: str, form: str | None = None, templates: Sequence[str] = TEMPLATES) -> Read:
    """Read the letter of a choice among the character class `letters` (such as `A-D`), as it is written.

    The templates ignore case, so that without an earlier match the article "a" is read as the choice A.
    """
    answer = (rf"\(?([{letters}])\)?",)
    found = (requested(form, response) if form else None) or templated(response, answer, templates)
    return found or bare(response, answer)


def careful_choice(response: str, letters: str, form: str | None = None) -> Read:
    """Read the letter of a choice as a careful reader does; "" where the response states none.

    Letters may stand in bold, a box or a formula. A small letter counts only where a statement ends in it, so that
    "the answer is a matter of taste" states none, and a capital that stands alone only where it is no article.
    """
    patterns = [*([form] if form else []), *_careful(letters)]
    for number, pattern in enumerate(patterns):
        if match := last(re.finditer(pattern, response)):
            return Read(last_group(match).upper(), 1.0 if number == 0 else 0.5)
    return Read("", 0.0)


@functools.lru_cache(maxsize=16)
def _careful(letters: str) -> tuple[str, ...]:
    opened = r"[\s*_$({\\]*(?:(?:text|textbf|mathrm|mathbf|boxed)\{[\s(]*)*"
    end = r"(?![A-Za-z0-9_]|['’][a-z])"
    capital = rf"([{letters}]){end}(?!\s+[a-z]+\s+[a-z])"
    small = rf"([{letters.lower()}])(?=[)*_$}}]*[.!]?[*_]*\s*(?:$|\n))"
    answer = rf"(?i:\banswer\b)[\s*_]*(?:is|:|=)[\s*_:]*(?:(?i:option|choice)\s+)?{opened}"
    return (
        rf"(?i:therefore,?\s*the\s*answer\s*is:?){opened}(?:{capital}|{small})",
        rf"{answer}(?:{capital}|{small})",
        rf"\\boxed\{{{opened}([{letters}{letters.lower()}])[\s)}}.]",
        rf"([{letters}])[)*_]*\s+(?i:is\s+(?:the\s+)?(?:correct|right|best)\b)",
        rf"\(([{letters}])\)",
        rf"\*\*([{letters}]){end}",
        rf"(?:(?<=[a-z:] )|(?<=[^\x00-\x7f]))([{letters}]){end}",
        rf"(?<![A-Za-z0-9_'’]){capital}",
    )


# final answers in a box --------------------------------------------------------------------------------------------

FORM = "Therefore, the final answer is \\boxed{"
"""The beginning of the form that the prompts of GSM8K and OMEGA request; the answer extends to the line's last `}`."""
PREFIXES = (
    r"(?i)Therefore,? the final answer is", r"(?i)Therefore,? the answer is", r"(?i)the final answer is",
    r"(?i)the answer is", r"(?i)answer is", r"(?i)answer is:", r"(?i)answer:",
)  # fmt: skip
"""Prefixes in the order in which they are tried; all but the last two stop before a colon."""
NUMBER = r"[-+]?\d*\.\d+|\d+"
STRICT_FROM = 0.4
"""Form score from which the strict metric counts an answer."""
_DELIMITERS = (("$", "$"), ("\\(", "\\)"), ("**", "**"), ("***", "***"), ("\\[", "\\]"))
_BOX, _CLOSED = re.compile(r"\\boxed\{"), re.compile(r"\}")


def final_answer(response: str, number: bool) -> Read:
    r"""Read the final answer of a response to GSM8K's or OMEGA's prompt, with the defects of the reference.

    `number`: a bare number is a form of answer (GSM8K). The reference's patterns are `\boxed{(.*?)}` after anything,
    the number, and a whole line; nested braces end at the first `}`, and "answer is: 4" reads ": 4".
    """
    text = _undelimited(re.sub(r"(\d),(\d)", r"\1\2", response))
    if (found := _requested(text)) is not None:
        return Read(found, 1.0)
    for position, prefix in enumerate(PREFIXES):
        if match := last(re.finditer(prefix, text)):
            answer = _first_answer(text[match.end() :].strip().strip("."), number)
            if answer:
                return Read(answer, 1.0 if position == 0 else 0.5)
    if boxes := list(between(_BOX, _CLOSED, text)):
        return Read(text[boxes[-1].inner : boxes[-1].inner_end], 0.2)
    if number and (numbers := re.findall(NUMBER, text)):
        return Read(numbers[-1], 0.1)
    return Read("", 0.1)  # the last match of the pattern of a line is empty


def _undelimited(text: str) -> str:
    """Remove a last full stop, and in each line the first and the last delimiter of each kind."""
    text = text.removesuffix(".")
    for begin, end in _DELIMITERS:
        text = "\n".join(_without_pair(line, begin, end) for line in text.split("\n"))
    return re.sub(r"\\\[\n(.*)\n\\\]", r"\1", text)


def _without_pair(line: str, begin: str, end: str) -> str:
    first, closing = line.find(begin), line.rfind(end)
    if first < 0 or closing < first + len(begin):
        return line
    return line[:first] + line[first + len(begin) : closing] + line[closing + len(end) :]


def _requested(text: str) -> str | None:
    answer = None
    for line in text.split("\n"):
        _, head, tail = line.partition(FORM)
        if head and "}" in tail:
            answer = tail.rpartition("}")[0]
    return answer or None


def _first_answer(text: str, number: bool) -> str:
    """Read the first match of the answer patterns: a box anywhere, a number at the start, or the first line."""
    if box := next(between(_BOX, _CLOSED, text), None):
        return text[box.inner : box.inner_end] or text[: box.end]
    if number and (match := re.match(NUMBER, text)):
        return match.group()
    return text.partition("\n")[0]
