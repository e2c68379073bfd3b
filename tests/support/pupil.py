"""A served model that answers as the request decides, and the backend that asks it."""

from __future__ import annotations

from judge_server import Reply
from models_fixture import generation

from olmes_suite.models.openai.backend import OpenAIBackend
from olmes_suite.records import sha256

MODELS = Reply({"object": "list", "data": [{"id": "pupil"}, {"id": "other"}]})


def said(body, seed=None):
    """A text that the request decides."""
    prompt = body["messages"][-1]["content"] if "messages" in body else body["prompt"]
    return f"{sha256(prompt)[:6]} {seed if body['temperature'] else ''} The answer is 7.".replace("  ", " ")


def completion(body, texts=None, finish="stop", model="pupil"):
    """An answer of the right shape, with `n` choices."""
    texts = texts or [said(body, f"{body.get('seed')}+{place}") for place in range(body.get("n", 1))]
    choices = [
        {"index": place, "finish_reason": finish}
        | ({"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text})
        for place, text in enumerate(texts)
    ]
    return {
        "model": model,
        "choices": choices[::-1],  # the index counts, not the order
        "usage": {"prompt_tokens": 11, "completion_tokens": 5 * len(texts)},
    }


def good(body, before):
    return Reply(completion(body))


def backend(served, **options):
    return OpenAIBackend("pupil", served.url, **{"delay": 0.01, "timeout": 5.0, **options})


def ask(n=1, **changes):
    return [generation(i, "-", **{"messages": (("user", f"question {i}"),), "text": None, **changes}) for i in range(n)]
