"""A backend without weights: fast, deterministic answers in the expected format, for tests and dry runs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from olmes_suite.models.stops import cut_at_stop
from olmes_suite.models.without_model.base import WithoutModel
from olmes_suite.records import Request, Response, sha256

WORDS = (
    "the", "sum", "is", "first", "then", "we", "take", "each", "value", "and", "divide", "it", "by", "two", "because",
    "that", "leaves", "only", "one", "part", "which", "means", "so", "there", "are", "more", "than", "before",
    "while", "none", "of", "them", "change", "when", "added", "again", "to", "all", "of", "what", "was", "given",
    "here",
)  # fmt: skip

ANSWERS = (
    "The answer is ({letter}).",
    "Therefore, the answer is ({letter}).",
    "Therefore, the answer is: {letter}",
    "The answer is {number}.",
    "So the answer is {number}.",
    "Therefore, the final answer is {number}. I hope it is correct.",
    "Final Answer: The final answer is ${number}$. I hope it is correct.",
    "{number}",
    "{letter}",
    "No",
)
"""Endings that the tasks' extractors recognise; many do not fit the task, like the answers of a weak model."""


class MockBackend(WithoutModel):
    """Computes answers from the request and, if it samples, from the seed."""

    name = "mock"

    def __init__(self, model: str | None = None) -> None:
        super().__init__()
        self.model = model

    @property
    def fingerprint(self) -> str:
        """A constant; its number increases with changes that change the answers."""
        return sha256("mock-1")

    def respond(self, request: Request, seeds: Sequence[int]) -> list[Response]:
        """Return some words with an ending that a task's extractor may recognise, or a log-likelihood."""
        digest = _digest(request)
        return [_answer(request, digest, seed) for seed in seeds]


def _digest(request: Request) -> bytes:
    """Hash a request with SHA-256; `Request.key` would take ten times as long on long prompts."""
    digest = hashlib.sha256()
    turns = request.messages or (("", request.text or ""),)
    for part in (*(f"{role}\0{content}" for role, content in turns), request.prefix, request.continuation or ""):
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\1")
    digest.update(repr((request.kind, request.stop, request.max_tokens, request.temperature, request.top_p)).encode())
    return digest.digest()


def _answer(request: Request, digest: bytes, seed: int) -> Response:
    length = sum(len(content) for _, content in request.messages or ()) + len(request.text or "") + len(request.prefix)
    if request.kind == "loglikelihood":
        value = -int.from_bytes(digest[:4], "big") / 2**28
        return Response(loglikelihood=value, is_greedy=digest[4] < 64, prompt_tokens=length // 4, completion_tokens=1)
    if request.temperature:
        digest = hashlib.sha256(digest + str(seed).encode()).digest()
    words_drawn = [WORDS[byte % len(WORDS)] for byte in digest[: 3 + digest[31] % 10]]
    ending = ANSWERS[digest[30] % len(ANSWERS)].format(letter="ABCD"[digest[29] % 4], number=digest[28] % 100)
    words = [*words_drawn[:-1], f"{words_drawn[-1]}.", *ending.split(" ")]
    budget = request.max_tokens if request.max_tokens is not None else len(words)
    raw = " ".join(words[:budget])
    text = cut_at_stop(raw, request.stop)
    stopped = len(words) <= budget or text != raw
    return Response(
        text=text,
        finish_reason="stop" if stopped else "length",
        prompt_tokens=length // 4,
        completion_tokens=min(len(words), budget),
        raw=raw if raw != text else None,
    )
