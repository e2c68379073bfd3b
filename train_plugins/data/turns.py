"""Turns under the names `role` and `content`, whatever a data set calls them. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from olmes_suite.training_rows.names import CONVERSATION, SPEAKERS, TOOL_TURNS, turn_keys

Turn = dict[str, Any]
SYSTEM = ("system", "system_prompt")
"""Columns with the system prompt of a row."""


def text(value: Any) -> str | None:
    """Return a text that is not empty; None for a null, and for the NaN that pandas writes for one.

    Raises ValueError for any other value.
    """
    if value is None or (isinstance(value, float) and value != value):
        return None
    if not isinstance(value, str):
        raise ValueError(f"{type(value).__name__} instead of text")
    return value if value.strip() else None


def listed(value: Any) -> list[Any] | None:
    """Return a list, also one written as JSON or a single turn; None for anything else."""
    if isinstance(value, str) and value.lstrip()[:1] == "[":
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, Mapping):
        return [dict(value)] if turn_keys(dict(value)) else None
    return list(value) if isinstance(value, list | tuple) else None


def turns(value: Any, column: str) -> list[Turn]:
    """Return a column's turns with a role and a text as content; their other fields stay.

    A list of texts alternates between user and assistant. Raises ValueError.
    """
    found = listed(value)
    if found is None:
        raise ValueError(f"{column!r} that are not a list of role and content")
    if found and all(isinstance(turn, str) for turn in found):
        return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(found)]
    return [_turn(turn, column) for turn in found]


def is_sharegpt(value: Any) -> bool:
    """Whether a column's first turn has ShareGPT's fields `from` and `value`."""
    found = listed(value)
    return bool(found) and turn_keys(found[0]) == ("from", "value") if found else False


def conversation_column(row: Mapping[str, Any]) -> str | None:
    """Return the first column that holds a conversation; None if there is none."""
    return next((name for name in CONVERSATION if row.get(name) is not None), None)


def with_system(row: Mapping[str, Any], found: list[Turn]) -> list[Turn]:
    """Put the row's system prompt before the turns. Raises ValueError for a row with two different ones."""
    for name in SYSTEM:
        said = row.get(name)
        if not isinstance(said, str) or not said.strip():
            continue
        if found and found[0]["role"] == "system":
            if found[0]["content"].strip() != said.strip():
                raise ValueError(f"a column {name!r} beside another system turn")
            return found
        return [{"role": "system", "content": said}, *found]
    return found


def _turn(turn: Any, column: str) -> Turn:
    keys = turn_keys(turn)
    if keys is None:
        raise ValueError(f"{column!r} that are not a list of role and content")
    said = str(turn[keys[0]]).strip()
    folded = said.casefold()
    if folded == "tool" or folded in TOOL_TURNS:
        raise ValueError(f"a turn of {said!r} in {column!r}: tool calls and their results are not trained on")
    rest = {key: value for key, value in turn.items() if key not in keys}
    known = folded if folded in ("user", "assistant", "system") else SPEAKERS.get(folded, said)
    return {**rest, "role": known, "content": _content(turn[keys[1]], column)}


def _content(value: Any, column: str) -> Any:
    """Join content that comes in parts of text; other content than text is left to the caller's checks."""
    if not isinstance(value, list | tuple):
        return value
    pieces = []
    for part in value:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        if kind != "text":
            raise ValueError(f"a part of type {kind!r} in {column!r}: only text is trained on")
        piece = part if isinstance(part, str) else next((part[k] for k in ("text", "value") if k in part), None)
        if not isinstance(piece, str):
            raise ValueError(f"{column!r} with a content that is not text")
        pieces.append(piece)
    return "".join(pieces)
