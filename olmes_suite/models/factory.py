"""Construction of backends by name: the built-in ones, then the entry points of the group `olmes.backends`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib.util import find_spec

from olmes_suite.devices import has_gpu
from olmes_suite.errors import UsageError
from olmes_suite.models.base import Backend
from olmes_suite.models.local.checkpoint import check_folder, is_hub_id
from olmes_suite.plugins import Plugins
from olmes_suite.records import OPTIONAL

BUILT_IN = {
    "hf": "olmes_suite.models.hf.backend:HFBackend",
    "vllm": "olmes_suite.models.vllm.backend:VLLMBackend",
    "openai": "olmes_suite.models.openai.backend:OpenAIBackend",
    "live": "olmes_suite.models.vllm.live:LiveBackend",
    "mock": "olmes_suite.models.without_model.mock:MockBackend",
    "oracle": "olmes_suite.models.without_model.oracle:OracleBackend",
    "floor": "olmes_suite.models.without_model.floor:FloorBackend",
}
"""Imported on use, since some of them import torch."""
WITHOUT_MODEL = ("mock", "oracle", "floor")
"""Backends without weights, which ignore the options of an engine."""
UNSET = "unset"
"""The field of requests that names those that are left to a server."""
CHECKPOINT = ("hf", "vllm", "live")
"""Backends that load a folder or a Hub id."""
BACKENDS = Plugins("backend", "olmes.backends", BUILT_IN, reserved=("auto",))


def make_backend(name: str, model: str | None, **options: object) -> Backend:
    """Make the backend with this name for a model. Options that are None are ignored.

    `auto` is vLLM where the machine has a GPU and vLLM is installed, else `hf`. Raises UsageError for an unknown name
    or an option that the backend does not have, ModelError for a checkpoint that cannot be loaded.
    """
    if name == "auto":
        name = automatic()
    BACKENDS.check(name)
    if name not in WITHOUT_MODEL and not model:
        raise UsageError(f"--backend {name} needs --model: a checkpoint's folder, a Hub id or a served name")
    if name in CHECKPOINT and not is_hub_id(str(model)):
        check_folder(str(model))  # before torch is imported
    kind = BACKENDS.load(name)
    present = {option: value for option, value in options.items() if value is not None}
    return kind(**_arguments(name, kind, model, present))


def fields_of(name: str) -> frozenset[str]:
    """Return the optional sampling fields that a backend honours (`Backend.fields`), without importing a built-in one.

    Raises UsageError for an unknown name.
    """
    if name in WITHOUT_MODEL:
        return frozenset({*OPTIONAL, UNSET})
    if name in ("auto", *CHECKPOINT):
        return frozenset(OPTIONAL)
    if name in BUILT_IN:
        return frozenset({*OPTIONAL, UNSET})
    BACKENDS.check(name)
    return BACKENDS.load(name).fields


def backend_names() -> list[str]:
    """Return every name that `--backend` accepts."""
    return BACKENDS.names()


def loads_in_a_thread(name: str) -> bool:
    """Return whether the backend can load in a thread. vLLM and backends of other packages may need the main thread."""
    return name == "hf" or (name == "auto" and ("vllm" not in BUILT_IN or find_spec("vllm") is None))


def automatic() -> str:
    """Return the backend that `auto` stands for on this machine."""
    return "vllm" if find_spec("vllm") is not None and has_gpu() else "hf"


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
        example = "; give the server's address, such as http://localhost:8000/v1" if missing[0] == "base_url" else ""
        raise UsageError(f"--backend {name} needs --{missing[0].replace('_', '-')}{example}")
    return arguments
