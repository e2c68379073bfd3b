"""Construction of the backend for `--workers` and `--ray`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.extras import require
from olmes_suite.models.base import Backend
from olmes_suite.models.factory import WITHOUT_MODEL
from olmes_suite.workers.engine import Recipe
from olmes_suite.workers.fleet import Fleet
from olmes_suite.workers.placement import assign, threads
from olmes_suite.workers.process import ProcessWorker

ALONE = ("oracle", "floor")
"""Backends that need the runner's process, or for which workers make no difference."""
NO_GPU = (*WITHOUT_MODEL, "openai")
GROUPS = ("tensor_parallel", "tensor_parallel_size", "tp", "pipeline_parallel", "pipeline_parallel_size")
"""Options of engines that use several GPUs. A worker gets the product of their values."""
CPU_SHARE = 0.6
"""The share of a machine's memory that all vLLM engines without a GPU may use together."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers that the user requested. Without either option the engine runs in this process."""

    workers: int | None = None
    ray: str | None = None

    def __bool__(self) -> bool:
        return self.workers is not None or self.ray is not None


def check(crew: Crew, backend: str) -> None:
    """Check the request before any work. Raises UsageError where no machine can meet it."""
    if crew.workers is not None and crew.workers < 1:
        raise UsageError(f"--workers {crew.workers}: give the number of engines, 1 or more")
    if crew and backend in ALONE:
        raise UsageError(f"--backend {backend} runs in one process; leave out --workers and --ray")
    if crew.ray is not None:
        require("ray", "--ray")


def open_fleet(
    crew: Crew, backend: str, model: str | None, options: Mapping[str, Any], tell: Callable[[str], None]
) -> Backend:
    """Start the workers of a crew and wait until they are ready. Raises UsageError or ModelError."""
    check(crew, backend)
    each, most = group_size(options), under_way(backend, options)
    if crew.ray is not None:
        from olmes_suite.workers.ray_actors import RayWorker, connect

        cpu = backend in NO_GPU or str(options.get("device") or "").startswith("cpu")
        count, gpus, leave = connect(crew.ray, crew.workers, None if cpu else each)
        try:
            count = count if crew.workers or most is None else min(count, most)
            recipes = [Recipe(backend, model, share) for share in shared_out(options, most, count)]
            actors = [partial(RayWorker, recipe, gpus, count) for recipe in recipes]
            return Fleet(actors, "Ray actors", tell, apart=True, leave=leave)
        except BaseException:
            leave()
            raise
    count = crew.workers or 1
    places = [threads(count)] * count if backend in NO_GPU else assign(count, each, options.get("device"))
    if backend == "vllm" and not any("CUDA_VISIBLE_DEVICES" in place for place in places):
        options = _memory(options, count)
    shares = shared_out(options, most, count)
    makers = [partial(ProcessWorker, Recipe(backend, model, share), p) for share, p in zip(shares, places, strict=True)]
    return Fleet(makers, "processes", tell)


def group_size(options: Mapping[str, Any]) -> int:
    """Return the number of GPUs of one engine. Raises UsageError for an option that is not a number of GPUs."""
    options = {**options, **(options.get("model_args") or {})}
    size = 1
    for name in GROUPS:
        value = options.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"--model-args {name}={value}: give a number of GPUs, 1 or more")
        size *= value
    return size


def _memory(options: Mapping[str, Any], count: int) -> Mapping[str, Any]:
    """Limit the memory of each of more than two engines without a GPU. One or two engines fit by vLLM's default."""
    if count > 2:
        share = {"gpu_memory_utilization": round(CPU_SHARE / count, 4)}
        return {**options, "model_args": share | dict(options.get("model_args") or {})}
    return options


def under_way(backend: str, options: Mapping[str, Any]) -> int | None:
    """Return the number of concurrent requests to a server that the run may have; None for an engine without one."""
    if backend == "openai" and not options.get("concurrency"):
        from olmes_suite.models.openai.backend import MOST

        return MOST
    return options.get("concurrency") or None


def shared_out(options: Mapping[str, Any], most: int | None, count: int) -> list[dict[str, Any]]:
    """Return the options of each of `count` workers, with the concurrent requests of the run shared out among them.

    Raises UsageError where there are more workers than concurrent requests.
    """
    if most is None:
        return [dict(options)] * count
    if count > most:
        raise UsageError(
            f"--workers {count}: more workers than the {most} concurrent requests of --concurrency; lower --workers or "
            "raise --concurrency"
        )
    each, rest = divmod(most, count)
    return [{**options, "concurrency": each + (place < rest)} for place in range(count)]
