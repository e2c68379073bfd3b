"""Processes that end with their parent, also where the parent is killed, so that none keeps writing files."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from olmes_suite.errors import ProcessLost

Job = TypeVar("Job")

MEMORY = 4 * 2**30
"""Limit of the address space of a process that reads responses, in bytes."""
_stopped: Any = None
"""In a process of a pool: whether no further job begins, in memory that all of its processes share."""
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


def limit_memory() -> None:
    """Bound the memory of this process: an expression in a response that needs more ends only this process's work."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def in_processes(work: Callable[[Job], None], workers: int) -> Callable[[list[Job]], Iterator[None]]:
    """Make a runner that does `work` for jobs in that many processes, in any order, and yields once for each.

    With one process, or one job, the work is done in the calling process. `work` and the jobs must be picklable.
    Raises ProcessLost where one of the processes is killed.
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
        from concurrent.futures.process import BrokenProcessPool

        context = multiprocessing.get_context("spawn")
        stopped = context.RawValue("b", 0)
        with ProcessPoolExecutor(count, context, initializer=_begin, initargs=(os.getpid(), stopped)) as pool:
            try:
                with _without_interrupts():
                    futures = [pool.submit(_do, work, job) for job in jobs]
                for future in as_completed(futures):
                    future.result()
                    yield
            except BrokenProcessPool:
                raise ProcessLost(
                    "a process of the command was killed, perhaps for lack of memory; repeat it with fewer --workers"
                ) from None
            except SystemExit:  # Ctrl-C, which a process has noticed first
                raise KeyboardInterrupt from None
            finally:
                stopped.value = 1  # for the jobs that the pool has handed out already
                pool.shutdown(cancel_futures=True)

    return run


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start processes that take no notice of Ctrl-C until `_begin`: they would print where it met them."""
    from multiprocessing import resource_tracker

    resource_tracker.ensure_running()  # which lets interrupts through when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, stopped: Any) -> None:
    """Prepare a process of a pool: it ends with its parent, and at Ctrl-C without a traceback."""
    global _stopped
    _stopped = stopped
    end_with_parent()
    ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as of a command in a script's background
    if os.getppid() != parent or (signal.SIGINT in signal.sigpending() and not ignored):
        os._exit(130)
    if not ignored:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _do(work: Callable[[Job], None], job: Job) -> None:
    """Do a job; Ctrl-C ends it as an exception would, so that it removes its unfinished files, and begins no other."""
    if _stopped.value:
        return
    before = signal.getsignal(signal.SIGINT)
    if before != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
    try:
        work(job)
    except SystemExit:
        _stopped.value = 1
        raise
    finally:
        signal.signal(signal.SIGINT, before)
