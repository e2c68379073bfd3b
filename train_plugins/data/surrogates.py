"""Halves of surrogate pairs: JSON's escapes can name them and models write them, but no file of text can hold them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_HALVES = re.compile("[\ud800-\udfff]")


def is_unicode(value: Any) -> bool:
    """Whether all text in a value can be written as UTF-8."""
    if isinstance(value, str):
        return value.isascii() or not _HALVES.search(value)
    if isinstance(value, Mapping):
        return all(is_unicode(one) for one in (*value, *value.values()))
    return not isinstance(value, list | tuple) or all(map(is_unicode, value))


def in_unicode(value: Any) -> Any:
    """Return a value with U+FFFD for each half in its text."""
    if isinstance(value, str):
        return _HALVES.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {in_unicode(name): in_unicode(one) for name, one in value.items()}
    return [in_unicode(one) for one in value] if isinstance(value, list | tuple) else value
