"""The engine within a worker, of whatever kind: it answers pieces and can be told to stop."""

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
""""answers": a list of them; "error": an OlmesError; "bug": a traceback."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a worker makes its engine from: the arguments of `make_backend`."""

    backend: str
    model: str | None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class About:
    """What an engine says of itself when it is ready."""

    pid: int
    name: str
    chat: bool
    max_length: int | None
    tokenizer_name: str
    at_once: int
    seeded: bool
    together: bool
    notes: tuple[str, ...]


class Engine:
    """A backend and the number of the piece that it is at work on."""

    def __init__(self, recipe: Recipe) -> None:
        """Load the model. Raises what `make_backend` raises."""
        from olmes_suite.models.factory import make_backend

        self.backend: Backend = make_backend(recipe.backend, recipe.model, **recipe.options)
        self._number = 0

    def about(self) -> About:
        """What the runner asks every backend for."""
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
        )

    def tell(self, what: str) -> Any:
        """The backend's fingerprint (str), settings (dict) or notes (list of str), as they are now."""
        found = getattr(self.backend, what)
        return found() if callable(found) else found

    def start(self, number: int) -> None:
        """The piece that is to be answered next: a stop that was meant for an earlier one is forgotten."""
        self._number = number
        self.backend.stop_requested = False

    def stop(self, number: int) -> None:
        """End the piece of that number, if it is the one in hand, after the batch in hand."""
        if number == self._number:
            self.backend.stop_requested = True

    def deliver(self, requests: Sequence[Request], seeds: Sequence[Seeds], send: Callable[[Message], None]) -> None:
        """Compute answers in this thread; another sends them in bundles. An error is the last message.

        The positions are those within the piece.
        """
        last: Message | None = None
        with Bundles(lambda bundle: send(("answers", bundle))) as bundles:
            try:
                for answer in self.backend.run(requests, seeds):
                    bundles.put(answer)
            except OlmesError as error:
                last = "error", error
            except Exception:  # shown by the parent with the worker's own traceback
                last = "bug", traceback.format_exc()
        if last is not None:
            send(last)

    def answer(self, requests: Sequence[Request], seeds: Sequence[Seeds]) -> Iterator[Message]:
        """The messages of `deliver`, which runs in a thread of its own."""
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
        except GeneratorExit:  # nobody wants the rest
            self.backend.stop_requested = True
            raise
        finally:
            thread.join()
