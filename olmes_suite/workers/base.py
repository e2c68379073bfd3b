"""What the scheduler needs of a worker; there are two kinds, processes and Ray actors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.workers.engine import About, Message
from olmes_suite.workers.scheduler import Answered, Piece


class WorkerDied(Exception):
    """A worker is gone, with the reason."""


class WorkersDead(OlmesError):
    """All workers are gone; what was answered before is on disk."""

    exit_code = 1


class Worker(ABC):
    """An engine elsewhere. All methods but `close` raise WorkerDied when it is gone."""

    @abstractmethod
    def ready(self) -> About:
        """Waits until the model is loaded. Raises OlmesError where it cannot be."""

    @abstractmethod
    def answer(self, piece: Piece) -> Iterator[list[Answered]]:
        """Lists of answers, positions counted within the piece. Raises OlmesError when the engine gives up."""

    @abstractmethod
    def stop(self, piece: Piece) -> None:
        """End the piece after the batch in hand. Any thread may call it."""

    @abstractmethod
    def tell(self, what: str) -> Any:
        """What `Engine.tell` says; between pieces only."""

    @abstractmethod
    def close(self, gently: bool = True) -> None:
        """Let the model go, and the worker with it; at once unless `gently`."""


def unless_error(message: Message) -> Any:
    """The content of a message. Raises the error that it brings; a bug with the worker's traceback."""
    kind, content = message
    if kind == "error":
        raise content
    if kind == "bug":
        raise RuntimeError(f"a worker failed:\n{content}")
    return content
