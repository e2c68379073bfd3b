"""From `--workers` and `--ray` to a backend."""

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
"""Backends that need what only the runner's own process has, or have nothing to do."""
NO_GPU = (*WITHOUT_MODEL, "openai")
GROUPS = ("tensor_parallel", "tensor_parallel_size", "tp", "pipeline_parallel", "pipeline_parallel_size")
"""Options of engines that take several GPUs: a worker has their product."""
CPU_SHARE = 0.6
"""Of the memory of a machine without GPU, what all of its vLLM engines together may take."""


@dataclass(frozen=True, slots=True)
class Crew:
    """How many workers of which kind were asked for; neither: the engine runs in this process."""

    workers: int | None = None
    ray: str | None = None

    def __bool__(self) -> bool:
        return self.workers is not None or self.ray is not None


def check(crew: Crew, backend: str) -> None:
    """Raises UsageError for what no machine can do."""
    if crew.workers is not None and crew.workers < 1:
        raise UsageError(f"--workers {crew.workers}: give the number of engines, 1 or more")
    if crew and backend in ALONE:
        raise UsageError(f"--backend {backend} runs in one process; leave out --workers and --ray")
    if crew.ray is not None:
        require("ray", "--ray")


def open_fleet(
    crew: Crew, backend: str, model: str | None, options: Mapping[str, Any], tell: Callable[[str], None]
) -> Backend:
    """The workers of a crew, started and ready. Raises UsageError or ModelError."""
    check(crew, backend)
    each, most = group_size(options), under_way(backend, options)
    if crew.ray is not None:
        from olmes_suite.workers.ray_actors import RayWorker, connect

        cpu = backend in NO_GPU or str(options.get("device") or "").startswith("cpu")
        count, gpus, leave = connect(crew.ray, crew.workers, None if cpu else each)
        try:
            count = count if crew.workers or most is None else min(count, most)
            recipes = [Recipe(backend, model, own) for own in shared_out(options, most, count)]
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
    makers = [partial(ProcessWorker, Recipe(backend, model, own), p) for own, p in zip(shares, places, strict=True)]
    return Fleet(makers, "processes", tell)


def group_size(options: Mapping[str, Any]) -> int:
    """GPUs of one engine. Raises UsageError for what is no number of GPUs."""
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
    """A share for each of more than two engines on a processor: one alone takes half of `CPU_SHARE`."""
    if count > 2:
        share = {"gpu_memory_utilization": round(CPU_SHARE / count, 4)}
        return {**options, "model_args": share | dict(options.get("model_args") or {})}
    return options


def under_way(backend: str, options: Mapping[str, Any]) -> int | None:
    """Requests that the run may have under way at a server; None for an engine that asks none."""
    if backend == "openai" and not options.get("concurrency"):
        from olmes_suite.models.openai.backend import MOST

        return MOST
    return options.get("concurrency") or None


def shared_out(options: Mapping[str, Any], most: int | None, count: int) -> list[dict[str, Any]]:
    """The options of each of `count` workers: together they have as many requests under way as the run may have.

    Raises UsageError where there are more workers than that.
    """
    if most is None:
        return [dict(options)] * count
    if count > most:
        raise UsageError(f"--workers {count}: more than the {most} requests that --concurrency lets be under way")
    each, rest = divmod(most, count)
    return [{**options, "concurrency": each + (place < rest)} for place in range(count)]
