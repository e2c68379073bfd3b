"""Processes that end with their parent, also where the parent is killed, so that none keeps writing files."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TypeVar

Job = TypeVar("Job")

_SET_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
_prctl = (
    ctypes.CDLL(None).prctl if sys.platform == "linux" else None
)  # looked up here because a forked child may only call it


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Make the kernel send the signal `number` to this process when its parent dies. Linux only.

    Can be used as `preexec_fn`.
    """
    if _prctl is not None:
        _prctl(_SET_DEATH_SIGNAL, int(number))


def in_processes(work: Callable[[Job], None], workers: int) -> Callable[[list[Job]], Iterator[None]]:
    """Make a runner that does `work` for jobs in that many processes, in any order, and yields once for each.

    With one process, or one job, the work is done in the calling process. `work` and the jobs must be picklable.
    """

    def run(jobs: list[Job]) -> Iterator[None]:
        count = min(workers, len(jobs))
        if count <= 1:
            for job in jobs:
                work(job)
                yield
            return
        import multiprocessing
        from concurrent.futures import ProcessPoolExecutor, as_completed

        with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
            futures = [pool.submit(work, job) for job in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
                    yield
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    return run
