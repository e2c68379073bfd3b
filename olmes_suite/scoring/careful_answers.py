r"""Reading final answers as a careful reader does, for the repaired variants of tasks: the last box with its braces
paired, otherwise the last statement of an answer, otherwise the last number."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from olmes_suite.scoring.cascade import last

_STATEMENT = re.compile(r"(?i)\banswer\s*(?:is|:|=)[\s:*_]*")
_REMARK = re.compile(r"(?i)[.,;]?\s*(?:I hope|\(see\b|for sure)|[.;,]\s")
_FORMULA = re.compile(r"\$([^$\n]+)\$|\\\(([^\n]+?)\\\)|\\\[([^\n]+?)\\\]")
_NUMBER = re.compile(r"[-−+]?(?:\d[\d,]*)?\.?\d+(?:/\d+)?")
_DRESS = re.compile(r"\\(?:text|mathrm|textbf|mathbf|,|;|!|left|right)|[$*_`{}\s\\%€£]|(?<=\d),(?=\d{3})")


def boxed(text: str) -> str | None:
    r"""Return the content of the last `\boxed{…}` whose braces are paired; None without one."""
    start = len(text)
    while (start := text.rfind("\\boxed{", 0, start)) >= 0:
        depth, begin = 0, start + len("\\boxed")
        for place in range(begin, len(text)):
            depth += {"{": 1, "}": -1}.get(text[place], 0)
            if depth == 0:
                return text[begin + 1 : place]
        text = text[:start]
    return None


def stated_answer(text: str) -> str:
    """Return the answer that a response states; "" without one.

    The box of the last statement "answer is …", otherwise the last box, otherwise the last statement's text up to the
    end of its sentence, otherwise the last formula, otherwise the last number.
    """
    statement = last(_STATEMENT.finditer(text))
    stated = text[statement.end() :].partition("\n")[0] if statement else ""
    for part in (stated, text):
        if (box := boxed(part)) is not None and box.strip():
            return box.strip()
    if stated.strip():
        return _first_formula(stated) or _REMARK.split(stated)[0].strip().strip("*_$").rstrip(".")
    if formula := last(_FORMULA.finditer(text)):
        return next(group for group in formula.groups() if group).strip()
    match = last(_NUMBER.finditer(text))
    return match.group() if match else ""


def _first_formula(text: str) -> str:
    match = _FORMULA.match(text.strip())
    return next(group for group in match.groups() if group).strip() if match else ""


def same_number(answer: str, gold: str) -> bool:
    """Return whether the first number of the answer is the gold's, with its sign."""
    found, right = _number(answer), _number(gold)
    return found is not None and found == right


def _number(text: str) -> Decimal | None:
    match = _NUMBER.search(text.replace("−", "-").replace("{,}", ","))
    if match is None:
        return None
    numerator, _, denominator = match.group().replace(",", "").partition("/")
    try:
        return Decimal(numerator) / Decimal(denominator or 1)
    except (InvalidOperation, ZeroDivisionError):
        return None


def same_text(answer: str, gold: str) -> bool:
    """Return whether two answers are equal without regard to case, white space, bold type and LaTeX dress."""
    return _plain(answer) == _plain(gold)


def _plain(text: str) -> str:
    return _DRESS.sub("", text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")).lower().rstrip(".")
