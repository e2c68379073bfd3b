"""The program of a worker process: `python -m olmes_suite.workers.process_main FD`.

It receives pieces over the socket FD and sends answers back. It ends when its parent ends, also while the model loads,
because the socket closes.
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
    """The worker's end of the socket. A thread listens while the main thread loads the model or computes answers."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._engine: Engine | None = None
        self._todo: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self) -> None:
        """Build an engine from the recipe, which comes first, report that it is ready, and serve until the end."""
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
                self._send(_query(engine, *content))
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
        """Receive the parent's messages."""
        try:
            while True:
                kind, content = self._connection.recv()
                if kind == "stop":
                    if self._engine is not None:
                        self._engine.stop(content)
                elif kind == "end":
                    self._todo.put(None)
                elif kind == "piece":
                    number, *requests_and_seeds = content
                    if self._engine is not None:
                        self._engine.start(number)
                    self._todo.put((kind, requests_and_seeds))
                else:
                    self._todo.put((kind, content))
        except (EOFError, OSError):
            _leave()


def _leave() -> None:
    """End at once: without a parent, nothing needs the model or the current batch."""
    os._exit(1)


def _query(engine: Engine, what: str, *arguments: Any) -> Message:
    try:
        return "value", engine.tell(what, *arguments)
    except OlmesError as error:
        return "error", error


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    Server(Connection(int(sys.argv[1]))).run()
