"""Refusals of requests that exceed a server's context: reading the message, and choosing the next request."""

from __future__ import annotations

import re
from dataclasses import dataclass

from olmes_suite.models.base import fit

CONTEXT = re.compile(
    r"(?:context|model) (?:length|window|size) (?:is|of)(?: only)? (\d+)|max_model_len=(?:max_total_tokens=)?(\d+)",
    re.IGNORECASE,
)
PROMPT = re.compile(
    r"(\d+) (?:tokens )?(?:in|from) the (?:messages|prompt|input)"
    r"|(?:has|passed|contains) (\d+) (?:input |prompt )?tokens"
    r"|prompt \(length (\d+)\)",
    re.IGNORECASE,
)
"""CONTEXT, PROMPT: the model's context and the prompt's tokens in the refusals of OpenAI, vLLM and SGLang."""
UNCOUNTED = re.compile(r"contains at least \d+|contains \d+ characters|cannot be greater than max_model_len=\d*")
"""Refusals of vLLM without the prompt's length: it stopped counting one token beyond its limit, counted characters, or
did not count."""


@dataclass(frozen=True, slots=True)
class Room:
    """The changes to a request before it is sent; by default its token limit and prompt stay as they are."""

    max_tokens: int | None = None
    prompt_tokens: int | None = None
    """The number of the prompt's last tokens to which it is cut."""
    context: int | None = None
    """The model's context, where the request only serves to learn the length of the prompt."""

    @property
    def fields(self) -> dict[str, int | str]:
        """The changed fields of the body. Only vLLM can cut prompts; versions without a side also cut on the left."""
        limit: dict[str, int | str] = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        return limit | cut(self.prompt_tokens)


def cut(tokens: int | None) -> dict[str, int | str]:
    """Return the fields that cut a prompt on the left to this number of tokens; none for None."""
    return {} if tokens is None else {"truncate_prompt_tokens": tokens, "truncation_side": "left"}


def context_in(reason: str) -> int | None:
    """Return the context that a refusal names, or None where the reason is not the prompt's length."""
    return _number(CONTEXT, reason) if PROMPT.search(reason) or UNCOUNTED.search(reason) else None


def other_room(reason: str, max_tokens: int, sent: Room) -> Room | None:
    """Choose the changes after a refusal of `sent`. Returns None for other refusals, or after the last change."""
    context, prompt = context_in(reason), _number(PROMPT, reason)
    if context is None or sent.prompt_tokens is not None:
        return None
    if not UNCOUNTED.search(reason) and prompt is not None:
        room = fitted(prompt, max_tokens, context)
        return None if room in (sent, Room(max_tokens)) else room
    if (sent.max_tokens or max_tokens) > 1:
        return Room(1, context=context)
    return fitted(context, max_tokens, context)  # the context had no room for a single token


def fitted(prompt: int, max_tokens: int, context: int) -> Room:
    """Apply the rule of all backends (`fit`) to a prompt of `prompt` tokens."""
    prompt_tokens, answer_tokens = fit(prompt, max_tokens, context)
    return Room(answer_tokens, prompt_tokens if prompt_tokens < prompt else None)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    match = pattern.search(text)
    return next((int(group) for group in match.groups() if group), None) if match else None
