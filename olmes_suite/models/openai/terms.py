"""The sampling settings that a server accepts, learned from the fields that it rejects."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from olmes_suite.endpoints.client import NOT_IMPLEMENTED, Refused
from olmes_suite.models.openai import bodies, refusals
from olmes_suite.models.openai.context_limit import Room, other_room
from olmes_suite.models.openai.refusals import MOST_SENT, TO_CONTEXT
from olmes_suite.records import Request, Response

EFFORT = "reasoning_effort"
"""An argument of gpt-oss's chat template, which hosted servers take as a field of its own."""


SERVER_ERROR = 500
"""The status with which some servers refuse a field that they do not know; numbers in its message mean anything."""
REFUSALS = frozenset({400, 413, 422, SERVER_ERROR, NOT_IMPLEMENTED})


class Terms:
    """The fields of requests that a server takes. Thread-safe; what is learned holds for all later requests.

    A limit that means "to the context" is left out of chat requests, since servers then take what the context leaves.
    Plain text has a limit of 16 tokens by default, and gets a large number.
    """

    def __init__(self, template_args: Mapping[str, Any]) -> None:
        self.template_args = dict(template_args)
        self.left_out: dict[str, str] = {}
        """Refused fields that no request gets, with the server's reason."""
        self.cap: int | None = None
        """The largest token limit that the server allows."""
        self.needs_limit = False
        """Whether the server refuses requests without a token limit."""
        self._effort_apart = False
        self._ended: set[int] = set()
        """Tokens of answers that ended at a limit of the server's own."""
        self._lock = threading.Lock()

    def template_fields(self, request: Request) -> dict[str, Any]:
        """Return the fields with the arguments of the chat template, which plain text does not have."""
        if request.messages is None or not self.template_args:
            return {}
        if self._effort_apart:
            return {EFFORT: self.template_args[EFFORT]}
        return {"chat_template_kwargs": self.template_args}

    def adapted(self, body: dict[str, Any], request: Request, room: Room) -> dict[str, Any]:
        """Return the body as the server takes it."""
        fields = {**body, **self.template_fields(request)}
        most = fields["max_tokens"]
        if most >= TO_CONTEXT and self.cap is None and room.max_tokens is None:
            if request.messages is not None and not self.needs_limit:
                del fields["max_tokens"]
            else:
                fields["max_tokens"] = min(most, MOST_SENT)
        elif self.cap is not None:
            fields["max_tokens"] = min(most, self.cap)
        return {name: value for name, value in fields.items() if name not in self.left_out}

    def after(self, error: Refused, request: Request, body: Mapping[str, Any], room: Room) -> Room:
        """Return the changes with which a refused request is sent again.

        Raises `error`, or one that says what to do about it.
        """
        if error.status not in REFUSALS:
            raise error
        other = other_room(error.reason, bodies.limit_of(request), room)
        if other is not None:
            return other
        sent = body.get("max_tokens")
        if sent is None and refusals.wants_limit(error.reason):
            self.needs_limit = True
            return room
        field = refusals.refused_field(error.reason, error.param, body)
        if field is None and sent is not None and room.context is None and error.status != SERVER_ERROR:
            return self._smaller(error, room, sent)
        if field is None:
            raise error
        if field == "chat_template_kwargs" and [*self.template_args] == [EFFORT]:
            self._effort_apart = True
            return room
        if refusals.needed(field, body[field], error.reason):
            raise Refused(f"{error}; {refusals.advice(field, body[field])}", error.status, error.reason, error.param)
        with self._lock:
            self.left_out.setdefault(field, error.reason)
        return room

    def _smaller(self, error: Refused, room: Room, sent: int) -> Room:
        """Take the token limit out of a refusal."""
        cap = refusals.token_cap(error.reason, sent)
        if cap is None or room.prompt_tokens is not None:
            raise error
        if refusals.OF_CONTEXT.search(error.reason) and sent > 1:  # of prompt and answer together
            return Room(1, context=cap)
        with self._lock:
            self.cap = cap if self.cap is None else min(cap, self.cap)
        return room

    def limited(self, responses: Sequence[Response], request: Request, sent: int | None) -> list[Response]:
        """Return the responses with the limit in effect, where it is not the request's."""
        if sent == request.max_tokens:
            return list(responses)
        found = []
        for response in responses:
            limit = sent if sent is not None else response.completion_tokens if _at_limit(response) else None
            if sent is None and limit:
                with self._lock:
                    self._ended.add(limit)
            found.append(replace(response, limit=limit or None))
        return found

    def settings(self) -> dict[str, Any]:
        """Return what was learned, for the manifest."""
        learned: dict[str, Any] = {
            "chat_template_args": self.template_args,
            "left_out": dict(self.left_out),
            "largest_token_limit": self.cap,
        }
        return {name: value for name, value in learned.items() if value}

    def notes(self, server: str) -> list[str]:
        """Return lines for the user about what was learned."""
        lines = [
            f"{server} refuses {field}, which is left out{' (it is applied here)' if field == 'stop' else ''}: {reason}"
            for field, reason in self.left_out.items()
        ]
        if self.cap is not None:
            lines.append(f"{server} allows at most {self.cap} tokens in an answer: longer limits are lowered")
        if self._ended:
            least = min(self._ended)
            lines.append(
                f"{server} ended answers at limits of its own, from {least} tokens on; --gen-kwargs max_tokens=NUMBER "
                "sets a larger one"
            )
        return lines


def _at_limit(response: Response) -> bool:
    return response.finish_reason == "length" and response.completion_tokens > 0
