"""The scan on many machines: the same work for each block, distributed by Ray Data.

Training data, cache folder and report folder must be on storage that all machines see under the same paths. Each part
of the result is a file, so only block numbers travel between machines. A worker that dies is replaced and its block
is scanned again; parts are written atomically.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

from decontam.scan import Job, run_job
from olmes_suite.errors import DataError, OlmesError, UsageError, first_line, one_line
from olmes_suite.extras import require_module
from olmes_suite.workers.ray_address import AUTO, reach

AnyJob = TypeVar("AnyJob", bound=Any)
"""A frozen dataclass with a `block`, and `out` and perhaps `index` as paths."""


def written(job: Job) -> bool:
    """Whether the result of a job is visible on this machine's storage."""
    return (job.out / f"{job.key}.json").is_file()


def on_ray(
    address: str = AUTO, work: Callable[[AnyJob], None] = run_job, done: Callable[[AnyJob], bool] = written
) -> Callable[[list[AnyJob]], Iterator[None]]:
    """Make a runner on the cluster at an address (`host:port`, `ray://host:port`, AUTO or LOCAL).

    `work` does one job, by default of a scan, and `done` says whether its result is on this machine's storage. Raises
    UsageError where Ray is not installed or the cluster does not answer, DataError where one of its machines cannot do
    its part.
    """
    require_module("ray", "--ray needs Ray")
    import ray
    import ray.data

    def run(jobs: list[AnyJob]) -> Iterator[None]:
        if not jobs:
            return
        jobs = [_anywhere(job) for job in jobs]
        ours = not ray.is_initialized()
        if ours:
            _connect(ray, address)
        try:
            yield from _handed_out(ray, jobs, work, done)
        finally:
            if ours:
                ray.shutdown()

    return run


def _handed_out(
    ray: Any, jobs: list[AnyJob], work: Callable[[AnyJob], None], done: Callable[[AnyJob], bool]
) -> Iterator[None]:
    """Run each job as one block of Ray Data, whose result is the job's number and its error message, if any."""

    def one(row: dict[str, Any]) -> dict[str, Any]:
        try:
            work(jobs[row["item"]])
        except OlmesError as error:
            return {**row, "error": str(error)}
        except Exception as error:  # Ray would wrap it in twenty lines
            return {**row, "error": f"{type(error).__name__}: {one_line(error, None)}"}
        return {**row, "error": ""}

    _quiet(ray)
    numbers = ray.data.from_items(list(range(len(jobs))), override_num_blocks=len(jobs))
    try:
        for row in numbers.map(one).iter_rows():
            _look(jobs[row["item"]], row["error"], done)
            yield
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise DataError(f"--ray: {lines[-1]}") from error


def _look(job: AnyJob, error: str, done: Callable[[AnyJob], bool]) -> None:
    """Raise DataError where a worker failed, or where its result is not visible on this machine's storage."""
    if error:
        raise DataError(f"--ray: {job.block.path}: {error}")
    if not done(job):
        raise DataError(
            f"--ray: the result of {job.block.path} is not in {job.out}; data, cache ($OLMES_CACHE) and --out must "
            "be on storage that all machines see"
        )


def _anywhere(job: AnyJob) -> AnyJob:
    """Make the paths of a job independent of the folder in which a worker runs."""
    block = replace(job.block, path=job.block.path.absolute())
    paths = {name: getattr(job, name).absolute() for name in ("index", "out") if hasattr(job, name)}
    return replace(job, block=block, **paths)


def _connect(ray: Any, address: str) -> None:
    """Join the cluster, or start one. Raises UsageError within seconds where no cluster answers."""
    named = os.environ.get("RAY_ADDRESS", "") if address == AUTO else address
    reach(named, client=True)
    common = {"log_to_driver": False, "logging_level": "error", "ignore_reinit_error": True}
    logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        # Without an address Ray joins a cluster of this machine and, where there is none, starts one.
        ray.init(address=None if address == AUTO else address, **common)
    except (ConnectionError, OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        raise UsageError(f"--ray {named or address}: {first_line(error)}") from error


def _quiet(ray: Any) -> None:
    """Turn off Ray's progress bars, which would appear beside the scan's."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
