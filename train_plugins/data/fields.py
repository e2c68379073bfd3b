"""What turns and rows say beyond role and content: reasoning, tool calls, tools, weights, template arguments.

A table of rows holds role and content alone. Everything else is JSON text in its column `fields`, because Arrow's
structs would give all tool calls the same arguments, with nulls that are then trained on. Pure functions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from olmes_suite.records import Message
from train_plugins.data.tool_calls import Tool, calls_of, empty, parsed, tools_of

Row = Mapping[str, Any]
REASONING = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts", "reasoning_details")
CALLS = ("tool_calls", "tool_call_id", "function_call", "function_calls")
TOOLS = ("tools", "functions")
"""Columns of a row, or fields of a turn, with the tools that its prompt offers."""
TOOL_COLUMNS = (*TOOLS, "available_tools")
KWARGS = "chat_template_kwargs"
MEDIA = ("images", "image", "videos", "video", "audios", "audio")
"""Columns of a row, or fields of a turn, with what is not text."""
RENDERED = (*REASONING, *CALLS, *TOOLS, *MEDIA)
"""Fields of a turn that chat templates render besides role and content."""
WEIGHTS = ("weight", "loss_weight", "train", "trainable", "loss", "loss_mask")
"""Fields that say whether, or how much, a turn is trained on."""
EMPTY: tuple[Any, ...] = (None, [], {}, "", "[]", "{}", "null")
TRAINED = "trained"
"""Key of a turn in this module's form: whether it is trained on, where that is not its role's default."""
EXTRA = "fields"
"""Column of a table of rows with what its turns and rows say beyond role and content."""
NEUTRAL = "neutral"
"""Key in `fields`: whether control tokens in the row's texts are encoded as plain text."""
PASSED = frozenset(
    ("messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "tokenize",
     "continue_final_message", "return_dict", "return_tensors", "return_assistant_tokens_mask", "padding",
     "truncation", "max_length", "tokenizer_kwargs", "sanitize_control_tokens")
)  # fmt: skip
"""Arguments of `apply_chat_template` that are not the chat template's."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns as a chat template reads them, with what else it is given."""

    messages: list[dict[str, Any]]
    tools: list[Tool] | None = None
    kwargs: Mapping[str, Any] | None = None
    untrained: frozenset[int] = frozenset()
    """Positions of the assistant turns that are not trained on."""
    neutral: bool = False
    """Whether control tokens in the texts are encoded as plain text."""


def holds(value: Any) -> bool:
    """Return whether a value says anything; a list of nulls, as tables have them, does not."""
    if isinstance(value, list | tuple):
        return any(holds(one) for one in value)
    return not (value in EMPTY or (isinstance(value, float) and value != value))


def said(value: Any, column: str) -> list[Message]:
    """Return role and content of a column's turns. Raises ValueError if the column holds anything else."""
    if value is None or (not isinstance(value, str) and len(value) == 0):
        raise ValueError(f"no {column!r}")
    try:
        turns = [{"role": str(turn["role"]), "content": turn["content"]} for turn in value]
    except (TypeError, KeyError):
        raise ValueError(f"{column!r} that are not a list of role and content") from None
    wrong = next((place for place, turn in enumerate(turns) if not isinstance(turn["content"], str)), None)
    if wrong is not None:
        raise ValueError(f"{column!r} with a content that is not text ({column}[{wrong}])")
    return turns


def rich_turns(value: Any, column: str) -> tuple[list[dict[str, Any]], list[Tool]]:
    """Return the turns with their reasoning, calls and weights under the usual names, and the tools that they list.

    Raises ValueError.
    """
    turns = [*said(value, column)]
    tools: list[Tool] = []
    found: list[dict[str, Any]] = []
    for turn, whole in zip(turns, value, strict=True):
        own = turn["role"] == "assistant"
        more = _reasoning(whole, column, own) | _calls(whole, column, own) | _result(whole, column)
        for name in (*MEDIA, "reasoning_details"):
            if holds(whole.get(name)):
                raise ValueError(f"a turn in {column!r} with {name!r}, which is not trained on; remove the field")
        for name in TOOLS:
            if not empty(whole.get(name)):
                tools += tools_of(whole[name], f"{name!r} of a turn in {column!r}")
        if not weight_of(whole, column):
            more[TRAINED] = False
        found.append({**turn, **more})
    return found, tools


def _reasoning(turn: Row, column: str, own: bool) -> dict[str, Any]:
    """Return the turn's reasoning. Raises ValueError for two different ones, or one of another role."""
    named = {name: turn[name] for name in REASONING[:-1] if holds(turn.get(name))}
    if not named:
        return {}
    name, thought = next(iter(named.items()))
    if not own:
        raise ValueError(f"a turn in {column!r} with {name!r}, which only assistant turns have")
    if isinstance(thought, list | tuple) and all(isinstance(one, str) for one in thought):
        thought = "".join(thought)
    if not isinstance(thought, str):
        raise ValueError(f"a turn in {column!r} with {name!r} that is not text")
    if any(other != named[name] for other in named.values()):
        raise ValueError(f"a turn in {column!r} with different texts in {' and '.join(map(repr, named))}")
    return {"reasoning_content": thought} if thought.strip() else {}


