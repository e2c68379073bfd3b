"""The judge protocol: a judge answers questions in any order; a failure is an error, never a verdict."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Question:
    """A request to a judge model. Exactly one of `messages` and `text` is set."""

    messages: tuple[tuple[str, str], ...] | None = None
    """(role, content) pairs for the chat endpoint."""
    text: str | None = None
    """A raw prompt for the completion endpoint, in the model's format."""
    max_tokens: int = 128
    temperature: float = 0.0
    top_logprobs: int = 0
    """Number of alternatives of the first generated token to return; 0 for none."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a judge."""

    text: str
    first_token: tuple[tuple[str, float], ...] = ()
    """(token, natural-log probability) of the alternatives of the first token, likeliest first."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached: bool = False
    """Whether the answer came from the cache."""


class Judge(Protocol):
    """A model that answers questions about responses."""

    name: str
    """Name on the command line."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything that decides the answers; part of the scorer fingerprint of the judged tasks."""

    def ask(self, questions: Sequence[Question]) -> Iterator[tuple[int, Answer]]:
        """Yield (position, answer) in order of arrival. Raises RequestFailed if a question fails permanently."""
