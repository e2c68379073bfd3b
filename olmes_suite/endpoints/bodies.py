"""OpenAI-compatible bodies, as far as judges and candidate models share them: pure functions."""

from __future__ import annotations

import json
from typing import Any


class Malformed(Exception):
    """The server's body is no answer to what was asked; it is asked again."""


def sendable(text: str) -> str:
    """Half a surrogate pair, which a model may have said, is no Unicode: servers refuse it."""
    return text.encode("utf-8", "replace").decode("utf-8")


def messages_of(messages: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    """(role, content) pairs as the chat endpoint takes them."""
    return [{"role": role, "content": sendable(content)} for role, content in messages]


def body_and_choices(raw: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A response's body and its choices, at least one. Raises Malformed."""
    try:
        body = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is no JSON") from error
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Malformed("the body has no choices")
    return body, choices


def text_of(choice: dict[str, Any], chat: bool) -> str:
    """What a choice says; it may be empty, but not missing. Raises Malformed."""
    message = choice.get("message") if chat else None
    text = (message.get("content") if isinstance(message, dict) else None) if chat else choice.get("text")
    if not isinstance(text, str):
        raise Malformed("the choice has no text")
    return text


def count(usage: Any, name: str) -> int:
    """A number of tokens in a body's `usage`; 0 where the server does not tell."""
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else 0
