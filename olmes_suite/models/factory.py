"""From a backend's name to the backend: the built-in ones, then entry points of the group `olmes.backends`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from olmes_suite.devices import has_gpu
from olmes_suite.errors import UsageError
from olmes_suite.models.base import Backend
from olmes_suite.models.local.checkpoint import check_folder, is_hub_id
from olmes_suite.plugins import Plugins

BUILT_IN = {
    "hf": "olmes_suite.models.hf.backend:HFBackend",
    "vllm": "olmes_suite.models.vllm.backend:VLLMBackend",
    "openai": "olmes_suite.models.openai.backend:OpenAIBackend",
    "mock": "olmes_suite.models.without_model.mock:MockBackend",
    "oracle": "olmes_suite.models.without_model.oracle:OracleBackend",
    "floor": "olmes_suite.models.without_model.floor:FloorBackend",
}
"""Imported when asked for: some of them bring torch."""
WITHOUT_MODEL = ("mock", "oracle", "floor")
"""They have no weights and ignore the options of an engine."""
CHECKPOINT = ("hf", "vllm")
"""They load a folder or a Hub id."""
BACKENDS = Plugins("backend", "olmes.backends", BUILT_IN, reserved=("auto",))


def make_backend(name: str, model: str | None, **options: Any) -> Backend:
    """The backend of that name for a model; options that are None count as not given.

    `auto` is vLLM where the machine has a GPU and a vLLM backend, else `hf`. Raises UsageError for an unknown name or
    an option that the backend does not have, ModelError for a checkpoint that cannot be loaded.
    """
    if name == "auto":
        name = _automatic()
    BACKENDS.check(name)
    if name not in WITHOUT_MODEL and not model:
        raise UsageError(f"--backend {name} needs --model: a checkpoint's folder, a Hub id or a served name")
    if name in CHECKPOINT and not is_hub_id(str(model)):
        check_folder(str(model))  # before torch is imported
    kind = BACKENDS.load(name)
    given = {option: value for option, value in options.items() if value is not None}
    return kind(**_accepted(name, kind, model, given))


def backend_names() -> list[str]:
    """Every name that `--backend` takes."""
    return BACKENDS.names()


def loads_in_a_thread(name: str) -> bool:
    """Whether the backend may be made beside other work. vLLM and other packages' may want the main thread."""
    return name == "hf" or (name == "auto" and ("vllm" not in BUILT_IN or find_spec("vllm") is None))


def _automatic() -> str:
    return "vllm" if find_spec("vllm") is not None and has_gpu() else "hf"


def _accepted(name: str, kind: Callable[..., Backend], model: str | None, given: dict[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(kind).parameters
    everything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
    known = {option: value for option, value in given.items() if everything or option in parameters}
    unknown = sorted(set(given) - set(known) - {"seed"})  # the runner gives a seed to all
    if unknown and name not in WITHOUT_MODEL:
        raise UsageError(f"--backend {name} has no option --{unknown[0].replace('_', '-')}")
    required = [
        p.name
        for p in parameters.values()
        if p.default is p.empty and p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if model is not None and (everything or "model" in parameters):
        known["model"] = model
    if missing := [option for option in required if option not in known]:
        raise UsageError(f"--backend {name} needs --{missing[0].replace('_', '-')}")
    return known
