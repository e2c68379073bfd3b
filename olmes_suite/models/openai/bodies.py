"""Bodies of requests to a served model and of its responses: pure functions of requests and bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.endpoints.bodies import Malformed, body_and_choices, count, messages_of, sendable, text_of
from olmes_suite.errors import RequestFailed
from olmes_suite.models.base import DEFAULT_MAX_TOKENS
from olmes_suite.models.openai import channels
from olmes_suite.models.openai.context_limit import Room
from olmes_suite.models.stops import cut_at_stop
from olmes_suite.records import OPTIONAL, Request, Response
from olmes_suite.thinking import Thoughts

MOST_STOPS = 4
"""The number of stop strings that OpenAI's servers take."""
SNAPSHOT = re.compile(r"-(\d{4}|\d{4}-\d{2}-\d{2})")
"""The date of a version, which a hosted model may append to its name in an answer."""
NEW_LIMIT = "max_completion_tokens"
"""The name of the token limit for newer chat models of OpenAI, which refuse `max_tokens`."""

TOOLS = ("tool_calls", "function_call")
"""Finish reasons of answers that the server parsed as calls of tools."""


class OtherModel(RequestFailed):
    """The server answers with another model than the requested one."""


@dataclass(frozen=True, slots=True)
class Text:
    """The text of one choice in an answer."""

    text: str | None
    """None where the choice has only a thought."""
    finish: str | None
    thinking: str | None = None
    """The thought, where the server sends it apart from the text."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The choices of one answer and their total cost in tokens."""

    texts: tuple[Text, ...]
    prompt_tokens: int
    completion_tokens: int
    thinking_tokens: int | None = None
    """The part of `completion_tokens` spent on thoughts, where the server reports it."""


def path_of(request: Request) -> str:
    """Return the path of the endpoint: chat for messages, completions for plain text."""
    return "/chat/completions" if request.messages is not None else "/completions"


def prompt_of(request: Request, model: str, start: str) -> dict[str, Any]:
    """Return the fields of model and prompt. `start` is the start of the answer to messages, else the whole prompt."""
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
    """Return the text that the model continues: the start of the answer to messages, or the whole plain text."""
    return request.prefix if request.messages is not None else (request.text or "") + request.prefix


def limit_of(request: Request) -> int:
    """Return the token limit of an answer."""
    return DEFAULT_MAX_TOKENS if request.max_tokens is None else request.max_tokens


def generation(
    request: Request, model: str, *, drop_prefix: bool, samples: int, seed: int, room: Room
) -> dict[str, Any]:
    """Return the body of a request for `samples` answers. `room` replaces its limit and cuts its prompt."""
    start = "" if drop_prefix and request.messages is not None else start_of(request)
    temperature = request.temperature or 0.0
    body = prompt_of(request, model, start) | {"max_tokens": limit_of(request), "temperature": temperature}
    if "temperature" in request.unset:
        del body["temperature"]
    if temperature:
        body["seed"] = seed % 2**31
        if request.top_p is not None:
            body["top_p"] = request.top_p
    body |= {name: getattr(request, name) for name in OPTIONAL if getattr(request, name) is not None}
    if samples > 1:
        body["n"] = samples
    if stops := [stop for stop in request.stop if stop][:MOST_STOPS]:
        body["stop"] = stops
    return body | room.fields


def wants_other_limit(status: int, reason: str) -> bool:
    """Return whether a refusal asks for the other name of the token limit."""
    return status == 400 and NEW_LIMIT in reason


def with_limit(body: dict[str, Any], request: Request, name: str) -> dict[str, Any]:
    """Return the body with its token limit under the name that the server takes; plain text has only the old name."""
    if request.messages is None or name == "max_tokens":
        return body
    return {name if field == "max_tokens" else field: value for field, value in body.items()}


def check_name(body: dict[str, Any], model: str) -> None:
    """Raise OtherModel where a body names another model than the requested one. Hosted models may append a date."""
    named = body.get("model")
    if not isinstance(named, str) or named == model:
        return
    if named.startswith(model) and SNAPSHOT.fullmatch(named[len(model) :]):
        return
    raise OtherModel(f"the server answers with the model {named!r}, not {model!r}")


