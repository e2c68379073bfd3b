"""What goes to an OpenAI-compatible server and what comes back: pure functions of questions and bodies."""

from __future__ import annotations

import math
from typing import Any

from olmes_suite.endpoints.bodies import Malformed, body_and_choices, count, messages_of, sendable, text_of
from olmes_suite.judges.base import Answer, Question


def path_of(question: Question) -> str:
    """Chat goes to one endpoint, a raw prompt to the other."""
    return "/chat/completions" if question.messages is not None else "/completions"


def body_of(question: Question, model: str) -> dict[str, Any]:
    """The JSON body of the request."""
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
    """The answer in a response's body. Raises Malformed for anything that is none."""
    body, choices = body_and_choices(raw)
    choice = choices[0]
    text = text_of(choice, question.messages is not None)
    first = _first_token(choice, question) if question.top_logprobs else ()
    usage = body.get("usage")
    return Answer(text, first, count(usage, "prompt_tokens"), count(usage, "completion_tokens"))


def _first_token(choice: dict[str, Any], question: Question) -> tuple[tuple[str, float], ...]:
    """Alternatives of the first token, likeliest first. Raises Malformed for what cannot be probabilities."""
    try:
        if question.messages is None:
            pairs = list(choice["logprobs"]["top_logprobs"][0].items())
        else:
            found = choice["logprobs"]["content"][0]["top_logprobs"]
            pairs = [(entry["token"], entry["logprob"]) for entry in found]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise Malformed("the choice has no log-probabilities of its first token") from error
    if not pairs:
        raise Malformed("the choice has no log-probabilities of its first token")
    for token, logprob in pairs:
        number = isinstance(logprob, (int, float)) and not isinstance(logprob, bool) and math.isfinite(logprob)
        if not isinstance(token, str) or not number:
            raise Malformed("a log-probability is no number")
    if sum(math.exp(min(logprob, 1.0)) for _, logprob in pairs) > 1.01:
        raise Malformed("the log-probabilities are those of more than certainty")
    return tuple(sorted(((token, float(logprob)) for token, logprob in pairs), key=lambda pair: -pair[1]))
