"""Numbers in answers, by value: signs, thousands separators, decimals, fractions, exponents, currency and percent."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MINUS = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d\u2010\u2011\u2012\u2013", "-"))
"""The minus signs and dashes that stand for a hyphen before a number."""
LONGEST = 400
"""Number of digits, and size of an exponent, up to which numbers are compared."""
_DIGITS = rf"\d{{1,{LONGEST}}}"
_END = r"(?![\d/]|\.\d)"
_NUMBER = re.compile(
    rf"(?P<whole>{_DIGITS}) (?P<above>{_DIGITS})/(?P<below>{_DIGITS}){_END}"
    rf"|(?<![\d/.])(?P<top>{_DIGITS})/(?P<bottom>{_DIGITS}){_END}"
    r"|(?P<plain>(?:\d{1,3}(?:,\d{2,3}){0,40},\d{3}(?!\d)|\d++)(?:\.\d++)?|\.\d++)"
    r"(?P<power>[eE][-+]?\d{1,4}(?!\w|\.\d))?"
)
_CURRENCY = "$€£¥₹"
_SIGN = re.compile(rf"-(?P<gap> ?)\(?(?:[{_CURRENCY}] ?)?$")
_SPELLINGS = (
    (re.compile(r"(?<=\d)\\[dt]?frac\s*(?:\{(\d+)\}\s*\{(\d+)\}|(\d)(\d))"), r" \1\3/\2\4"),
    (re.compile(r"\\[dt]?frac\s*(?:\{(-?\d+)\}\s*\{(\d+)\}|(\d)(\d))"), r"\1\3/\2\4"),
    (re.compile(r"(?<=\d) / (?=\d)"), "/"),
    (re.compile(r"(?<=\d)(?:\{,\}|\\,|,\\!)(?=\d)"), ","),
    (re.compile(r"(?<=\d)[\u00a0\u2009\u202f'\u2019_](?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\([$%])"), r"\1"),
    (re.compile(r"(?<=\d) ?(?:\\times|\\cdot|[\u00d7\u00b7*x]) ?10\^\{?([-+]?\d{1,4})\}?"), r"e\1"),
    (re.compile(r"(?<![\d.,])10\^\{?([-+]?\d{1,4})\}?"), r"1e\1"),
    (re.compile(r"(?<=[a-zA-Z}])\^\{?\d\}?|(?<=\d[mM])[23]\b|(?<=[ckdm]m)[23]\b|(?<=\d m)[23]\b"), ""),
    (re.compile(r"\bnegative (?=[$\u20ac\u00a3]?\d)", re.IGNORECASE), "-"),
    (re.compile(r"(^|[=:(]|\b(?:is|be|equals|to)) ?minus (?=[$\u20ac\u00a3]?\d)", re.IGNORECASE), r"\1 -"),
)
"""LaTeX in numbers, separators, powers of ten, and signs in words. Exponents of units and variables go: in `5 m^2`, the
2 is no answer."""
_VULGAR = re.compile("[\u00bc-\u00be\u2150-\u215e]")


def plain(text: str) -> str:
    """Return the text with numbers in one spelling."""
    text = _VULGAR.sub(lambda match: " " + unicodedata.normalize("NFKC", match[0]).replace("\u2044", "/"), text)
    text = text.translate(MINUS)
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return text


def last_number(text: str, alone: bool = False) -> Fraction | None:
    """Return the value of a text's last number; None if there is none, or it is too long to compare.

    `alone`: the text is an answer and nothing else, so a hyphen at its start is a sign, not a bullet.
    """
    text = plain(text)
    if alone:
        text = "{" + text.lstrip()
    match = None
    for match in _NUMBER.finditer(text):  # noqa: B007 - only the last match is used
        pass
    if match is None or (size := _size(match)) is None:
        return None
    return -size if _is_negative(text[max(match.start() - 9, 0) : match.start()]) else size


def only_number(text: str) -> Fraction | None:
    """Return the value of a text that is one number, perhaps with a currency, a percent sign or a full stop."""
    text = plain(text).strip().removesuffix(".")
    match = _NUMBER.search(text)
    if match is None or text[match.end() :].strip() not in ("", "%", *_CURRENCY):
        return None
    before = re.sub(rf"[ {_CURRENCY}]", "", text[: match.start()])
    size = _size(match) if before in ("", "-", "+") else None
    return -size if size is not None and before == "-" else size


def _size(match: re.Match[str]) -> Fraction | None:
    """Return the number's value without its sign; None for one that cannot be compared."""
    if match["plain"] is None:
        below = int(match["below"] or match["bottom"])
        above = int(match["above"] or match["top"])
        return int(match["whole"] or 0) + Fraction(above, below) if below else None
    digits, power = match["plain"].replace(",", ""), int((match["power"] or "e0")[1:])
    if len(digits) > LONGEST or abs(power) > LONGEST:
        return None
    return Fraction(digits) * Fraction(10) ** power


def _is_negative(before: str) -> bool:
    """Whether the text before a number ends in its sign, not in an operator, a range, a hyphen or a bullet."""
    sign = _SIGN.search(before)
    if sign is None:
        return False
    left = before[: sign.start()]
    if sign["gap"]:  # `= - 5` has a sign; `3 - 5`, `total - 5` and the bullet `- 5` have none
        return left.rstrip().endswith(("=", "(", "{"))
    return not left[-1:].isalnum() and not left.endswith((")", "]", "}", "%", "-"))
