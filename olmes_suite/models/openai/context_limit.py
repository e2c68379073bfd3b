"""A server refuses a request as longer than its context: what its words tell, and what to send instead."""

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
"""Where a refusal names the model's context, and the prompt's tokens: the words of OpenAI, vLLM and SGLang."""
UNCOUNTED = re.compile(r"contains at least \d+|contains \d+ characters|cannot be greater than max_model_len=\d*")
"""vLLM cuts a prompt one token beyond what it takes, or looks at its characters only, or not at all: its length is
not in these words."""


@dataclass(frozen=True, slots=True)
class Room:
    """What a request is sent with: its own token limit and whole prompt, unless said otherwise."""

    max_tokens: int | None = None
    kept: int | None = None
    """Tokens of the prompt that are kept, the last ones."""
    context: int | None = None
    """Of the model, where one token is asked for only to learn how long the prompt is."""

    @property
    def fields(self) -> dict[str, int | str]:
        """Of the body. Cutting the prompt is vLLM's; an older one knows no side and cuts on the left too."""
        found: dict[str, int | str] = {} if self.max_tokens is None else {"max_tokens": self.max_tokens}
        return found | cut(self.kept)


def cut(kept: int | None) -> dict[str, int | str]:
    """The fields that cut a prompt on the left to so many tokens; none for None."""
    return {} if kept is None else {"truncate_prompt_tokens": kept, "truncation_side": "left"}


def context_in(reason: str) -> int | None:
    """The context that a refusal names; None where it is not about the prompt's length."""
    return _number(CONTEXT, reason) if PROMPT.search(reason) or UNCOUNTED.search(reason) else None


def other_room(reason: str, max_tokens: int, sent: Room) -> Room | None:
    """What to send after a refusal of what was sent; None where nothing else is left to try, or for other reasons."""
    context, prompt = context_in(reason), _number(PROMPT, reason)
    if context is None or sent.kept is not None:
        return None
    if not UNCOUNTED.search(reason) and prompt is not None:
        found = fitted(prompt, max_tokens, context)
        return None if found in (sent, Room(max_tokens)) else found
    if (sent.max_tokens or max_tokens) > 1:
        return Room(1, context=context)
    return fitted(context, max_tokens, context)  # not one token had room


def fitted(prompt: int, max_tokens: int, context: int) -> Room:
    """The rule of all backends (`fit`) for a prompt of so many tokens."""
    kept, room = fit(prompt, max_tokens, context)
    return Room(room, kept if kept < prompt else None)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return next((int(group) for group in found.groups() if group), None) if found else None
