"""Parsing of a server's error messages: which field of a request, or which token limit, it rejects. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from olmes_suite.records import OPTIONAL

TO_CONTEXT = 100_000
"""A larger token limit means all that the context leaves, as in the OLMES reference."""
MOST_SENT = 1_000_000
"""The largest token limit that is sent: some servers overflow at larger numbers."""
FIELDS = ("temperature", "top_p", *OPTIONAL, "chat_template_kwargs", "reasoning_effort", "add_generation_prompt",
    "continue_final_message")  # fmt: skip
"""Fields that servers refuse, under names that no sentence has by chance."""
WORDS = ("stop", "seed")
"""Fields whose names are also words."""
REFUSES = re.compile(
    r"unsupport|(?:not|n't|no longer) (?:\w+ )?(?:support|permit|allow|accept|available|implement|recogni|use)"
    r"|unrecogni|unknown|unexpected|\bextra|only the default|invalid|deprecat|forbid|disallow|must |should "
    r"|cannot|can.t|incompatib|at most|too (?:many|long|large|small)|range|less than|greater than|between|exceed"
    r"|may only|fixed (?:at|to)|disabled|maximum",
    re.IGNORECASE,
)
ONLY_DEFAULT = re.compile(
    r"only (?:the )?default(?: value)?\s*(?:\(([\d.]+)\)|of ([\d.]+)|is ([\d.]+)|([\d.]+))"
    r"|only (?:supports? )?([\d.]+) is|(?:only be set|fixed) (?:at|to) ([\d.]+)",
    re.IGNORECASE,
)
LIMIT_NAMES = re.compile(
    r"max_?(?:completion_|new_|output_|gen_)?tok(?:en)?s|max_length|maxOutputTokens|token limit|context|\btokens\b",
    re.IGNORECASE,
)
"""What a refusal of the token limit is about."""
NUMBER = r"(\d{1,3}(?:[,_]\d{3})+(?!\d)|\d+k?(?![\w]))"
APART, ALONE = r"(?<![\w.,:-])", r"(?![\w-]|[.,]\d)"
"""What stands around a number that is not part of a name, a version or a date."""
EXCLUSIVE = (rf"(?:(?<!or )less than|smaller than|below|<)\s*:?\s*{NUMBER}(?!>)", rf"{NUMBER}\s*\(exclusive\)")
"""Phrases that name the first limit that is too large."""
BOUNDS = (
    rf"(?:<=|≤|less than or equal to|not? (?:be )?(?:more|larger|greater) than|at most|not exceed|up to)"
    rf"\s*:?\s*{NUMBER}",
    rf"[\[(]\s*\d+\s*(?:,|-|–|\.\.\.?|to)\s*{NUMBER}\s*[\])]",
    rf"between\s+\d+\s+and\s+{NUMBER}",
    rf">\s*{NUMBER}",
    rf"{APART}\d+\s*(?:-|–|to)\s*{NUMBER}{ALONE}",
    rf"(?:limit|maximum|max|largest)\b[^.;\d]{{0,60}}?{APART}{NUMBER}{ALONE}",
)
"""Phrases that name a bound, the most certain first."""
PLAIN = re.compile(f"{APART}{NUMBER}{ALONE}")
OF_CONTEXT = re.compile(
    r"context (?:length|window|size|limit)|model length|(?:prompt|input)s?`? (?:tokens )?\+|\+ `?max_\w*tokens",
    re.IGNORECASE,
)
"""What a refusal of prompt and answer together is about."""
REQUIRED = re.compile(r"required|missing|must (?:be )?(?:provided|specified|set|give)|is needed", re.IGNORECASE)


def token_cap(reason: str, sent: int) -> int | None:
    """Return the largest token limit that a refusal of `sent` allows; None for another refusal."""
    if not LIMIT_NAMES.search(reason):
        return None
    for pattern in (*EXCLUSIVE, *BOUNDS):
        above = int(pattern in EXCLUSIVE)
        numbers = [_int(match[1]) - above for match in re.finditer(pattern, reason, re.IGNORECASE)]
        if found := [number for number in numbers if 0 < number < sent]:
            return max(found)
        if above and sent in numbers:  # the bound is kept, and the refusal has another reason
            return None
    numbers = [number for match in PLAIN.finditer(reason) if 0 < (number := _int(match[1])) < sent]
    return max(numbers, default=None)


def wants_limit(reason: str) -> bool:
    """Return whether a refusal asks for the token limit that the request lacks."""
    return bool(re.search(r"max_?(?:\w+_)?tokens", reason, re.IGNORECASE) and REQUIRED.search(reason))


def refused_field(reason: str, param: str | None, body: Mapping[str, Any]) -> str | None:
    """Return the field of a body that a server refuses; None for a refusal for another reason.

    `param` is the field that the server names apart from the message, as OpenAI's do.
    """
    if param in body and param in (*FIELDS, *WORDS):
        return param
    if not REFUSES.search(reason):
        return None
    places: dict[int, str] = {}
    for name in (*FIELDS, *WORDS):
        if name in body and (match := _mention(name).search(reason)):
            places[match.end()] = name
    return places[min(places)] if places else None


def _mention(name: str) -> re.Pattern[str]:
    if name not in WORDS:
        return re.compile(rf"(?<!\w){name}(?!\w)")
    also = r"|\bstop[ _](?:sequence|word|string)s?\b" if name == "stop" else ""
    # 'stop', body.stop, parameter stop, "stop is not supported", stop: extra inputs, not permitted: user, stop
    return re.compile(
        rf"""["'`]{name}["'`]|\bbody\.{name}\b|(?:parameters?|arguments?|fields?|propert(?:y|ies)|options?|keys?|supplied)"""
        rf"""\s*:?\s+{name}\b|\b{name}\s*(?::|="""
        r"""|(?:parameters?\s*)?(?:(?:is|are|has been)\s+(?:not|disabled)|must|may)\b)"""
        rf"""|supports?\s+(?:the\s+)?{name}\b|:\s*(?:\w+,\s*)*{name}\b{also}""",
        re.IGNORECASE,
    )


def default_of(reason: str) -> float | None:
    """Return the only value that a server allows for a field, where a refusal names it."""
    match = ONLY_DEFAULT.search(reason)
    value = next((group for group in match.groups() if group), None) if match else None
    try:
        return None if value is None else float(value.rstrip("."))
    except ValueError:
        return None


def needed(field: str, value: Any, reason: str) -> bool:
    """Return whether the answers depend on a refused field. Stop strings are applied here, and seeds are a request."""
    if field in WORDS:
        return False
    if field in ("temperature", "top_p"):
        return not (value == default_of(reason) or (field == "top_p" and value == 1))
    return True


def advice(field: str, value: Any) -> str:
    """Return what a user can do about a refused field."""
    if field in ("temperature", "top_p", *OPTIONAL):
        return f"{field}={value:g} is refused: --gen-kwargs {field}=default leaves it to the server"
    if field in ("chat_template_kwargs", "reasoning_effort"):
        return "--chat-template-args is refused: leave it out"
    return f"{field} is refused, which continues an assistant prefix: --prefill drop leaves the prefix out"


def _int(text: str) -> int:
    text = text.lower().replace(",", "").replace("_", "")
    return int(text.removesuffix("k")) * (1000 if text.endswith("k") else 1)
