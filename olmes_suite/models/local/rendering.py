"""Requests as a local model receives them: the rendered text and the number of its token ids."""

from __future__ import annotations

from collections.abc import Sequence

from olmes_suite.errors import RequestFailed
from olmes_suite.models.base import Sent
from olmes_suite.models.local.encoding import Encoder
from olmes_suite.models.local.jobs import choices, generations
from olmes_suite.records import Request


def sent(encoder: Encoder, request: Request, max_length: int) -> Sent:
    """Render and encode one request as the engines do. Raises RequestFailed where the chat template refuses it."""
    text, sample = encoder.render(request), [(0, 0, 0)]
    if request.kind == "generate":
        generation = generations(encoder, [request], sample, max_length)[0]
        return Sent(text, len(generation.prompt), generation.truncated)
    choice = choices(encoder, [request], sample, max_length)[0]
    return Sent(text, len(choice.context), choice.truncated, len(choice.tokens))


def each_sent(encoder: Encoder, requests: Sequence[Request], max_length: int) -> list[Sent | None]:
    """Render and encode requests, with None for those that the chat template refuses."""
    found: list[Sent | None] = []
    for request in requests:
        try:
            found.append(sent(encoder, request, max_length))
        except RequestFailed:
            found.append(None)
    return found
