"""Request and response bodies of an OpenAI-compatible server, as pure functions."""

from __future__ import annotations

import math
from typing import Any

from olmes_suite.endpoints.bodies import Malformed, body_and_choices, count, messages_of, sendable, text_of
from olmes_suite.judges.base import Answer, Question


def path_of(question: Question) -> str:
    """Return the endpoint of a question: chat completions for messages, completions for a raw prompt."""
    return "/chat/completions" if question.messages is not None else "/completions"


def body_of(question: Question, model: str) -> dict[str, Any]:
    """Build the JSON body of a request."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": question.max_tokens,
        "temperature": question.temperature,
    }
    if question.messages is None:
        body["prompt"] = sendable(question.text or "")
        if question.top_logprobs:
            body["logprobs"] = question.top_logprobs
        return body
    body["messages"] = messages_of(question.messages)
    if question.top_logprobs:
        body |= {"logprobs": True, "top_logprobs": question.top_logprobs}
    return body


def answer_of(raw: bytes, question: Question) -> Answer:
    """Read the answer from a response's body. Raises Malformed for a body without an answer."""
    body, choices = body_and_choices(raw)
    choice = choices[0]
    text = text_of(choice, question.messages is not None)
    first = _first_token(choice, question) if question.top_logprobs else ()
    usage = body.get("usage")
    return Answer(text, first, count(usage, "prompt_tokens"), count(usage, "completion_tokens"))


def _first_token(choice: dict[str, Any], question: Question) -> tuple[tuple[str, float], ...]:
    """Read the alternatives of the first token, likeliest first. Raises Malformed for impossible probabilities."""
    try:
        if question.messages is None:
            pairs = list(choice["logprobs"]["top_logprobs"][0].items())
        else:
            entries = choice["logprobs"]["content"][0]["top_logprobs"]
            pairs = [(entry["token"], entry["logprob"]) for entry in entries]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Malformed("the choice has no log-probabilities of its first token") from error
    if not pairs:
        raise Malformed("the choice has no log-probabilities of its first token")
    for token, logprob in pairs:
        is_number = isinstance(logprob, (int, float)) and not isinstance(logprob, bool) and math.isfinite(logprob)
        if not isinstance(token, str) or not is_number:
            raise Malformed("a log-probability is not a number")
    if sum(math.exp(min(logprob, 1.0)) for _, logprob in pairs) > 1.01:
        raise Malformed("the probabilities of the first token add up to more than 1")
    return tuple(sorted(((token, float(logprob)) for token, logprob in pairs), key=lambda pair: -pair[1]))
