"""What a candidate model behind a server is asked, and what its bodies say: pure functions of requests and bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.endpoints.bodies import Malformed, body_and_choices, count, messages_of, sendable, text_of
from olmes_suite.errors import RequestFailed
from olmes_suite.models.base import DEFAULT_MAX_TOKENS
from olmes_suite.models.openai.context_limit import Room
from olmes_suite.models.stops import cut_at_stop
from olmes_suite.records import Request, Response

MOST_STOPS = 4
"""Stop strings that OpenAI's servers take."""
SNAPSHOT = re.compile(r"-(\d{4}|\d{4}-\d{2}-\d{2})")
"""What a hosted model's name may have behind it in an answer: the date of the version that spoke."""
NEW_LIMIT = "max_completion_tokens"
"""Under which newer chat models of OpenAI take the token limit; they refuse `max_tokens`."""


TOOLS = ("tool_calls", "function_call")
"""Why an answer ended, where the server reads calls of tools out of it."""


class OtherModel(RequestFailed):
    """The server answers with another model than the one asked for."""


@dataclass(frozen=True, slots=True)
class Said:
    """One choice of an answer."""

    text: str
    finish: str | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The choices of one answer, and what they cost in tokens, together."""

    said: tuple[Said, ...]
    prompt_tokens: int
    completion_tokens: int


def path_of(request: Request) -> str:
    """Messages go to the chat endpoint, plain text to the other."""
    return "/chat/completions" if request.messages is not None else "/completions"


def asked(request: Request, model: str, start: str) -> dict[str, Any]:
    """Model and prompt. For messages `start` is the start of the answer, else it is the whole prompt."""
    if request.messages is None:
        return {"model": model, "prompt": sendable(start)}
    messages = messages_of(request.messages)
    if not start:
        return {"model": model, "messages": messages}
    return {
        "model": model,
        "messages": [*messages, {"role": "assistant", "content": sendable(start)}],
        "add_generation_prompt": False,
        "continue_final_message": True,
    }


def start_of(request: Request) -> str:
    """What the model is to go on from: the start of the answer to messages, or the whole plain text."""
    return request.prefix if request.messages is not None else (request.text or "") + request.prefix


def limit_of(request: Request) -> int:
    """Tokens of an answer at most."""
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def generation(
    request: Request, model: str, *, drop_prefix: bool, samples: int, seed: int, room: Room
) -> dict[str, Any]:
    """The body that asks for `samples` answers; `room` replaces limit and prompt where the context is too short."""
    start = "" if drop_prefix and request.messages is not None else start_of(request)
    temperature = request.temperature or 0.0
    body = asked(request, model, start) | {"max_tokens": limit_of(request), "temperature": temperature}
    if temperature:
        body["seed"] = seed % 2**31
        if request.top_p is not None:
            body["top_p"] = request.top_p
    if samples > 1:
        body["n"] = samples
    if stops := [stop for stop in request.stop if stop][:MOST_STOPS]:
        body["stop"] = stops
    return body | room.fields


def wants_other_limit(status: int, reason: str) -> bool:
    """A refusal that names the other name of the token limit."""
    return status == 400 and NEW_LIMIT in reason


def with_limit(body: dict[str, Any], request: Request, name: str) -> dict[str, Any]:
    """The body with its token limit under the name that the server takes; plain text has only the old one."""
    if request.messages is None or name == "max_tokens":
        return body
    return {name if field == "max_tokens" else field: value for field, value in body.items()}


def check_name(body: dict[str, Any], model: str) -> None:
    """Raises OtherModel where a body names another model than the one asked for; hosted models may add a date."""
    named = body.get("model")
    if not isinstance(named, str) or named == model:
        return
    if named.startswith(model) and SNAPSHOT.fullmatch(named[len(model) :]):
        return
    raise OtherModel(f"the server answers with the model {named!r}, not {model!r}")


def batch_of(raw: bytes, request: Request, model: str, samples: int) -> Batch:
    """The choices in an answer, in the server's order; there may be fewer than `samples`, as some take no `n`.

    Raises Malformed for what is no answer, OtherModel, RequestFailed for an answer that was withheld.
    """
    body, choices = body_and_choices(raw)
    check_name(body, model)
    indices = [choice.get("index", place) for place, choice in enumerate(choices)]
    if sorted(indices, key=str) != sorted(range(len(choices)), key=str) or len(choices) > samples:
        raise Malformed("the choices are not those that were asked for")
    said = []
    for _, choice in sorted(zip(indices, choices, strict=True), key=lambda pair: pair[0]):
        finish = choice.get("finish_reason")
        if finish == "content_filter":
            raise RequestFailed(f"{request.task}: document {request.doc_id}: the server's content filter withheld it")
        if finish in ("abort", "error"):
            raise Malformed(f"the answer ended with {finish!r}")
        if finish in TOOLS or calls(choice):
            raise RequestFailed(
                f"{request.task}: document {request.doc_id}: the server took the answer for a tool call, and keeps its "
                "text; start it without a tool parser"
            )
        said.append(Said(answer_in(choice, request), finish if isinstance(finish, str) else None))
    usage = body.get("usage")
    return Batch(tuple(said), count(usage, "prompt_tokens"), count(usage, "completion_tokens"))


def calls(choice: dict[str, Any]) -> bool:
    """Whether a choice of the chat endpoint calls a tool, though none was offered."""
    message = choice.get("message")
    return isinstance(message, dict) and bool(message.get("tool_calls") or message.get("function_call"))


def answer_in(choice: dict[str, Any], request: Request) -> str:
    """The text of a choice. SGLang sends null for an answer without text, which is one if the model ended it itself.

    Raises Malformed where there is none.
    """
    message = choice.get("message") if request.messages is not None else None
    ended = choice.get("finish_reason") in ("stop", "length")
    if ended and isinstance(message, dict) and message.get("content", "") is None and not message.get("refusal"):
        return ""
    return text_of(choice, request.messages is not None)


def responses_of(batch: Batch, request: Request, truncated: bool) -> list[Response]:
    """A response per choice. Tokens add up to what the answer cost: the prompt's are the first one's."""
    number = len(batch.said)
    each, rest = divmod(batch.completion_tokens, number)
    found = []
    for place, said in enumerate(batch.said):
        text = cut_at_stop(said.text, request.stop)
        tokens = each + (place < rest)
        full = said.finish == "length" or (said.finish is None and tokens >= limit_of(request))
        found.append(
            Response(
                text=text,
                finish_reason="length" if full and text == said.text else "stop",
                prompt_tokens=0 if place else batch.prompt_tokens,
                completion_tokens=tokens,
                truncated=truncated,
                raw=said.text if said.text != text else None,
            )
        )
    return found


def names(models: Sequence[str]) -> str:
    """A few of a server's models, for an error's line."""
    return ", ".join(models[:5]) + (", …" if len(models) > 5 else "")
