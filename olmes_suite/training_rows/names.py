"""Names of columns and roles that training sets use for the same things."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

TURNS = (("role", "content"), ("from", "value"))
"""Field names of a turn: chat messages, and ShareGPT's."""
CONVERSATION = ("messages", "conversations", "conversation")
PAIRS = (("chosen", "rejected"), ("chosen_messages", "rejected_messages"))
PROMPT = ("prompt", "question", "query", "inputs", "problem", "instruction", "user")
RESPONSE = ("response", "completion", "output", "answer", "targets", "solution", "assistant")
SPEAKERS = {
    "human": "user", "prompter": "user", "gpt": "assistant", "chatgpt": "assistant", "bot": "assistant",
    "chatbot": "assistant", "model": "assistant", "ai": "assistant", "bing": "assistant", "bard": "assistant",
    "developer": "system",
}  # fmt: skip
"""Other names of the roles user, assistant and system."""
TOOL_TURNS = {
    "function_call": "assistant", "tool_call": "assistant", "function": "tool", "function_response": "tool",
    "tool_response": "tool", "observation": "tool", "ipython": "tool", "environment": "tool",
}  # fmt: skip
"""Other names of the role tool, and of assistant turns that call a tool."""


def first(columns: Collection[str], names: Iterable[str]) -> str | None:
    """Return the first of `names` that is a column; None if none is."""
    return next((name for name in names if name in columns), None)


def role_of(name: object) -> str:
    """Return the usual name of a turn's role, ignoring case."""
    folded = str(name).strip().casefold()
    return (SPEAKERS | TOOL_TURNS).get(folded, folded)


def turn_keys(turn: Any) -> tuple[str, str] | None:
    """Return the field names of a turn; None for a value that is not a turn."""
    return next((k for k in TURNS if isinstance(turn, dict) and k[0] in turn and k[1] in turn), None)
