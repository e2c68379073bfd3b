"""The engine of a run: one backend or several workers, with or without a response cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from olmes_suite.evaluation.plan import Options
    from olmes_suite.models.base import Backend
    from olmes_suite.records import Request
    from olmes_suite.workers.factory import Crew


def check_model(backend: str, model: str, revision: str | None = None) -> None:
    """Check the checkpoint's files before heavy imports and reads. Raises ModelError or UsageError."""
    from olmes_suite.errors import UsageError
    from olmes_suite.extras import require
    from olmes_suite.models.local.checkpoint import check_source

    if backend == "vllm":
        require("vllm", "--backend vllm")
    if backend in ("auto", "hf", "vllm"):
        if not model:
            raise UsageError("--model is needed: a checkpoint's folder or a Hub id (or --backend mock)")
        check_source(model, revision)


def make_backend(
    options: Options,
    answers: Callable[[Request], Any],
    crew: Crew | None = None,
    tell: Callable[[str], None] = print,
    cache: Path | None = None,
) -> Backend:
    """Build the backend that the options name, or workers that run it, with an optional response cache.

    `tell` is called with a line for the user when a worker dies.
    """
    from olmes_suite.evaluation.plan import model_name
    from olmes_suite.models.factory import make_backend as make_local
    from olmes_suite.workers.factory import open_fleet

    engine = {"seed": options.seed, **options.engine}
    if cache is not None:
        from olmes_suite.models.cache.backend import CachedBackend
        from olmes_suite.models.cache.store import ResponseCache

        response_cache = ResponseCache(cache)  # opened before the model is loaded, so that an unusable file fails early
        return CachedBackend(make_backend(options, answers, crew, tell), response_cache, model_name(options))
    if crew:
        return open_fleet(crew, options.backend, options.model, engine, tell)
    answer_options = {"answers": answers} if options.backend == "oracle" else {}
    return make_local(options.backend, options.model, **engine, **answer_options)


def check_cache(cache: Path | None, backend: str) -> None:
    """Raise UsageError for a cache with a backend that has no model."""
    from olmes_suite.errors import UsageError

    if cache is not None and backend in ("oracle", "floor"):
        raise UsageError(f"--backend {backend} has no model whose responses could be cached; leave out --cache")
