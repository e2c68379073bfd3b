"""Parallel verdicts in the order of the calls: worker processes for most verifiers, the sandbox for programs, and a
served model for judged rewards, which is asked while the others verify.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import OlmesError, UsageError
from olmes_suite.scoring.tools import ToolOptions, Tools
from train_plugins.verifiers import judged, registry
from train_plugins.verifiers.base import Call, Malformed, OutOfTime, VerifierFailed, where
from train_plugins.verifiers.process import Ended, Process

if TYPE_CHECKING:
    from train_plugins.verifiers.judge_keys import JudgeKeys
    from train_plugins.verifiers.judges import Judges


class Verifiers:
    """Verifiers by name, with worker processes that live as long as this context manager; for use by one thread."""

    def __init__(
        self,
        names: Sequence[str] | None,
        workers: int = 2,
        timeout: float = 10.0,
        *,
        judge: JudgeKeys | None = None,
        processes: int = 1,
    ) -> None:
        """Check names and numbers; the processes start on entering the context. Raises UsageError.

        `names` are loaded at the start, and no others are allowed; None allows any known verifier, loaded at its first
        call. `timeout` limits a verdict's processor seconds, and its waiting to three times as many; beyond that the
        verdict is 0 and counted. Programs have the sandbox's limits. `judge`: the model that judged rewards ask;
        `processes` of a training share its limits.
        """
        if workers < 1 or timeout <= 0:
            raise UsageError(f"verifiers need at least one worker and a timeout above 0, not {workers} and {timeout} s")
        self.names = None if names is None else registry.check(names)
        self.timeout = timeout
        self.timeouts = 0
        """Number of verdicts that ran out of time, which count as not verified."""
        self.crashes = 0
        """Number of verdicts that ended two processes (out of memory, say), which count as not verified."""
        self.judges = _judges(judge, processes) if judge is not None else None
        """The judge; None without one."""
        self._asking: ThreadPoolExecutor | None = None
        self._processes = [Process() for _ in range(workers)]
        self._idle: queue.SimpleQueue[Process] = queue.SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._tools = Tools(ToolOptions())
        self._programs: dict[str, Callable[..., float | None]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Verifiers:
        """Start the processes. Raises VerifierFailed if a verifier cannot be loaded, MissingData without a sandbox."""
        # A process ends with the thread that started it (worker.py), and these threads live until `close`.
        self._threads = ThreadPoolExecutor(len(self._processes), thread_name_prefix="verifier")
        self._asking = ThreadPoolExecutor(1, thread_name_prefix="judge") if self.judges else None
        for process in self._processes:
            self._idle.put(process)
        names = self.names or []
        try:
            for name in names:
                if name in registry.SANDBOXED:
                    self._program(name)
            list(self._threads.map(lambda process: [self._load(process, name) for name in names], self._processes))
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close()

    def close(self) -> None:
        """End the processes, even while they verify."""
        for process in self._processes:
            process.stop()
        if self.judges is not None:
            self.judges.abandon()
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
            self._threads = None
        if self._asking is not None and self.judges is not None:
            self._asking.shutdown(wait=True, cancel_futures=True)
            self._asking = None
            self.judges.close()
        for process in self._processes:
            process.kill()
        self._tools.close()

    def verify(self, calls: Sequence[Call]) -> list[float | None]:
        """Return the verified fraction of each call, in order; None for a row that is to be skipped.

        Raises UsageError for a verifier that is unknown or not allowed, VerifierFailed if one raises an error.
        """
        if self._threads is None:
            raise RuntimeError("verifiers are a context manager: use them inside `with`")
        named = [self._allowed(call.verifier) for call in calls]
        asked = [number for number, name in enumerate(named) if name in registry.JUDGED]
        judging = self._submit_judged([replace(calls[number], verifier=named[number]) for number in asked])
        futures = {
            number: self._threads.submit(self._verdict, name, call)
            for number, (name, call) in enumerate(zip(named, calls, strict=True))
            if name not in registry.JUDGED
        }
        try:
            found = {number: future.result() for number, future in futures.items()}
            found |= dict(zip(asked, judging.result() if judging else (), strict=True))
        finally:
            for future in futures.values():
                future.cancel()
        fractions = [found[number] for number in range(len(calls))]
        if any(process.stopped for process in self._processes):
            raise RuntimeError("the verifiers were closed while they verified; verdicts are missing")
        return fractions

    def check_truths(self, calls: Sequence[Call]) -> None:
        """Check before a training that verifiers can read the truths, by verifying empty responses (about 1 ms each).

        Raises VerifierFailed, which names the first row whose truth its verifier cannot read.
        """
        for call in calls:
            (name,) = registry.check([call.verifier])
            if name in registry.JUDGED:
                try:
                    judged.check_judged(name, call.truth)
                except Malformed as error:
                    raise VerifierFailed(f"{where(call)}: {error}") from None
        self.verify([replace(call, response="") for call in calls])

    def _submit_judged(self, calls: Sequence[Call]) -> Future[list[float | None]] | None:
        """Start to ask the judge. Raises UsageError without one."""
        if not calls:
            return None
        if self.judges is None or self._asking is None:
            raise UsageError(f"the verifier {calls[0].verifier} needs a judge: set rlvr.judge")
        return self._asking.submit(self.judges.verify, calls)

    def _allowed(self, name: str) -> str:
        (registered,) = registry.check([name])
        if self.names is not None and registered not in self.names:
            raise UsageError(f"the data name the verifier {name!r}; the recipe names {', '.join(self.names)}")
        return registered

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
            except Ended:  # perhaps not the response's fault: the system kills processes when memory is short
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
        if name not in registry.SANDBOXED and name not in registry.JUDGED:
            process.load(name)


def _judges(keys: JudgeKeys, processes: int) -> Judges:
    from train_plugins.verifiers.judges import Judges  # imports the client of servers

    return Judges(keys, processes)