def _calls(turn: Row, column: str, own: bool) -> dict[str, Any]:
    """Return the turn's tool calls. Raises ValueError for calls of another role, or in two fields."""
    named = [name for name in ("tool_calls", "function_call", "function_calls") if holds(turn.get(name))]
    if not named:
        return {}
    if not own:
        raise ValueError(f"a turn in {column!r} with {named[0]!r}, which only assistant turns have")
    if len(named) > 1:
        raise ValueError(f"a turn in {column!r} with both {named[0]!r} and {named[1]!r}")
    value = turn[named[0]]
    if named[0] == "function_calls" and isinstance(value, str) and value.lstrip()[:1] not in ("[", "{"):
        return {"function_calls": value}  # calls as program text, which only templates that read this field render
    return {"tool_calls": calls_of(value, f"{named[0]!r} of a turn in {column!r}")}


def _result(turn: Row, column: str) -> dict[str, Any]:
    """Return what a tool's result says of its call."""
    if turn["role"] != "tool":
        return {}
    return {name: turn[name] for name in ("name", "tool_call_id") if isinstance(turn.get(name), str) and turn[name]}


def weight_of(turn: Row, column: str) -> bool:
    """Return whether a turn is trained on: an assistant's unless its weight is 0, and no other.

    OpenAI's `weight` is defined for assistant turns alone, so its value elsewhere says nothing. Raises ValueError for
    other weights than 0 and 1, and for a user's turn that is to be trained on.
    """
    own = turn["role"] == "assistant"
    trained = own
    for name in WEIGHTS:
        value = turn.get(name)
        if value is None or value != value or (not own and (value == 0 or (name == "weight" and value == 1))):
            continue
        if not own:
            raise ValueError(f"a turn in {column!r} with {name!r} {value!r:.20}: only assistant turns are trained on")
        if isinstance(value, str) or value not in (0, 1):
            raise ValueError(f"a turn in {column!r} with {name!r} {value!r:.20}: a turn weighs 0 or 1 here")
        trained = trained and value == 1
    return trained or not own


def without_weight(turn: dict[str, Any]) -> dict[str, Any]:
    """Return a turn without the key that says whether it is trained on."""
    return {name: value for name, value in turn.items() if name != TRAINED}


def plain(turns: Iterable[Mapping[str, Any]]) -> list[Message]:
    """Return role and content of the turns."""
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def tools_of_row(row: Row, of_turns: list[Tool]) -> list[Tool]:
    """Return the tools of a row, from its columns or its turns. Raises ValueError for different ones."""
    found = [*of_turns]
    for column in TOOL_COLUMNS:
        tools = tools_of(row.get(column), repr(column)) if holds(row.get(column)) else []
        if tools and found and tools != found:
            raise ValueError(f"a column {column!r} beside other tools")
        found = tools or found
    return found


def kwargs_of_row(row: Row) -> dict[str, Any]:
    """Return a row's arguments of the chat template. Raises ValueError for what is no mapping of names to values."""
    given = row.get(KWARGS)
    if empty(given):
        return {}
    found = parsed(given, repr(KWARGS))
    if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
        raise ValueError(f"{KWARGS!r} that are not a JSON object")
    if wrong := sorted(PASSED & found.keys()):
        raise ValueError(f"{KWARGS!r} with {wrong[0]!r}, which is not the chat template's")
    return dict(found)


def extra(columns: Mapping[str, list[dict[str, Any]]], tools: list[Tool], kwargs: Mapping[str, Any]) -> str:
    """Return what the turns in these columns and the row say beyond role and content, as JSON; "" for nothing."""
    turns = {
        column: [{key: value for key, value in turn.items() if key not in ("role", "content")} for turn in found]
        for column, found in columns.items()
    }
    whole: dict[str, Any] = {"turns": turns} if any(any(found) for found in turns.values()) else {}
    whole |= {"tools": tools} if tools else {}
    whole |= {"kwargs": dict(kwargs)} if kwargs else {}
    return json.dumps(whole, ensure_ascii=False) if whole else ""


def read(row: Row, column: str = "messages") -> Conversation:
    """Return the conversation in a column of a table's row, with what its column `fields` adds."""
    messages = [dict(turn) for turn in row[column]]
    more = json.loads(row[EXTRA]) if row.get(EXTRA) else {}
    for turn, added in zip(messages, more.get("turns", {}).get(column, ()), strict=False):
        turn.update(added)
    untrained = {place for place, turn in enumerate(messages) if not turn.pop(TRAINED, True)}
    answers = [place for place, turn in enumerate(messages) if turn["role"] == "assistant"]
    untrained |= set(answers[: row.get("prompt_turns") or 0])
    return Conversation(messages, more.get("tools"), more.get("kwargs"), frozenset(untrained), bool(more.get(NEUTRAL)))
