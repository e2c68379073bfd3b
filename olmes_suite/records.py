"""The frozen data that the parts exchange: requests, responses and scored documents. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["generate", "loglikelihood"]
Message = dict[str, str]
"""{"role": "system" | "user" | "assistant", "content": text}"""


def canonical_json(value: object) -> str:
    """Serialise a value as JSON with sorted keys and no white space, so that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def sha256(text: str | bytes) -> str:
    """Return the SHA-256 as hexadecimal digits. Text is encoded as UTF-8."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text).hexdigest()


CONTEXT = 2**31 - 1
"""`max_tokens` of an answer that may take all that the model's context leaves after the prompt."""
OPTIONAL = ("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
"""Sampling fields that few tasks set."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request to a model for one document, before any chat template is applied.

    Exactly one of `messages` and `text` is set. A log-likelihood request has a `continuation` and none of the
    sampling settings.
    """

    task: str
    """The leaf task, with its prefix."""
    doc_id: int
    """The row of the evaluation split, from 0, before any filter."""
    index: int
    """The position among the document's requests (the choice, for log-likelihood)."""
    kind: Kind
    messages: tuple[tuple[str, str], ...] | None = None
    """(role, content) pairs."""
    text: str | None = None
    prefix: str = ""
    """The start of the assistant's answer, appended after the rendered chat template; not part of the response."""
    continuation: str | None = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    samples: int = 1
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    unset: tuple[str, ...] = ()
    """Sampling fields that are left to the server's default, whatever their values here."""

    @property
    def chat(self) -> list[Message]:
        """The messages in the form that a chat template takes."""
        return [{"role": role, "content": content} for role, content in self.messages or ()]

    def asked(self) -> dict[str, Any]:
        """Return the fields that the model sees, from which the key is computed.

        The fields of `OPTIONAL` are left out where they are not set, so that keys of requests without them stay equal.
        """
        optional = {name: getattr(self, name) for name in OPTIONAL if getattr(self, name) is not None}
        if self.unset:
            optional["unset"] = self.unset
        return optional | {
            "kind": self.kind, "messages": self.messages, "text": self.text, "prefix": self.prefix,
            "continuation": self.continuation, "stop": self.stop, "max_tokens": self.max_tokens,
            "temperature": self.temperature, "top_p": self.top_p, "samples": self.samples,
        }  # fmt: skip

    def key(self, model_fingerprint: str) -> str:
        """Return the SHA-256 of the canonical JSON of these fields and the model's fingerprint."""
        return sha256(canonical_json([self.asked(), model_fingerprint]))


@dataclass(frozen=True, slots=True)
class Response:
    """An answer of a model to one request."""

    text: str | None = None
    """The generated text, cut at the first stop string; None for log-likelihood."""
    loglikelihood: float | None = None
    """The sum of natural-log probabilities of the continuation's tokens."""
    is_greedy: bool | None = None
    finish_reason: str | None = None
    """"stop" (a stop string or end-of-text), "length" (the token limit), None for log-likelihood."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    truncated: bool = False
    """Whether the prompt did not fit the model's context and was cut on the left."""
    raw: str | None = None
    """What the model generated, whole, where that differs from `text`: before the cut at a stop string, and with the
    thought and its marks."""
    thinking: str | None = None
    """What the model thought before it answered; None without a thought."""
    unclosed: bool = False
    """Whether the answer ended inside a thought."""
    thinking_tokens: int | None = None
    """The part of `completion_tokens` spent on the thought and its marks; None without a thought."""
    limit: int | None = None
    """The token limit that was in effect, where it is not the request's `max_tokens`."""


SCORER_TIMEOUT = "scorer_timeout"
"""Flag of a document with a check that ran out of time."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one document, or of one response to it."""

    scores: dict[str, float | None]
    """The value of each metric, as a fraction from 0 to 1."""
    extracted: str | None = None
    """The answer that the scorer extracted from the response."""
    failed: bool = False
    """Whether the scorer found no answer in the response: an extraction failure, which does not change the score."""
    weight: float = 1.0
    """The document's weight in metrics marked `weighted` (the number of instructions for IFEval's inst-level)."""
    flags: tuple[str, ...] = ()
    """Additional flags of the document: judge_unparsed (a judge's answer could not be read), checker_error,
    scorer_timeout."""
    verdict: str | None = None
    """The verdict on a program (code tasks only): pass, fail, timeout or error, and the reason after a colon."""


@dataclass(frozen=True, slots=True)
class Generated:
    """What one generated answer took and how it ended, without its text."""

    thinking_tokens: int = 0
    """Tokens of the thought and its marks."""
    answer_tokens: int = 0
    """Tokens of the rest of the answer."""
    finish_reason: str | None = None
    """As in `Response`; None where the source does not tell."""
    unclosed: bool = False
    """Whether the answer ended inside a thought."""
    empty: bool = False
    """Whether nothing is left to score but white space."""

    @classmethod
    def of(cls, response: Response) -> Generated:
        """Return the counts of a response."""
        thinking = min(response.thinking_tokens or 0, response.completion_tokens)
        return cls(
            thinking,
            response.completion_tokens - thinking,
            response.finish_reason,
            response.unclosed,
            not (response.text or "").strip(),
        )

    @property
    def tokens(self) -> int:
        """All generated tokens."""
        return self.thinking_tokens + self.answer_tokens


@dataclass(frozen=True, slots=True)
class Instance:
    """One scored document of a run."""

    task: str
    doc_id: int
    cluster: str
    scored: Scored
    samples: tuple[Scored, ...] = ()
    reference: Any = None
    flags: tuple[str, ...] = ()
    """A subset of truncated, length, unclosed, empty, extraction_failed, scorer_timeout, sandbox_error, judge_unparsed
    and checker_error."""
    stratum: str = ""
    """The document's part of the task, where the parts have equal weight in the score."""
    generated: tuple[Generated, ...] = ()
    """One entry per generated answer; empty for log-likelihood and where only texts are known."""
