"""The trainer's side of a verifying process: send a call, wait for the verdict, kill the process on a timeout."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from train_plugins.verifiers.base import Call, OutOfTime, VerifierFailed, where

START_SECONDS = 120.0
"""Time limit for a process to start and import a verifier."""
WAITING = 3.0
"""Factor between the time that a verdict may wait (for a busy processor, say) and that which it may compute."""


class Ended(Exception):
    """The process has ended: it ran out of memory, or crashed."""


class Process:
    """A verifying process for one call at a time, which starts (again) when it is needed."""

    def __init__(self) -> None:
        self.child: subprocess.Popen[bytes] | None = None
        self.loaded: set[str] = set()
        self.stopped = False

    def load(self, name: str) -> None:
        """Import a verifier outside any verdict's time. Raises VerifierFailed."""
        if name in self.loaded:
            return
        try:
            answer = self._ask({"load": name}, START_SECONDS)
        except (Ended, OutOfTime) as error:
            self.kill()
            if self.stopped:
                raise Ended from None
            how = "its process ended" if isinstance(error, Ended) else f"not done after {START_SECONDS:.0f} s"
            answer = {"error": how}
        if "error" in answer:
            raise VerifierFailed(f"verifier {name} cannot be loaded: {answer['error']}")
        self.loaded.add(name)

    def verify(self, name: str, call: Call, timeout: float) -> float | None:
        """Return the verdict. Raises VerifierFailed; or OutOfTime or Ended, after which a new process starts."""
        self.load(name)
        question = {"verify": name, "response": call.response, "truth": call.truth, "row": dict(call.row)}
        try:
            answer = self._ask(question, timeout)
        except BaseException:
            self.kill()
            raise
        if "error" in answer:
            raise VerifierFailed(f"{where(call)}: {answer['error']}")
        value: float | None = answer["value"]
        return value

    def stop(self) -> None:
        """End the process for good: calls from other threads raise Ended. Call `kill` afterwards to free its pipes."""
        self.stopped = True
        child = self.child
        if child is not None:
            child.kill()

    def kill(self) -> None:
        """End the process and free its pipes; the next call starts a new one."""
        if self.child is None:
            return
        self.child.kill()
        self.child.wait()
        for pipe in (self.child.stdin, self.child.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # type: ignore[union-attr]
        self.child, self.loaded = None, set()

    def _ask(self, question: dict[str, Any], seconds: float) -> dict[str, Any]:
        line = json.dumps(question, default=_plain).encode("ascii") + b"\n"
        if self.stopped:
            raise Ended
        child = self.child = self.child or _start()
        assert child.stdin is not None and child.stdout is not None
        begun, used = time.monotonic(), _processor_seconds(child.pid)
        try:
            child.stdin.write(line)
            child.stdin.flush()
        except OSError:
            raise Ended from None
        while True:
            waited = time.monotonic() - begun
            now = None if used is None else _processor_seconds(child.pid)
            computed = waited if now is None or used is None else now - used
            left = min(seconds - computed, WAITING * seconds - waited)
            if left <= 0:
                raise OutOfTime
            if select.select([child.stdout], [], [], left)[0]:
                reply = child.stdout.readline()
                if not reply.endswith(b"\n"):
                    raise Ended
                answer: dict[str, Any] = json.loads(reply)
                return answer


def _start() -> subprocess.Popen[bytes]:
    """Start a process that shares no memory with this one, because torch may have threads here."""
    return subprocess.Popen(
        [sys.executable, "-m", "train_plugins.verifiers.worker"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def _processor_seconds(pid: int) -> float | None:
    """Return the user and system time of a process so far; None if the system does not report it."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None


def _plain(value: Any) -> Any:
    """Convert values for JSON: arrays and NumPy numbers to lists and numbers, anything else to text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
