r"""Reading final answers as a careful reader does, for the repaired variants of tasks: the last box with its braces
paired, otherwise the last statement of an answer, otherwise the last number."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

from olmes_suite.scoring.cascade import last

_STATEMENT = re.compile(r"(?i)\banswer\s*(?:is|:|=)[\s:*_]*([^\n]*)")
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
    """Return the last box, otherwise what follows the last "answer is", otherwise the last number; "" without one."""
    if (box := boxed(text)) is not None and box.strip():
        return box.strip()
    if (match := last(_STATEMENT.finditer(text))) and match.group(1).strip():
        return match.group(1).strip().rstrip(".*$ ")
    match = last(_NUMBER.finditer(text))
    return match.group() if match else ""


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
