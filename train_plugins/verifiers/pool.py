"""Many verdicts at once, in the calls' order: processes for what may hang, the sandbox for programs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from olmes_suite.errors import OlmesError, UsageError
from olmes_suite.scoring.tools import ToolOptions, Tools
from train_plugins.verifiers import registry
from train_plugins.verifiers.base import Call, Malformed, OutOfTime, VerifierFailed, where
from train_plugins.verifiers.process import Ended, Process


class Verifiers:
    """Verifiers by name, with processes that live as long as it does: a context manager, for one thread."""

    def __init__(self, names: Sequence[str] | None, workers: int = 2, timeout: float = 10.0) -> None:
        """`names`: loaded beforehand, and the only ones allowed; None: any known one, loaded when it is first called.

        `timeout`: processor seconds of one verdict (of waiting, three times that), after which it is 0 and counted;
        programs have the sandbox's limits. Raises UsageError for names and numbers.
        """
        if workers < 1 or timeout <= 0:
            raise UsageError(f"verifiers need at least one worker and some time, not {workers} and {timeout} s")
        self.names = None if names is None else registry.check(names)
        self.timeout = timeout
        self.timeouts = 0
        """Verdicts that ran out of time: not verified."""
        self.crashes = 0
        """Verdicts under which two processes ended (out of memory, say): not verified."""
        self._processes = [Process() for _ in range(workers)]
        self._idle: queue.SimpleQueue[Process] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._tools = Tools(ToolOptions())
        self._programs: dict[str, Callable[..., float | None]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Verifiers:
        """Start. Raises VerifierFailed for a verifier that cannot be loaded, MissingData where there is no sandbox."""
        # A process ends with the thread that started it (worker.py), and these threads live until `close`.
        self._threads = ThreadPoolExecutor(len(self._processes), thread_name_prefix="verifier")
        for process in self._processes:
            self._idle.put(process)
        wanted = self.names or []
        try:
            for name in wanted:
                if name in registry.SANDBOXED:
                    self._program(name)
            list(self._threads.map(lambda process: [self._load(process, name) for name in wanted], self._processes))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, whatever they are at."""
        for process in self._processes:
            process.stop()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        for process in self._processes:
            process.kill()
        self._tools.close()

    def verify(self, calls: Sequence[Call]) -> list[float | None]:
        """The verified fraction of each call, in order; None where the row is to be skipped.

        Raises UsageError for a verifier that is unknown or was not named, VerifierFailed where one raises.
        """
        if self._threads is None:
            raise RuntimeError("verifiers are a context manager: use them inside `with`")
        named = [self._allowed(call.verifier) for call in calls]
        futures = [self._threads.submit(self._verdict, name, call) for name, call in zip(named, calls, strict=True)]
        try:
            found = [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()
        if any(process.stopped for process in self._processes):
            raise RuntimeError("closed while it verified: what was not answered is no verdict")
        return found

    def check_truths(self, calls: Sequence[Call]) -> None:
        """Read the truths of these calls by verifying an empty response, about a millisecond each; before a training.

        Raises VerifierFailed naming the first row, in order, whose truth its verifier cannot read.
        """
        self.verify([replace(call, response="") for call in calls])

    def _allowed(self, name: str) -> str:
        (own,) = registry.check([name])
        if self.names is not None and own not in self.names:
            raise UsageError(f"the data ask for the verifier {name!r}; the recipe names {', '.join(self.names)}")
        return own

    def _verdict(self, name: str, call: Call) -> float | None:
        try:
            return self._judge(name, call)
        except OutOfTime:
            with self._lock:
                self.timeouts += 1
        except Ended:
            with self._lock:
                self.crashes += 1
        return 0.0

    def _judge(self, name: str, call: Call) -> float | None:
        if name in registry.SANDBOXED:
            return self._run_program(name, call)
        process = self._idle.get()
        try:
            try:
                return process.verify(name, call, self.timeout)
            except Ended:  # not its own fault, perhaps: the system ends processes where memory is short
                return process.verify(name, call, self.timeout)
        finally:
            self._idle.put(process)

    def _run_program(self, name: str, call: Call) -> float | None:
        try:
            return self._program(name)(call.response, call.truth, call.row, self._tools.get("sandbox"))
        except Malformed as error:
            raise VerifierFailed(f"{where(call)}: {error}") from None
        except (OlmesError, OutOfTime):
            raise
        except Exception as error:
            raise VerifierFailed(f"{where(call)}: it raised {type(error).__name__}: {error}") from error

    def _program(self, name: str) -> Callable[..., Any]:
        self._tools.get("sandbox")
        return self._programs.setdefault(name, registry.load(name))

    @staticmethod
    def _load(process: Process, name: str) -> None:
        if name not in registry.SANDBOXED:
            process.load(name)
