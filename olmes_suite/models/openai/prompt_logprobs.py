"""Log-likelihoods from servers that return the log-probabilities of a prompt's tokens: vLLM and compatible ones.

Plain text goes to /completions with `echo`. Messages go to /chat/completions with vLLM's `prompt_logprobs`; the choice
is the end of a last assistant message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.endpoints.bodies import body_and_choices, count
from olmes_suite.errors import RequestFailed
from olmes_suite.models.openai.bodies import check_name, prompt_of, start_of
from olmes_suite.records import Request, Response


@dataclass(frozen=True, slots=True)
class Token:
    """A token of a prompt."""

    text: str
    logprob: float | None
    """The natural-log probability; None for the first token, which has no context."""
    greedy: bool
    """Whether the token is the model's likeliest."""


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """The tokens of a prompt with the server's log-probabilities."""

    tokens: tuple[Token, ...]
    generated: int
    """The number of tokens that the server generated after the prompt."""
    truncated: bool
    """Whether the prompt was cut on the left."""


class Unsupported(RequestFailed):
    """The server does not return log-probabilities of prompts."""


def body(request: Request, model: str, start: str) -> dict[str, Any]:
    """Return the body of a request for log-probabilities. `start` is the whole prompt, or its end after messages."""
    fields = prompt_of(request, model, start) | {"max_tokens": 1, "temperature": 0.0}
    return fields | ({"prompt_logprobs": 1} if request.messages is not None else {"logprobs": 1, "echo": True})


def prompt_tokens(raw: bytes, request: Request, model: str, truncated: bool) -> PromptTokens:
    """Return the prompt's tokens in an answer. Raises Malformed, OtherModel or Unsupported."""
    answer, choices = body_and_choices(raw)
    check_name(answer, model)
    usage = answer.get("usage")
    try:
        if request.messages is not None:
            tokens = [_listed(entry) for entry in answer["prompt_logprobs"]]
        else:
            echoed = choices[0]["logprobs"]
            rows = zip(echoed["tokens"], echoed["token_logprobs"], echoed["top_logprobs"], strict=True)
            tokens = [_token(*row) for row in rows]
            tokens = tokens[: count(usage, "prompt_tokens") or len(tokens) - 1]
            if len(tokens) < 2:  # only the generated token: the server ignored `echo`
                raise KeyError("echo")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise Unsupported(f"{request.task}: {_UNSUPPORTED}") from None
    return PromptTokens(tuple(tokens), count(usage, "completion_tokens"), truncated)


_UNSUPPORTED = (
    "needs log-likelihoods, and the server does not return log-probabilities of prompts (vLLM does); "
    "use --backend hf, or leave the task out"
)


def unsupported(request: Request, reason: str) -> Unsupported:
    """Return the error for a server that refuses log-probabilities of prompts."""
    return Unsupported(f"{request.task}: {_UNSUPPORTED} ({reason})")


def _token(text: str, logprob: float | None, likeliest: dict[str, float] | None) -> Token:
    if logprob is None:
        return Token(str(text), None, False)
    return Token(str(text), _logprob(logprob), logprob >= max((likeliest or {}).values(), default=math.inf) - 1e-9)


def _listed(entry: dict[str, dict[str, Any]] | None) -> Token:
    """Convert an entry, which holds the prompt's token and, where it is another, the likeliest token (rank 1)."""
    if entry is None:
        return Token("", None, False)
    token = max(entry.values(), key=lambda token: int(token["rank"]))
    return Token(str(token["decoded_token"]), _logprob(token["logprob"]), int(token["rank"]) == 1)


def _logprob(number: float | str) -> float:
    value = float(number)
    if math.isnan(value) or value > 1e-3:
        raise ValueError("not a log-probability")
    return value


def boundary(request: Request) -> tuple[str, str]:
    """Return (context, text to score). The white space at the context's end is scored, as in lm-eval."""
    whole = start_of(request)
    context = whole.rstrip()
    return context, whole[len(context) :] + (request.continuation or "")


def tail(tokens: Sequence[Token], ending: str) -> list[Token] | None:
    """Return the last tokens that spell `ending`, or None where no token begins with it."""
    text, start = "", len(tokens)
    while start and len(text) < len(ending):
        start -= 1
        text = tokens[start].text + text
    return list(tokens[start:]) if text == ending and start < len(tokens) else None


def beyond(tokens: Sequence[Token], context: Sequence[Token], ending: str) -> list[Token]:
    """Return the tokens beyond the number of the context's tokens: lm-eval's rule for choices that begin in a token.

    White space is not compared, because some tokenizers lose it where tokens are decoded one by one.
    """
    rest = list(tokens[len(context) :])
    text = "".join(token.text for token in rest)
    if "\ufffd" not in text and not "".join(ending.split()).endswith("".join(text.split())):
        return []
    return rest


def scored(prompt: PromptTokens, choice: Sequence[Token], request: Request) -> Response:
    """Return the response to a choice with these tokens. Raises RequestFailed for a token without log-probability."""
    values = [token.logprob for token in choice if token.logprob is not None]
    if not choice or len(values) < len(choice):
        raise RequestFailed(
            f"{request.task}: choice {request.index} of document {request.doc_id} has a token that the server does not "
            "score; use --backend hf"
        )
    return Response(
        loglikelihood=math.fsum(values),
        is_greedy=all(token.greedy for token in choice),
        prompt_tokens=len(prompt.tokens),
        completion_tokens=prompt.generated,
        truncated=prompt.truncated,
    )
