"""The engine inside a worker of any kind: it answers pieces and can be stopped."""

from __future__ import annotations

import os
import queue
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.models.base import Backend
from olmes_suite.records import Request
from olmes_suite.workers.bundling import Bundles
from olmes_suite.workers.scheduler import Seeds

Message = tuple[str, Any]
"""A kind and its content: "answers" and a list of answers, "error" and an OlmesError, "bug" and a traceback."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """The arguments of `make_backend` from which a worker builds its engine."""

    backend: str
    model: str | None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class About:
    """The description of an engine that is ready."""

    pid: int
    name: str
    chat: bool
    max_length: int | None
    tokenizer_name: str
    at_once: int
    seeded: bool
    together: bool
    notes: tuple[str, ...]
    unused_arguments: tuple[str, ...] = ()


class Engine:
    """A backend and the number of its current piece."""

    def __init__(self, recipe: Recipe) -> None:
        """Load the model. Raises what `make_backend` raises."""
        from olmes_suite.models.factory import make_backend

        self.backend: Backend = make_backend(recipe.backend, recipe.model, **recipe.options)
        self._number = 0

    def about(self) -> About:
        """Return the attributes that the runner reads from every backend."""
        b = self.backend
        return About(
            os.getpid(),
            b.name,
            b.chat,
            b.max_length,
            b.tokenizer_name,
            b.at_once,
            b.seeded,
            b.together,
            tuple(b.notes()),
            b.unused_arguments,
        )

    def tell(self, what: str, *arguments: Any) -> Any:
        """Return the backend's current fingerprint, settings or notes, or the value of another of its methods."""
        value = getattr(self.backend, what)
        return value(*arguments) if callable(value) else value

    def start(self, number: int) -> None:
        """Begin a piece and clear a stop of an earlier piece."""
        self._number = number
        self.backend.stop_requested = False

    def stop(self, number: int) -> None:
        """End the piece with this number after the current batch, where it is the current piece."""
        if number == self._number:
            self.backend.stop_requested = True

    def deliver(self, requests: Sequence[Request], seeds: Sequence[Seeds], send: Callable[[Message], None]) -> None:
        """Compute answers in this thread and send them in bundles from another. An error is the last message.

        Positions are counted within the piece.
        """
        last: Message | None = None
        with Bundles(lambda bundle: send(("answers", bundle))) as bundles:
            try:
                for answer in self.backend.run(requests, seeds):
                    bundles.put(answer)
            except OlmesError as error:
                last = "error", error
            except Exception:  # the parent shows the worker's traceback
                last = "bug", traceback.format_exc()
        if last is not None:
            send(last)

    def answer(self, requests: Sequence[Request], seeds: Sequence[Seeds]) -> Iterator[Message]:
        """Yield the messages of `deliver`, which runs in its own thread."""
        messages: queue.SimpleQueue[Message | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                self.deliver(requests, seeds, messages.put)
            finally:
                messages.put(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            while (message := messages.get()) is not None:
                yield message
        except GeneratorExit:  # the caller does not need the rest
            self.backend.stop_requested = True
            raise
        finally:
            thread.join()
