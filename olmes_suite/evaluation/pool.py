"""Scoring during generation: light scorers run at once, isolated ones in worker processes with a time limit."""

from __future__ import annotations

import json
import os
import queue
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from olmes_suite.errors import MissingData, OlmesError
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import SandboxedScorer, Scorer
from olmes_suite.scoring.tools import Tools

Done = Callable[[Scored, list[Scored], bool], None]
"""Called with the document's scores, the scores of each response, and whether the scorer ran out of time or memory."""


class ScorerFailed(OlmesError):
    """A scoring function raised an exception: a bug in the task, reported with the document."""

    exit_code = 1


START_SECONDS = 120.0
"""Time limit for a process to start and import a scorer."""


@dataclass(slots=True)
class _Job:
    scorer: Scorer
    metrics: tuple[str, ...]
    doc: Mapping[str, Any]
    responses: list[Any]
    where: str
    done: Done


class _Worker:
    """A process that scores one document at a time."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            [sys.executable, "-m", "olmes_suite.evaluation.scoring_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads of libraries take address space, which is limited
        )
        self._loaded: set[tuple[str, str]] = set()

    def ended(self) -> bool:
        """Whether the process has ended by itself."""
        return self._child.poll() is not None

    def kill(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()

    def load(self, job: _Job) -> bool:
        """Import the scorer, outside the time of any document. Returns False if the process hangs or ends."""
        place = _place(job.scorer)
        if place not in self._loaded:
            if self._ask(job, {}, START_SECONDS) is None:
                return False
            self._loaded.add(place)
        return True

    def score(self, job: _Job) -> dict[str, Any] | None:
        """Return the worker's answer; None if it ran out of time or memory."""
        content = {"doc": dict(job.doc), "responses": job.responses}
        return self._ask(job, content, job.scorer.timeout * max(1, len(job.responses)))

    def _ask(self, job: _Job, content: dict[str, Any], seconds: float) -> dict[str, Any] | None:
        child, (file, name) = self._child, _place(job.scorer)
        assert child.stdin is not None and child.stdout is not None
        line = json.dumps({"file": file, "name": name, **content}, ensure_ascii=False, default=str) + "\n"
        try:
            child.stdin.write(line.encode("utf-8", "surrogatepass"))
            child.stdin.flush()
        except BrokenPipeError:  # it has ended, such as for want of memory
            return None
        ready, _, _ = select.select([child.stdout], [], [], seconds)
        reply = child.stdout.readline() if ready else b""
        if not reply:
            return None
        answer: dict[str, Any] = json.loads(reply)
        if "olmes_error" in answer:  # a resource that the scorer needs is not on this machine
            raise MissingData(answer["olmes_error"])
        if "error" in answer:
            raise ScorerFailed(f"{job.where}: the scorer raised {answer['error']}")
        return answer


def _place(scorer: Scorer) -> tuple[str, str]:
    return scorer.function.__code__.co_filename, scorer.function.__name__


class ScoringPool:
    """Scores documents in up to `workers` processes, which start with the first isolated scorer."""

    def __init__(self, workers: int | None = None, tools: Tools | None = None) -> None:
        """`tools` provides the sandbox to scorers."""
        self.tools = tools or Tools()
        self.workers = workers or max(1, min(8, os.cpu_count() or 2))
        self._jobs: queue.Queue[_Job | None] = queue.Queue(maxsize=256)
        self._threads: list[threading.Thread] = []
        self._error: BaseException | None = None
        self._lock = threading.Lock()

    def __enter__(self) -> ScoringPool:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self.close(wait=kind is None)

    def submit(
        self,
        scorer: Scorer,
        metrics: tuple[str, ...],
        doc: Mapping[str, Any],
        responses: list[Any],
        *,
        where: str,
        done: Done,
    ) -> None:
        """Score a document's responses. `done` is called from this or another thread, one call at a time.

        `where` names the document in errors.
        """
        self._raise()
        if not scorer.isolated and not isinstance(scorer, SandboxedScorer):
            try:
                scored, samples = scorer.document(doc, responses)
            except OlmesError:
                raise
            except Exception as error:
                raise ScorerFailed(f"{where}: the scorer raised {type(error).__name__}: {error}") from error
            with self._lock:
                done(scored, samples, False)
            return
        if not self._threads:
            self._threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(self.workers)]
            for thread in self._threads:
                thread.start()
        job = _Job(scorer, metrics, doc, responses, where, done)
        while True:
            self._raise()
            try:
                return self._jobs.put(job, timeout=0.5)
            except queue.Full:
                continue

    def join(self) -> None:
        """Wait until all submitted documents are scored. Raises ScorerFailed if a scorer raised an exception."""
        if self._threads:
            self._jobs.join()
        self._raise()

    def forget(self) -> None:
        """Drop the queued documents and the error of a failed task."""
        self._drop()
        self._jobs.join()
        self._error = None

    def _drop(self) -> None:
        with suppress(queue.Empty):
            while True:
                self._jobs.get_nowait()
                self._jobs.task_done()

    def close(self, wait: bool = True) -> None:
        """End the workers. Without `wait`, queued documents are dropped."""
        if not wait:
            self._drop()
        for _ in self._threads:
            self._jobs.put(None)
        if wait:
            for thread in self._threads:
                thread.join()
        self._threads = []

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _serve(self) -> None:
        worker: _Worker | None = None
        while (job := self._jobs.get()) is not None:
            try:
                if self._error is None and isinstance(job.scorer, SandboxedScorer):
                    self._in_sandbox(job, job.scorer)
                elif self._error is None:
                    worker = self._work(worker, job)
            except BaseException as error:  # stored for the main thread, which raises it
                self._error = error
            finally:
                self._jobs.task_done()
        if worker is not None:
            worker.kill()
        self._jobs.task_done()

    def _in_sandbox(self, job: _Job, scorer: SandboxedScorer) -> None:
        """Score a job in the sandbox, which has its own processes and time limits; this thread only waits."""
        try:
            scored, samples = scorer.document(job.doc, job.responses, self.tools.get("sandbox"))
        except OlmesError:
            raise
        except Exception as error:
            raise ScorerFailed(f"{job.where}: the scorer raised {type(error).__name__}: {error}") from error
        with self._lock:
            job.done(scored, samples, False)

    def _work(self, worker: _Worker | None, job: _Job) -> _Worker | None:
        if worker is None or worker.ended():
            worker = _Worker()
        if not worker.load(job):
            worker.kill()
            raise ScorerFailed(f"{job.where}: the scorer's process ended or took {START_SECONDS:.0f} s to load it")
        answer = worker.score(job)
        if answer is None:
            worker.kill()
            self._record_timeout(job)
            return None
        with self._lock:
            job.done(Scored(*answer["scored"]), [Scored(*sample) for sample in answer["samples"]], False)
        return worker

    def _record_timeout(self, job: _Job) -> None:
        # The reference counts an answer whose check times out as wrong; the flag makes these answers countable.
        zero = Scored(dict.fromkeys(job.metrics, 0.0), None, failed=False)
        with self._lock:
            job.done(zero, [zero] * len(job.responses), True)
