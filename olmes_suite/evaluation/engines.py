"""The engine that a run asks: one backend, several workers, or either behind a cache of responses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from olmes_suite.evaluation.plan import Options
    from olmes_suite.models.base import Backend
    from olmes_suite.records import Request
    from olmes_suite.workers.factory import Crew


def check_model(backend: str, model: str) -> None:
    """Look at the checkpoint's files before anything heavy is imported or read. Raises ModelError or UsageError."""
    from olmes_suite.errors import UsageError
    from olmes_suite.extras import require
    from olmes_suite.models.local.checkpoint import check_folder, is_hub_id

    if backend in ("auto", "hf", "vllm"):
        if not model:
            raise UsageError("--model is needed: a checkpoint's folder or a Hub id (or --backend mock)")
        if not is_hub_id(model):
            check_folder(model)
    if backend == "vllm":
        require("vllm", "--backend vllm")


def make_backend(
    options: Options,
    answers: Callable[[Request], Any],
    crew: Crew | None = None,
    tell: Callable[[str], None] = print,
    cache: Path | None = None,
) -> Backend:
    """The backend that the options name, or workers that run it, behind a cache; `tell` hears of workers that die."""
    from olmes_suite.evaluation.plan import model_name
    from olmes_suite.models.factory import make_backend as make
    from olmes_suite.workers.factory import open_fleet

    engine = {"seed": options.seed, **options.engine}
    if cache is not None:
        from olmes_suite.models.cache.backend import CachedBackend
        from olmes_suite.models.cache.store import ResponseCache

        kept = ResponseCache(cache)  # before the model is loaded
        return CachedBackend(make_backend(options, answers, crew, tell), kept, model_name(options))
    if crew:
        return open_fleet(crew, options.backend, options.model, engine, tell)
    extra = {"answers": answers} if options.backend == "oracle" else {}
    return make(options.backend, options.model, **engine, **extra)


def check_cache(cache: Path | None, backend: str) -> None:
    """Raises UsageError for a backend whose answers are not a model's."""
    from olmes_suite.errors import UsageError

    if cache is not None and backend in ("oracle", "floor"):
        raise UsageError(f"--backend {backend} answers without a model; leave out --cache")
