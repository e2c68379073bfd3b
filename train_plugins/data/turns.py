"""Turns under the names `role` and `content`, whatever a data set calls them. Pure functions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from olmes_suite.errors import nearest
from olmes_suite.training_rows.names import CONVERSATION, SPEAKERS, TOOL_TURNS, turn_keys
from train_plugins.data.tool_calls import calls_of, empty, written

Turn = dict[str, Any]
ROLES = ("system", "user", "assistant", "tool")
SYSTEM = ("system", "system_prompt")
"""Columns with the system prompt of a row."""
THOUGHT_PARTS = ("reasoning", "thinking", "thought", "reasoning_content")
CALL_PARTS = ("tool_calls", "tool_call", "function_call")
"""Types of the parts of a content that hold reasoning and tool calls."""
CALL_FIELDS = ("tool_calls", "function_call", "function_calls")
"""Fields of a turn that hold tool calls."""
CALLERS = frozenset(name for name, role in TOOL_TURNS.items() if role == "assistant")
"""Roles of turns whose content is a tool call."""


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

    Calls that are turns of their own (`function_call`, `tool_call`) become `tool_calls` of an assistant turn. A list
    of texts alternates between user and assistant. Raises ValueError.
    """
    found = listed(value)
    if found is None:
        raise ValueError(f"{column!r} that are not a list of role and content")
    if found and all(isinstance(turn, str) for turn in found):
        return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(found)]
    together: list[Turn] = []
    for place, one in enumerate(found):
        turn, calls = _turn(one, column, place)
        if calls and together and together[-1]["role"] == "assistant" and _adds_nothing(turn, together[-1]):
            together[-1] = {**together[-1], "tool_calls": [*(together[-1].get("tool_calls") or ()), *calls]}
        else:
            together.append({**turn, "tool_calls": calls} if calls else turn)
    return together


def _adds_nothing(turn: Turn, before: Turn) -> bool:
    """Whether a turn says no more than its calls, beside what the turn before it says."""
    return all(empty(value) or value == before.get(name) for name, value in turn.items() if name != "role")


def is_sharegpt(value: Any) -> bool:
    """Whether a column's first turn has ShareGPT's fields `from` and `value`."""
    found = listed(value)
    return bool(found) and turn_keys(found[0]) == ("from", "value") if found else False


def is_llamafactory(value: Any) -> bool:
    """Whether a turn's content is a list of LLaMA-Factory's parts, `{type, value}`."""
    return any(
        isinstance(part, Mapping) and "type" in part and part.get("value") is not None
        for turn in listed(value) or ()
        if isinstance(turn, Mapping) and isinstance(turn.get("content"), list | tuple)
        for part in turn["content"]
    )


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


def _turn(turn: Any, column: str, place: int) -> tuple[Turn, list[Any]]:
    """Return the turn at a place from 0, and the calls that its whole content is if its role says so."""
    if isinstance(turn, Mapping) and "role" in turn and "content" not in turn and _calls(turn):
        turn = {**turn, "content": None}
    keys = turn_keys(turn)
    if keys is None:
        raise ValueError(_lack(turn, column, place))
    said = "" if turn[keys[0]] is None or turn[keys[0]] != turn[keys[0]] else str(turn[keys[0]]).strip()
    if not said:
        raise ValueError(f"a turn without a role ({column}[{place}])")
    folded = said.casefold()
    rest = {key: value for key, value in turn.items() if key not in keys}
    if folded in CALLERS:
        calls = written(calls_of(turn[keys[1]], f"a turn of {said!r} in {column!r}", python=True))
        if not calls:
            raise ValueError(f"a turn of {said!r} in {column!r} without a call")
        return {**rest, "role": "assistant", "content": ""}, calls
    known = folded if folded in ("user", "assistant", "system", "tool") else SPEAKERS.get(folded, said)
    known = TOOL_TURNS.get(folded, known)
    if known == "tool":
        return {**rest, "role": known, "content": _result(turn[keys[1]], column)}, []
    if known not in ROLES:
        what = f"a turn of the unknown role {said[:40]!r} ({column}[{place}])"
        raise ValueError(f"{what}{nearest(folded, ROLES)}; roles: {', '.join(ROLES)}")
    content, more = _content(turn[keys[1]], column)
    if content is None and _calls(rest):
        content = ""
    return {**rest, **more, "role": known, "content": content}, []


def _lack(turn: Any, column: str, place: int) -> str:
    """Say what is missing of a turn."""
    if not isinstance(turn, Mapping) or not turn:
        return f"{column!r} that are not a list of role and content"
    missing = "content" if {"role", "from"} & turn.keys() else "role"
    return f"a turn without a {missing} ({column}[{place}], with the fields {', '.join(map(str, turn))[:80]})"


def _calls(turn: Mapping[str, Any]) -> bool:
    """Whether a turn calls tools, so that it need not have a text."""
    return any(not empty(turn.get(name)) for name in CALL_FIELDS)


def _result(value: Any, column: str) -> Any:
    """Return the text of a tool's result; one that is not text is written as JSON."""
    if isinstance(value, list | tuple) and value and all(isinstance(p, Mapping) and "type" in p for p in value):
        return _content(value, column)[0]
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple | Mapping) else value


def _content(value: Any, column: str) -> tuple[Any, dict[str, Any]]:
    """Join content that comes in parts of text, and return the fields that its other parts are.

    Content that is neither text nor parts is left to the caller's checks. Raises ValueError.
    """
    if not isinstance(value, list | tuple):
        return value, {}
    said: dict[str, list[str]] = {"text": [], "reasoning_content": []}
    fields: dict[str, Any] = {}
    for part in value:
        kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
        piece = part if isinstance(part, str) else _piece(part, kind) if isinstance(part, Mapping) else None
        if kind in CALL_PARTS:
            fields["tool_calls"] = [
                *fields.get("tool_calls", ()),
                *written(calls_of(piece, f"a part {kind!r} in {column!r}", python=True)),
            ]  # fmt: skip
        elif kind == "tools":
            fields["tools"] = piece
        elif kind != "text" and kind not in THOUGHT_PARTS:
            raise ValueError(f"a part of type {kind!r} in {column!r}: only text is trained on")
        elif not isinstance(piece, str):
            raise ValueError(f"{column!r} with a content that is not text")
        else:
            said["text" if kind == "text" else "reasoning_content"].append(piece)
    if said["reasoning_content"]:
        fields["reasoning_content"] = "".join(said["reasoning_content"])
    return "".join(said["text"]), fields


def _piece(part: Mapping[str, Any], kind: str) -> Any:
    return next((part[key] for key in ("text", "value", kind) if part.get(key) is not None), None)
