"""A worker as an actor of a Ray cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

from olmes_suite.errors import OlmesError, UsageError, first_line
from olmes_suite.plugins import require
from olmes_suite.workers.base import Worker, WorkerDied, unless_error
from olmes_suite.workers.engine import About, Engine, Message, Recipe
from olmes_suite.workers.placement import threads
from olmes_suite.workers.ray_address import AUTO, LOCAL, reach
from olmes_suite.workers.scheduler import Answered, Piece, Seeds

SECRETS = ("OPENAI_API_KEY", "HF_TOKEN")
"""Variables that an engine may need. A cluster's nodes have them from whoever started it; ours go with the first call:
what is in a `runtime_env` is shown on Ray's dashboard and written into its logs."""


class Replica:
    """The actor: an engine behind Ray's calls. Two threads, so that `stop` is heard while `answer` is under way."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._engine: Engine | None = None

    def ready(self, secrets: dict[str, str]) -> Message:
        """Load the model, with these variables set."""
        os.environ.update(secrets)
        try:
            self._engine = Engine(self._recipe)
        except OlmesError as error:
            return "error", error
        return "ready", self._engine.about()

    def answer(self, number: int, requests: tuple[Any, ...], seeds: tuple[Seeds, ...]) -> Iterator[Message]:
        """The messages of one piece."""
        assert self._engine is not None
        self._engine.start(number)
        yield from self._engine.answer(requests, seeds)

    def stop(self, number: int) -> None:
        """End a piece after the batch in hand."""
        assert self._engine is not None
        self._engine.stop(number)

    def tell(self, what: str) -> Message:
        """See `Engine.tell`."""
        assert self._engine is not None
        try:
            return "told", self._engine.tell(what)
        except OlmesError as error:
            return "error", error


class RayWorker(Worker):
    """An actor with `gpus` GPUs, or one processor."""

    def __init__(self, recipe: Recipe, gpus: int, workers: int) -> None:
        import ray

        environment = {} if gpus else threads(workers)
        actor = ray.remote(max_concurrency=2, max_restarts=0, num_gpus=gpus, num_cpus=1)(Replica)
        self._actor: Any = actor.options(runtime_env={"env_vars": environment}).remote(recipe)

    def ready(self) -> About:
        """Waits for the model."""
        secrets = {name: os.environ[name] for name in SECRETS if os.environ.get(name)}
        about: About = unless_error(_get(self._actor.ready.remote(secrets)))
        return about

    def answer(self, piece: Piece) -> Iterator[list[Answered]]:
        """Answers in lists, as the actor sends them."""
        sent = self._actor.answer.options(num_returns="streaming").remote(piece.number, piece.requests, piece.seeds)
        for reference in _alive(sent):
            message = _get(reference)
            unless_error(message)
            yield message[1]

    def stop(self, piece: Piece) -> None:
        """Not waited for."""
        self._actor.stop.remote(piece.number)

    def tell(self, what: str) -> Any:
        """Between pieces."""
        return unless_error(_get(self._actor.tell.remote(what)))

    def close(self, gently: bool = True) -> None:
        """The actor is killed; its process frees the model."""
        import ray

        if ray.is_initialized():
            ray.kill(self._actor)


def _get(reference: Any) -> Any:
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
    """Join a Ray cluster, or start one of this machine: (workers, GPUs of each, what leaves it again).

    `workers` is as many as the cluster has room for unless given; `each`: GPUs of a worker, None for an engine without.
    Raises UsageError where Ray is not installed, cannot be reached, or has too little room.
    """
    require("ray", "ray", "--ray needs Ray")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an evaluation tells nobody anything
    import ray

    joined = ray.is_initialized()
    if not joined:
        _join(os.environ.get("RAY_ADDRESS") or AUTO if address == AUTO else address, workers or 1)
    try:
        found = ray.cluster_resources()
        count, gpus = _room(found.get("GPU", 0.0), found.get("CPU", 0.0), workers, each)
    except BaseException:
        if not joined:
            ray.shutdown()
        raise
    return count, gpus, (lambda: None) if joined else ray.shutdown


def _join(address: str, workers: int) -> None:
    """Raises UsageError where no cluster answers."""
    import ray

    reach(address, client=False)
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address != LOCAL:
        try:
            ray.init(address=address, **quiet)
            return
        except Exception as error:  # Ray's own, grpc's, a version that does not fit
            if address != AUTO:
                raise UsageError(f"--ray {address}: {first_line(error).rstrip('.')}") from None
    try:
        ray.init(address=LOCAL, num_cpus=max(workers, os.cpu_count() or 1), include_dashboard=False, **quiet)
    except Exception as error:
        raise UsageError(f"--ray: Ray cannot be started on this machine: {first_line(error).rstrip('.')}") from None


def _room(gpus: float, processors: float, workers: int | None, each: int | None) -> tuple[int, int]:
    """(workers, GPUs of each). Raises UsageError where a cluster with so many has no room for them."""
    need = each if each is not None and gpus else 0
    most = int(gpus // need) if need else int(processors)
    what = f"{need} GPUs" if need else "processors"
    if most < 1 or (workers or 0) > most:
        raise UsageError(
            f"--workers {workers or 1}: the Ray cluster has {gpus:g} GPUs and {processors:g} processors; "
            f"each worker takes {what if need else 'one of the ' + what}"
        )
    return workers or most, need