def batch_of(raw: bytes, request: Request, model: str, samples: int) -> Batch:
    """Return the choices of an answer in the server's order, fewer than `samples` from servers that ignore `n`.

    Raises Malformed for an invalid answer, OtherModel, RequestFailed for a withheld answer.
    """
    body, choices = body_and_choices(raw)
    check_name(body, model)
    indices = [choice.get("index", place) for place, choice in enumerate(choices)]
    if sorted(indices, key=str) != sorted(range(len(choices)), key=str) or len(choices) > samples:
        raise Malformed("the choices are not the requested ones")
    texts = []
    for _, choice in sorted(zip(indices, choices, strict=True), key=lambda pair: pair[0]):
        finish = choice.get("finish_reason")
        if finish == "content_filter":
            raise RequestFailed(
                f"{request.task}: document {request.doc_id}: the server's content filter withheld the answer"
            )
        if finish in ("abort", "error"):
            raise Malformed(f"the answer ended with {finish!r}")
        if finish in TOOLS or calls(choice):
            raise RequestFailed(
                f"{request.task}: document {request.doc_id}: the server parsed the answer as a tool call and withheld "
                "its text; start the server without a tool parser"
            )
        text, thinking = answer_in(choice, request)
        texts.append(Text(text, finish if isinstance(finish, str) else None, thinking))
    usage = body.get("usage")
    return Batch(
        tuple(texts), count(usage, "prompt_tokens"), count(usage, "completion_tokens"), channels.reasoning_tokens(usage)
    )


def calls(choice: dict[str, Any]) -> bool:
    """Return whether a choice of the chat endpoint calls a tool, although the request offers none."""
    message = choice.get("message")
    return isinstance(message, dict) and bool(message.get("tool_calls") or message.get("function_call"))


def answer_in(choice: dict[str, Any], request: Request) -> tuple[str | None, str | None]:
    """Return the text and the separate thought of a choice.

    The text is "" for the null that servers send where the model generated no text, also after a thought. It is None
    where the choice ended inside a thought. Raises Malformed for a choice without text.
    """
    message = choice.get("message") if request.messages is not None else None
    if not isinstance(message, dict):
        return text_of(choice, request.messages is not None), None
    text, thinking = channels.parts_of(message)
    ended = choice.get("finish_reason") in ("stop", "length")
    content = message.get("content", None if thinking else "")
    null = content in (None, []) or (isinstance(content, list) and thinking is not None)
    if text is None and ended and null and not message.get("refusal"):
        return (None, thinking) if thinking and _was_cut(choice, request) else ("", thinking)
    if text is None:
        raise Malformed("the choice has no text")
    if not text and thinking and choice.get("finish_reason") == "length":
        return None, thinking
    return text, thinking


def _was_cut(choice: Mapping[str, Any], request: Request) -> bool:
    """Return whether a choice ended at the token limit or at a stop string, and not by itself.

    vLLM and SGLang say what ended it. Of other servers, a request with stop strings counts as cut.
    """
    if choice.get("finish_reason") == "length":
        return True
    for name in ("stop_reason", "matched_stop"):
        if name in choice:
            return isinstance(choice[name], str)
    return bool(request.stop)


def responses_of(
    batch: Batch, request: Request, truncated: bool, reading: Thoughts | None = None, *, auto: bool = False
) -> list[Response]:
    """Return a response per choice. Their tokens add up to those of the answer; the first has those of the prompt.

    `reading`: how thoughts are read, None where they are not; `auto`: leave a text without a closing mark as it is.
    """
    number = len(batch.texts)
    each, rest = divmod(batch.completion_tokens, number)
    responses = []
    for place, choice in enumerate(batch.texts):
        whole = choice.text or ""
        cut = cut_at_stop(whole, request.stop)
        tokens = each + (place < rest)
        full = choice.finish == "length" or (choice.finish is None and tokens >= limit_of(request))
        parts = channels.read(cut if choice.text is not None else None, choice.thinking, reading, auto=auto, full=full)
        share = batch.thinking_tokens if number == 1 else None
        responses.append(
            Response(
                text=parts.answer,
                finish_reason="length" if full and cut == whole else "stop",
                prompt_tokens=0 if place else batch.prompt_tokens,
                completion_tokens=tokens,
                truncated=truncated,
                raw=whole if choice.text is not None and whole != parts.answer else None,
                thinking=parts.thinking,
                unclosed=parts.unclosed,
                thinking_tokens=channels.thinking_tokens(parts, tokens, share, cut),
            )
        )
    return responses


def names(models: Sequence[str]) -> str:
    """List the first models of a server for an error message."""
    return ", ".join(models[:5]) + (", …" if len(models) > 5 else "")
