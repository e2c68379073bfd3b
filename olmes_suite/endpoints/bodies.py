"""Pure functions for the OpenAI-compatible bodies that judges and candidate models share."""

from __future__ import annotations

import json
from typing import Any


class Malformed(Exception):
    """The body of a response is not an answer to the request. The request is sent again."""


def sendable(text: str) -> str:
    """Replace lone surrogates, which a model may generate: they are not valid Unicode, and servers refuse them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def messages_of(messages: tuple[tuple[str, str], ...]) -> list[dict[str, str]]:
    """Convert (role, content) pairs to the form of the chat endpoint."""
    return [{"role": role, "content": sendable(content)} for role, content in messages]


def body_and_choices(raw: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Parse the body of a response and return it with its choices, at least one. Raises Malformed."""
    try:
        body = json.loads(raw.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError) as error:
        raise Malformed("the body is not JSON") from error
    choices = body.get("choices") if isinstance(body, dict) else None
    if not isinstance(choices, list) or not choices or not all(isinstance(choice, dict) for choice in choices):
        raise Malformed("the body has no choices")
    return body, choices


def text_of(choice: dict[str, Any], chat: bool) -> str:
    """Return the text of a choice, which may be empty but not missing. Raises Malformed."""
    message = choice.get("message") if chat else None
    text = (message.get("content") if isinstance(message, dict) else None) if chat else choice.get("text")
    if not isinstance(text, str):
        raise Malformed("the choice has no text")
    return text


def count(usage: object, name: str) -> int:
    """Return a number of tokens from a body's `usage`, 0 where the server does not report it."""
    tokens = usage.get(name) if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else 0
