"""The host's side of a jail: it starts the jail's server, submits jobs, and restarts a server that is unusable."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.sandbox.inside import wire
from olmes_suite.sandbox.interpreter import Interpreter
from olmes_suite.sandbox.rungs import Rung, start

_START_SECONDS = 60.0
_GRACE = 15.0
"""Seconds beyond a program's limits after which the server counts as failed."""


class JailFailed(OlmesError):
    """The sandbox failed, so that nothing is known about the program."""

    exit_code = 1


class Jail:
    """A server process, started on first use. Not thread-safe: one job at a time."""

    def __init__(self, rung: Rung, python: Interpreter, preload: Sequence[str] = ()) -> None:
        self.rung, self.python, self.preload = rung, python, tuple(preload)
        self.confined: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._scratch: str | None = None

    def open(self) -> None:
        """Start the server. Raises JailFailed with the reason."""
        if self._process is not None:
            return
        link, jail_end = socket.socketpair()
        startup = start(self.rung, self.python, self.preload, jail_end.fileno())
        self._link, self._scratch = link, startup.scratch
        try:
            self._process = subprocess.Popen(
                startup.command, pass_fds=[jail_end.fileno()], env=startup.environment, stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, cwd="/",
            )  # fmt: skip
            jail_end.close()
            link.settimeout(_START_SECONDS)
            wire.send(link, startup.setup)
            answer = wire.receive(link)
        except (OSError, EOFError, wire.Malformed) as error:
            reason = self._stderr_line() or type(error).__name__
            self.close()
            raise JailFailed(f"{self.rung}: {reason}") from None
        if "error" in answer:
            self.close()
            raise JailFailed(f"{self.rung}: {answer['error']}")
        self.confined = answer["confined"]

    def _stderr_line(self) -> str:
        if self._process is None or self._process.stderr is None:
            return ""
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, stderr = self._process.communicate(timeout=2)
            lines = stderr.decode("utf-8", "replace").strip().splitlines()
            return lines[-1][:200] if lines else ""
        return ""

    def submit(self, job: dict[str, Any], handle: socket.socket | None = None) -> None:
        """Start a job and pass it the socket `handle`. Raises JailFailed."""
        self.open()
        assert self._link is not None
        try:
            self._link.settimeout(job["limits"]["wall"] * max(len(job.get("stdins", ())), 1) + _GRACE)
            socket.send_fds(self._link, [b"j"], [handle.fileno()] if handle is not None else [])
            wire.send(self._link, job)
        except OSError as error:
            self.close()
            raise JailFailed(f"{self.rung}: {type(error).__name__}") from None

    def stop(self) -> None:
        """End the program of the current job; `report` still returns its report."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.send(b"s")

    def report(self) -> dict[str, Any]:
        """Wait for the report of the current job. Raises JailFailed."""
        assert self._link is not None
        try:
            report: dict[str, Any] = wire.receive(self._link)
        except (OSError, EOFError, wire.Malformed) as error:
            self.close()
            raise JailFailed(f"{self.rung}: the server ended ({type(error).__name__})") from None
        if not report["clean"]:
            self.close()
        if report["problem"] is not None:
            raise JailFailed(f"{self.rung}: {report['problem']}")
        return report

    def close(self) -> None:
        """End the server and every process in the jail."""
        if self._link is not None:
            self._link.close()
            self._link = None
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=2)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, 9)
            self._process.kill()
            self._process.wait()
            if self._process.stderr is not None:
                self._process.stderr.close()
            self._process = None
        if self._scratch is not None:
            # Not shutil.rmtree, which fails on folders nested a thousand deep.
            subprocess.run(["rm", "-rf", self._scratch], stderr=subprocess.DEVNULL, check=False)
            self._scratch = None
