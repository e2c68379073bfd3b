"""Construction of backends by name: the built-in ones, then the entry points of the group `olmes.backends`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from olmes_suite.errors import OlmesError, UsageError
from olmes_suite.models.base import Backend
from olmes_suite.models.local.checkpoint import check_folder, is_hub_id

BUILT_IN = {
    "hf": "olmes_suite.models.hf.backend:HFBackend",
    "vllm": "olmes_suite.models.vllm.backend:VLLMBackend",
    "openai": "olmes_suite.models.openai.backend:OpenAIBackend",
    "mock": "olmes_suite.models.without_model.mock:MockBackend",
    "oracle": "olmes_suite.models.without_model.oracle:OracleBackend",
    "floor": "olmes_suite.models.without_model.floor:FloorBackend",
}
"""Imported on use, since some of them import torch."""
WITHOUT_MODEL = ("mock", "oracle", "floor")
"""Backends without weights, which ignore the options of an engine."""
CHECKPOINT = ("hf", "vllm")
"""Backends that load a folder or a Hub id."""
GROUP = "olmes.backends"


def make_backend(name: str, model: str | None, **options: object) -> Backend:
    """Make the backend with this name for a model. Options that are None are ignored.

    `auto` is vLLM where the machine has a GPU and vLLM is installed, else `hf`. Raises UsageError for an unknown name
    or an option that the backend does not have, ModelError for a checkpoint that cannot be loaded.
    """
    if name == "auto":
        name = _automatic()
    load = _find(name)
    if name not in WITHOUT_MODEL and not model:
        raise UsageError(f"--backend {name} needs --model: a checkpoint's folder, a Hub id or a served name")
    if name in CHECKPOINT and not is_hub_id(str(model)):
        check_folder(str(model))  # before torch is imported
    kind = load()
    present = {option: value for option, value in options.items() if value is not None}
    return kind(**_arguments(name, kind, model, present))


def backend_names() -> list[str]:
    """Return every name that `--backend` accepts."""
    return ["auto", *BUILT_IN, *sorted(point.name for point in entry_points(group=GROUP) if point.name not in BUILT_IN)]


def loads_in_a_thread(name: str) -> bool:
    """Return whether the backend can load in a thread. vLLM and backends of other packages may need the main thread."""
    return name == "hf" or (name == "auto" and ("vllm" not in BUILT_IN or find_spec("vllm") is None))


def _automatic() -> str:
    if find_spec("vllm") is None:
        return "hf"
    import torch

    return "vllm" if torch.cuda.is_available() else "hf"


def _find(name: str) -> Callable[[], Callable[..., Backend]]:
    """Return a function that imports the backend's class, after a check of the name that imports nothing."""
    if name in BUILT_IN:
        return lambda: _import(BUILT_IN[name])
    for point in entry_points(group=GROUP):
        if point.name == name:
            return lambda: _load(point)
    similar = difflib.get_close_matches(name, backend_names(), n=1)
    hint = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(backend_names())}"
    raise UsageError(f"unknown backend {name!r}; {hint}")


def _import(path: str) -> Callable[..., Backend]:
    module, _, cls = path.partition(":")
    kind: Callable[..., Backend] = getattr(import_module(module), cls)
    return kind


def _load(point: EntryPoint) -> Callable[..., Backend]:
    try:
        kind: Callable[..., Backend] = point.load()
    except OlmesError:
        raise
    except Exception as error:  # a module of another package may raise anything
        raise UsageError(
            f"backend {point.name!r} ({point.value}) cannot be imported: {error}; update or reinstall its package"
        ) from None
    return kind


def _arguments(
    name: str, kind: Callable[..., Backend], model: str | None, options: dict[str, object]
) -> dict[str, object]:
    """Check the options against the signature of the backend and return its arguments. Raises UsageError."""
    parameters = inspect.signature(kind).parameters
    everything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    arguments = {option: value for option, value in options.items() if everything or option in parameters}
    unknown = sorted(set(options) - set(arguments) - {"seed"})  # the runner passes a seed to every backend
    if unknown and name not in WITHOUT_MODEL:
        raise UsageError(f"--backend {name} has no option --{unknown[0].replace('_', '-')}")
    required = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if model is not None and (everything or "model" in parameters):
        arguments["model"] = model
    if missing := [option for option in required if option not in arguments]:
        raise UsageError(f"--backend {name} needs --{missing[0].replace('_', '-')}")
    return arguments
