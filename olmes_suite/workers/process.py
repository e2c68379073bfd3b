"""A worker in a process on this machine."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection
from typing import Any

from olmes_suite.workers.base import Worker, WorkerDied, unless_error
from olmes_suite.workers.engine import About, Recipe
from olmes_suite.workers.scheduler import Answered, Piece

END_SECONDS = 20.0
"""Seconds for a worker to free its model before it is killed."""


class ProcessWorker(Worker):
    """A Python process with an engine. `env` is added to its environment, for example the GPUs that it sees."""

    def __init__(self, recipe: Recipe, env: Mapping[str, str]) -> None:
        parent_end, worker_end = socket.socketpair()
        with worker_end:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "olmes_suite.workers.process_main", str(worker_end.fileno())],
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=2,  # output of libraries must not appear in the output of `--json`
                pass_fds=(worker_end.fileno(),),
                start_new_session=True,  # the parent handles Ctrl-C
            )
        atexit.register(self._process.kill)  # ends the worker also where this process ends without `close`
        self._connection = Connection(parent_end.detach())
        self._sending = threading.Lock()
        self._send(recipe)

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def ready(self) -> About:
        """Wait for the model."""
        about: About = unless_error(self._receive())
        return about

    def answer(self, piece: Piece) -> Iterator[list[Answered]]:
        """Yield lists of answers."""
        self._send(("piece", (piece.number, piece.requests, piece.seeds)))
        failure: tuple[str, Any] | None = None
        while (message := self._receive())[0] != "done":
            if message[0] == "answers":
                yield message[1]
            else:
                failure = message
        if failure is not None:
            unless_error(failure)

    def stop(self, piece: Piece) -> None:
        """End the piece. May be called while `answer` runs in another thread."""
        try:
            self._send(("stop", piece.number))
        except WorkerDied:
            return  # `answer` raises the same error

    def tell(self, what: str, *arguments: Any) -> Any:
        """Query the engine between pieces."""
        self._send(("tell", (what, *arguments)))
        return unless_error(self._receive())

    def close(self, gently: bool = True) -> None:
        """End the process, or kill it where it does not respond."""
        try:
            if not gently:
                self._process.kill()
            else:
                self._send(("end", None))
            self._process.wait(END_SECONDS)
        except (WorkerDied, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        atexit.unregister(self._process.kill)
        self._connection.close()

    def _send(self, message: object) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError:
            raise WorkerDied(self._cause_of_death()) from None

    def _receive(self) -> tuple[str, Any]:
        try:
            message: tuple[str, Any] = self._connection.recv()
        except (EOFError, OSError):
            raise WorkerDied(self._cause_of_death()) from None
        return message

    def _cause_of_death(self) -> str:
        try:
            code = self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code >= 0:
            return f"process {self.pid} ended with status {code}"
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"process {self.pid} was killed by {name}" + (": out of memory?" if name == "SIGKILL" else "")
