"""Tools and tool calls in the forms that data sets have them, as plain Python objects. Pure functions.

Nothing here goes through Arrow: its structs give every call the keys of all others, with nulls that a chat template
would render.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from typing import Any

Tool = dict[str, Any]
Call = dict[str, Any]
_BLOCK = re.compile(r"<tools>(.*?)</tools>", re.DOTALL)
_CALL = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
_RESULT = re.compile(r"<tool_response>\s*(.*?)\s*</tool_response>", re.DOTALL)
_TYPES = {
    "str": "string", "int": "integer", "float": "number", "bool": "boolean", "list": "array", "dict": "object",
    "tuple": "array", "set": "array", "any": None,
}  # fmt: skip
"""Names of Python's types in xLAM's descriptions of parameters, as JSON schema spells them."""


def empty(value: Any) -> bool:
    """Whether a value says nothing: null, NaN, an empty text or collection, or one written as JSON."""
    if isinstance(value, str):
        return value.strip() in ("", "[]", "{}", "null")
    if value is None or (isinstance(value, float) and value != value):
        return True
    return isinstance(value, list | tuple | Mapping) and len(value) == 0


def without_nulls(value: Any) -> Any:
    """Return a value without the null fields of its mappings, which Arrow adds to give all rows the same fields."""
    if isinstance(value, Mapping):
        return {key: without_nulls(one) for key, one in value.items() if one is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list | tuple) else value


def parsed(value: Any, what: str) -> Any:
    """Return a value, or what a text says as JSON; nulls written in a text are meant and stay.

    Raises ValueError for a text that is not JSON.
    """
    if not isinstance(value, str):
        return without_nulls(value)
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} that is not JSON ({error})") from None


def tools_of(value: Any, what: str) -> list[Tool]:
    """Return the tools of a row as `{"type": "function", "function": {…}}`; an empty list for none.

    The value is a list, a single tool, or JSON of either. Raises ValueError.
    """
    if empty(value):
        return []
    found = parsed(value, what)
    tools = [parsed(one, what) for one in (found if isinstance(found, list) else [found]) if not empty(one)]
    return [_tool(one, what) for one in tools]


def _tool(value: Any, what: str) -> Tool:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str):
        raise ValueError(f"{what} with {json.dumps(value, default=str):.40}, which is no tool with a name")
    return dict(value) if inner is not value else {"type": "function", "function": dict(value)}


def with_schema(tool: Tool) -> Tool:
    """Return a tool of the xLAM form with its flat list of parameters as a JSON schema."""
    function = tool["function"]
    flat = function.get("parameters")
    if not isinstance(flat, Mapping) or "properties" in flat or not all(isinstance(v, Mapping) for v in flat.values()):
        return tool
    properties, required = {}, []
    for name, about in flat.items():
        kind, _, rest = str(about.get("type", "")).partition(",")
        schema = {key: one for key, one in about.items() if key not in ("required", "type")}
        base = kind.strip().partition("[")[0].casefold()
        named = _TYPES.get(base, kind.strip())
        properties[name] = {**({"type": named} if named else {}), **schema}
        needed = about.get("required")
        if needed is True or (needed is None and "optional" not in rest and "default" not in about):
            required.append(name)
    schema = {"type": "object", "properties": properties, **({"required": required} if required else {})}
    return {**tool, "function": {**function, "parameters": schema}}


def calls_of(value: Any, what: str, python: bool = False) -> list[Call]:
    """Return tool calls as `{"type": "function", "function": {"name", "arguments": {…}}}`; an empty list for none.

    The value is a list, a single call, or JSON of either; the arguments are a mapping or JSON of one. `python`: a text
    may also be a Python literal, as in Hermes' and Toucan's data. Raises ValueError.
    """
    if empty(value):
        return []
    found = _literal(value, what) if python and isinstance(value, str) else parsed(value, what)
    calls = found if isinstance(found, list | tuple) else [found]
    return [_call(parsed(one, what), what) for one in calls]


def _call(value: Any, what: str) -> Call:
    inner = value.get("function", value) if isinstance(value, Mapping) else None
    if not isinstance(inner, Mapping) or not isinstance(inner.get("name"), str) or not inner["name"]:
        raise ValueError(f"{what} with {json.dumps(value, default=str):.40}, which is no call with a name")
    name = inner["name"]
    given = inner.get("arguments", inner.get("parameters"))
    arguments = {} if empty(given) else parsed(given, f"{what} with arguments of {name!r}")
    if not isinstance(arguments, Mapping):
        raise ValueError(f"{what} with arguments of {name!r} that are not a JSON object")
    number = {"id": value["id"]} if isinstance(value.get("id"), str) and value["id"] else {}
    return {**number, "type": "function", "function": {"name": name, "arguments": dict(arguments)}}


def _literal(text: str, what: str) -> Any:
    """Return what a text says as JSON or as a Python literal. Raises ValueError."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        try:
            return ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            raise ValueError(f"{what} that is not JSON ({error})") from None


def is_hermes(turns: list[dict[str, Any]], tools: Any) -> bool:
    """Whether the calls of a conversation stand in its text, between `<tool_call>` and `</tool_call>`."""
    system = turns[0]["content"] if turns and turns[0]["role"] == "system" else ""
    if empty(tools) and not _BLOCK.search(str(system)):
        return False
    return any(turn["role"] == "assistant" and _CALL.search(str(turn["content"])) for turn in turns) or (
        "<tool_call>" in str(system) and bool(_BLOCK.search(str(system)))
    )


def from_hermes(turns: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Tool]]:
    """Return the turns with their calls and results as fields, and the tools that the system turn lists.

    A system turn that explains the form of a call is left out: the chat template writes its own. Raises ValueError.
    """
    found: list[dict[str, Any]] = []
    tools: list[Tool] = []
    for turn in turns:
        said = turn["content"]
        if turn["role"] == "system" and (block := _BLOCK.search(said)):
            tools = tools_of(_literal(block[1], "'<tools>'"), "'<tools>'")
            rest = (said[: block.start()] + said[block.end() :]).strip()
            found += [{**turn, "content": rest}] if rest and "<tool_call>" not in rest else []
        elif turn["role"] == "assistant" and _CALL.search(said):
            calls = [call for one in _CALL.findall(said) for call in calls_of(one, "a '<tool_call>'", python=True)]
            if said.count("<tool_call>") != len(_CALL.findall(said)):
                raise ValueError("a '<tool_call>' that is not closed")
            found.append({**turn, "content": _CALL.sub("", said).strip(), "tool_calls": calls})
        elif turn["role"] == "tool" and (results := _RESULT.findall(said)):
            found += [{**turn, "content": one} for one in results]
        else:
            found.append(turn)
    return found, tools
