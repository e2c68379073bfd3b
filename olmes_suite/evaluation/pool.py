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


@dataclass(slots=True)
class _Job:
    scorer: Scorer
    metrics: tuple[str, ...]
    doc: Mapping[str, Any]
    responses: list[Any]
    where: str
    done: Done


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
        worker: subprocess.Popen[bytes] | None = None
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
            worker.wait()
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

    def _work(self, worker: subprocess.Popen[bytes] | None, job: _Job) -> subprocess.Popen[bytes] | None:
        if worker is None or worker.poll() is not None:
            worker = subprocess.Popen(
                [sys.executable, "-m", "olmes_suite.evaluation.scoring_worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},  # threads of libraries take address space, which is limited
            )
        assert worker.stdin is not None and worker.stdout is not None
        function = job.scorer.function
        message = {
            "file": function.__code__.co_filename,
            "name": function.__name__,
            "doc": dict(job.doc),
            "responses": job.responses,
        }
        worker.stdin.write(
            (json.dumps(message, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")
        )
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], job.scorer.timeout * max(1, len(job.responses)))
        line = worker.stdout.readline() if ready else b""
        if not line:
            worker.kill()
            worker.wait()
            self._record_timeout(job)
            return None
        answer = json.loads(line)
        if "olmes_error" in answer:  # a resource that the scorer needs is not on this machine
            raise MissingData(answer["olmes_error"])
        if "error" in answer:
            raise ScorerFailed(f"{job.where}: the scorer raised {answer['error']}")
        with self._lock:
            job.done(Scored(*answer["scored"]), [Scored(*sample) for sample in answer["samples"]], False)
        return worker

    def _record_timeout(self, job: _Job) -> None:
        # The reference counts an answer whose check times out as wrong; the flag makes these answers countable.
        zero = Scored(dict.fromkeys(job.metrics, 0.0), None, failed=False)
        with self._lock:
            job.done(zero, [zero] * len(job.responses), True)
