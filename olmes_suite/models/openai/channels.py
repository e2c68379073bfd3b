"""Thoughts in a server's answers: in a channel of their own, as parts of the content, or in the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from olmes_suite.thinking import Parts, Thoughts

CHANNELS = ("reasoning_content", "reasoning")
"""Fields of a message in which servers send the thought: DeepSeek, SGLang and vLLM; OpenRouter and newer vLLM."""
THOUGHTS = ("thinking", "reasoning", "reasoning_text", "summary_text")
"""Types of parts that hold a thought."""


def parts_of(message: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the text and the thought of a message, None for what it lacks.

    The content is text or a list of parts with a type each.
    """
    content = message.get("content")
    thought = next((value for name in CHANNELS if isinstance(value := message.get(name), str) and value), None)
    if isinstance(content, str):
        return content, thought
    if not isinstance(content, list):
        return None, thought
    texts: list[str] = []
    thoughts: list[str] = []
    for part in content:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, Mapping):
            (thoughts if part.get("type") in THOUGHTS else texts).extend(_texts(part))
    return ("".join(texts) if texts else None), ("".join(thoughts) or thought)


def _texts(part: Mapping[str, Any]) -> list[str]:
    """Return the texts of a part, which may hold parts itself; refusals, images and calls have none."""
    for name in ("text", "thinking", "reasoning", "content", "summary"):
        value = part.get(name)
        if isinstance(value, str):
            return [value]
        if isinstance(value, list):
            return [text for inner in value if isinstance(inner, Mapping) for text in _texts(inner)]
    return []


def reasoning_tokens(usage: object) -> int | None:
    """Return the number of tokens of thoughts that a body's `usage` reports, None without one."""
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("completion_tokens_details")
    tokens = (details if isinstance(details, Mapping) else usage).get("reasoning_tokens")  # SGLang has no details
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None


def read(content: str | None, thinking: str | None, reading: Thoughts | None, *, auto: bool, full: bool) -> Parts:
    """Return the parts of an answer. `content` is None where there is only a thought.

    The server's chat template is not known. Where the user names a reader, an answer without marks that ended at the
    token limit (`full`) is a thought that the template opened.
    """
    if reading is None:
        return Parts(content or "")
    if thinking is not None:
        return reading.read_channel(content, thinking)
    opened = True if full and not auto and reading.reader.template_opens is None else None
    return reading.read(content or "", opened=opened, closed_only=auto)


def thinking_tokens(parts: Parts, tokens: int, reported: int | None, text: str) -> int | None:
    """Return the tokens of the thought: as reported, else the share of its characters of all `tokens`.

    An unclosed thought has them all. `text` is the content that the server sent. Without a thought the result is None.
    """
    if parts.thinking is None:
        return None
    if parts.unclosed:
        return tokens
    if reported is not None and (reported or not parts.thinking):
        return min(reported, tokens)
    if parts.thinking in text:  # thought, marks and answer in one text
        thought, whole = len(text) - len(parts.answer), len(text)
    else:
        thought, whole = len(parts.thinking), len(parts.thinking) + len(parts.answer)
    return min(tokens, round(tokens * thought / whole)) if whole else 0
