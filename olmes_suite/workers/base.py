"""The interface of a worker to the scheduler, implemented by processes and by Ray actors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.workers.engine import About, Message
from olmes_suite.workers.scheduler import Answered, Piece


class WorkerDied(Exception):
    """A worker died; the message is the reason."""


class WorkersDead(OlmesError):
    """All workers died. The answers so far are on disk."""

    exit_code = 1


class Worker(ABC):
    """An engine in another process. All methods except `close` raise WorkerDied where the worker is dead."""

    @abstractmethod
    def ready(self) -> About:
        """Wait until the model is loaded and return the engine's description. Raises OlmesError where loading fails."""

    @abstractmethod
    def answer(self, piece: Piece) -> Iterator[list[Answered]]:
        """Yield lists of answers, with positions within the piece. Raises OlmesError where the engine fails."""

    @abstractmethod
    def stop(self, piece: Piece) -> None:
        """End the piece after the current batch. Any thread may call this."""

    @abstractmethod
    def tell(self, what: str, *arguments: Any) -> Any:
        """Return the value of `Engine.tell`. Call it between pieces only."""

    @abstractmethod
    def close(self, gently: bool = True) -> None:
        """End the worker and free its model, at once unless `gently`."""


def unless_error(message: Message) -> Any:
    """Return the content of a message. Raises its error, or RuntimeError with the worker's traceback for a bug."""
    kind, content = message
    if kind == "error":
        raise content
    if kind == "bug":
        raise RuntimeError(f"a worker failed:\n{content}")
    return content
