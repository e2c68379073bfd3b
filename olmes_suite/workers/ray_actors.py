"""A worker in an actor of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from olmes_suite.errors import OlmesError, UsageError, first_line
from olmes_suite.extras import require_module
from olmes_suite.workers.base import Worker, WorkerDied, unless_error
from olmes_suite.workers.engine import About, Engine, Message, Recipe
from olmes_suite.workers.placement import threads
from olmes_suite.workers.ray_address import AUTO, LOCAL, reach
from olmes_suite.workers.scheduler import Answered, Piece, Seeds

SECRETS = ("OPENAI_API_KEY", "HF_TOKEN")
"""Variables that an engine may need. They are sent with the first call, since Ray shows the content of a `runtime_env`
on its dashboard and writes it to its logs."""


class Replica:
    """The actor: an engine behind Ray's calls, in two threads, so that `stop` can run while `answer` runs."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._engine: Engine | None = None

    def ready(self, secrets: dict[str, str]) -> Message:
        """Set the variables and load the model."""
        os.environ.update(secrets)
        try:
            self._engine = Engine(self._recipe)
        except OlmesError as error:
            return "error", error
        return "ready", self._engine.about()

    def answer(self, number: int, requests: tuple[Any, ...], seeds: tuple[Seeds, ...]) -> Iterator[Message]:
        """Yield the messages of one piece."""
        assert self._engine is not None
        self._engine.start(number)
        yield from self._engine.answer(requests, seeds)

    def stop(self, number: int) -> None:
        """End a piece after the current batch."""
        assert self._engine is not None
        self._engine.stop(number)

    def tell(self, what: str, *arguments: Any) -> Message:
        """Query the engine (see `Engine.tell`)."""
        assert self._engine is not None
        try:
            return "value", self._engine.tell(what, *arguments)
        except OlmesError as error:
            return "error", error


class RayWorker(Worker):
    """A worker in an actor with `gpus` GPUs, or with one processor."""

    def __init__(self, recipe: Recipe, gpus: int, workers: int) -> None:
        import ray

        environment = {} if gpus else threads(workers)
        actor = ray.remote(max_concurrency=2, max_restarts=0, num_gpus=gpus, num_cpus=1)(Replica)
        self._actor: Any = actor.options(runtime_env={"env_vars": environment}).remote(recipe)

    def ready(self) -> About:
        """Wait for the model."""
        secrets = {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
        about: About = unless_error(_get(self._actor.ready.remote(secrets)))
        return about

    def answer(self, piece: Piece) -> Iterator[list[Answered]]:
        """Yield lists of answers as the actor sends them."""
        references = self._actor.answer.options(num_returns="streaming").remote(
            piece.number, piece.requests, piece.seeds
        )
        for reference in _alive(references):
            message = _get(reference)
            unless_error(message)
            yield message[1]

    def stop(self, piece: Piece) -> None:
        """End the piece, without waiting for the actor."""
        self._actor.stop.remote(piece.number)

    def tell(self, what: str, *arguments: Any) -> Any:
        """Query the engine between pieces."""
        return unless_error(_get(self._actor.tell.remote(what, *arguments)))

    def close(self, gently: bool = True) -> None:
        """Kill the actor, whose process frees the model."""
        import ray

        if ray.is_initialized():
            ray.kill(self._actor)


def _get(reference: object) -> Any:
    import ray
    from ray.exceptions import RayActorError, RayError, RayTaskError

    try:
        return ray.get(reference)
    except RayTaskError as error:
        raise RuntimeError(f"a worker failed:\n{error}") from None
    except (RayActorError, RayError) as error:
        raise WorkerDied(first_line(error).rstrip(".")) from None


def _alive(references: Iterator[Any]) -> Iterator[Any]:
    from ray.exceptions import RayError

    try:
        for reference in references:  # noqa: UP028  # `yield from` would close it, which Ray's generators refuse
            yield reference
    except RayError as error:
        raise WorkerDied(first_line(error).rstrip(".")) from None


def connect(address: str, workers: int | None, each: int | None) -> tuple[int, int, Callable[[], None]]:
    """Join a Ray cluster, or start one on this machine, and return (workers, GPUs of each, function that leaves it).

    `workers`: None takes as many as the cluster has room for. `each`: GPUs of a worker, None for an engine that uses
    none. Raises UsageError where Ray is not installed, cannot be reached, or has too little room.
    """
    require_module("ray", "--ray needs Ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an evaluation sends no usage statistics
    import ray

    joined = ray.is_initialized()
    if not joined:
        _join(os.environ.get("RAY_ADDRESS") or AUTO if address == AUTO else address, workers or 1)
    try:
        resources = ray.cluster_resources()
        count, gpus = _room(resources.get("GPU", 0.0), resources.get("CPU", 0.0), workers, each)
    except BaseException:
        if not joined:
            ray.shutdown()
        raise
    return count, gpus, (lambda: None) if joined else ray.shutdown


def _join(address: str, workers: int) -> None:
    """Connect to the cluster, or start one. Raises UsageError where neither works."""
    import ray

    reach(address, client=False)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address != LOCAL:
        try:
            ray.init(address=address, **quiet)
            return
        except Exception as error:  # an error of Ray or gRPC, or another version of Ray
            if address != AUTO:
                raise UsageError(f"--ray {address}: {first_line(error).rstrip('.')}") from None
    try:
        ray.init(address=LOCAL, num_cpus=max(workers, os.cpu_count() or 1), include_dashboard=False, **quiet)
    except Exception as error:
        raise UsageError(f"--ray: Ray cannot be started on this machine: {first_line(error).rstrip('.')}") from None


def _room(gpus: float, processors: float, workers: int | None, each: int | None) -> tuple[int, int]:
    """Return (workers, GPUs of each). Raises UsageError where the cluster has too little room."""
    need = each if each is not None and gpus else 0
    most = int(gpus // need) if need else int(processors)
    if most < 1 or (workers or 0) > most:
        raise UsageError(
            f"--workers {workers or 1}: the Ray cluster has {gpus:g} GPUs and {processors:g} processors; "
            f"each worker takes {f'{need} GPUs' if need else 'one processor'}: lower --workers"
        )
    return workers or most, need
