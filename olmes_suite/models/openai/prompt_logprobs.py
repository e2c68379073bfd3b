"""Log-likelihoods from a server that gives the log-probabilities of a prompt's tokens: vLLM and what follows it.

Plain text goes to /completions with `echo`; messages to /chat/completions with vLLM's `prompt_logprobs`, the choice
being the end of a last assistant message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from olmes_suite.endpoints.bodies import body_and_choices, count
from olmes_suite.errors import RequestFailed
from olmes_suite.models.openai.bodies import asked, check_name, start_of
from olmes_suite.records import Request, Response


@dataclass(frozen=True, slots=True)
class Token:
    """One token of a prompt."""

    text: str
    logprob: float | None
    """None for the first, which nothing comes before."""
    greedy: bool
    """The model's own choice."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the server says of a prompt."""

    tokens: tuple[Token, ...]
    generated: int
    """Tokens beside."""
    truncated: bool
    """The prompt was cut on the left."""


class Silent(RequestFailed):
    """The server gives no log-probabilities of prompts."""


def question(request: Request, model: str, start: str) -> dict[str, Any]:
    """The body that asks for the log-probabilities of a prompt, which `start` is or, after messages, ends."""
    body = asked(request, model, start) | {"max_tokens": 1, "temperature": 0.0}
    return body | ({"prompt_logprobs": 1} if request.messages is not None else {"logprobs": 1, "echo": True})


def heard(raw: bytes, request: Request, model: str, truncated: bool) -> Heard:
    """The prompt's tokens. Raises Malformed, OtherModel or Silent."""
    body, choices = body_and_choices(raw)
    check_name(body, model)
    usage = body.get("usage")
    try:
        if request.messages is not None:
            found = [_listed(entry) for entry in body["prompt_logprobs"]]
        else:
            echoed = choices[0]["logprobs"]
            rows = zip(echoed["tokens"], echoed["token_logprobs"], echoed["top_logprobs"], strict=True)
            found = [_token(*row) for row in rows]
            found = found[: count(usage, "prompt_tokens") or len(found) - 1]
            if len(found) < 2:  # the one that was generated
                raise KeyError("echo")
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise Silent(f"{request.task}: {_WHY}") from None
    return Heard(tuple(found), count(usage, "completion_tokens"), truncated)


_WHY = (
    "needs log-likelihoods, and the server gives no log-probabilities of prompts (vLLM does); "
    "use --backend hf, or leave the task out"
)


def silent(request: Request, reason: str) -> Silent:
    """The error where the server refuses to give them."""
    return Silent(f"{request.task}: {_WHY} ({reason})")


def _token(text: str, logprob: float | None, likeliest: dict[str, float] | None) -> Token:
    if logprob is None:
        return Token(str(text), None, False)
    return Token(str(text), _number(logprob), logprob >= max((likeliest or {}).values(), default=math.inf) - 1e-9)


def _listed(entry: dict[str, dict[str, Any]] | None) -> Token:
    """An entry holds the prompt's own token and, where that is another, the likeliest one (rank 1)."""
    if entry is None:
        return Token("", None, False)
    own = max(entry.values(), key=lambda token: int(token["rank"]))
    return Token(str(own["decoded_token"]), _number(own["logprob"]), int(own["rank"]) == 1)


def _number(logprob: Any) -> float:
    value = float(logprob)
    if math.isnan(value) or value > 1e-3:
        raise ValueError("no log-probability")
    return value


def boundary(request: Request) -> tuple[str, str]:
    """(what the answer starts from, text to score): the context's last white space is scored, as in lm-eval."""
    whole = start_of(request)
    context = whole.rstrip()
    return context, whole[len(context) :] + (request.continuation or "")


def tail(tokens: Sequence[Token], ending: str) -> list[Token] | None:
    """The last tokens, which spell `ending`; None where no token begins there."""
    text, start = "", len(tokens)
    while start and len(text) < len(ending):
        start -= 1
        text = tokens[start].text + text
    return list(tokens[start:]) if text == ending and start < len(tokens) else None


def beyond(tokens: Sequence[Token], context: Sequence[Token], ending: str) -> list[Token]:
    """The tokens beyond as many as the context alone has: lm-eval's rule where a choice begins within a token.

    White space is not compared: some tokenizers' tokens lose theirs when they are decoded one by one.
    """
    own = list(tokens[len(context) :])
    text = "".join(token.text for token in own)
    if "\ufffd" not in text and not "".join(ending.split()).endswith("".join(text.split())):
        return []
    return own


def scored(found: Heard, own: Sequence[Token], request: Request) -> Response:
    """The response to a choice whose tokens are `own`. Raises RequestFailed where one has no log-probability."""
    values = [token.logprob for token in own if token.logprob is not None]
    if not own or len(values) < len(own):
        raise RequestFailed(
            f"{request.task}: choice {request.index} of document {request.doc_id} has a token that the server does not "
            "score; use --backend hf"
        )
    return Response(
        loglikelihood=math.fsum(values),
        is_greedy=all(token.greedy for token in own),
        prompt_tokens=len(found.tokens),
        completion_tokens=found.generated,
        truncated=found.truncated,
    )
