"""A worker process: `python -m olmes_suite.workers.process_main FD`. Pieces come over the socket FD, answers go back.

It ends when its parent does, however that ends, also while the model is loaded: the socket closes.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.workers.engine import Engine, Message


class Server:
    """One end of the socket: a thread listens, also while the main thread loads the model or answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._engine: Engine | None = None
        self._todo: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        """Make an engine from the recipe that comes first, say so, then serve until told to end."""
        try:
            recipe = self._connection.recv()
        except (EOFError, OSError):
            return
        threading.Thread(target=self._listen, daemon=True).start()
        try:
            self._engine = engine = Engine(recipe)
            self._send(("ready", engine.about()))
        except OlmesError as error:
            self._send(("error", error))
            return
        except Exception:
            self._send(("bug", traceback.format_exc()))
            return
        while (job := self._todo.get()) is not None:
            kind, content = job
            if kind == "tell":
                self._send(_told(engine, content))
                continue
            requests, seeds = content
            engine.deliver(requests, seeds, self._send)
            self._send(("done", None))
        engine.backend.close()

    def _send(self, message: Message) -> None:
        try:
            self._connection.send(message)
        except OSError:
            _leave()

    def _listen(self) -> None:
        """Read what the parent says."""
        try:
            while True:
                kind, content = self._connection.recv()
                if kind == "stop":
                    if self._engine is not None:
                        self._engine.stop(content)
                elif kind == "end":
                    self._todo.put(None)
                elif kind == "piece":
                    number, *asked = content
                    if self._engine is not None:
                        self._engine.start(number)
                    self._todo.put((kind, asked))
                else:
                    self._todo.put((kind, content))
        except (EOFError, OSError):
            _leave()


def _leave() -> None:
    """The parent is gone: a model under way, or a batch in hand, is for nobody."""
    os._exit(1)


def _told(engine: Engine, what: str) -> Message:
    try:
        return "told", engine.tell(what)
    except OlmesError as error:
        return "error", error


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    Server(Connection(int(sys.argv[1]))).run()
