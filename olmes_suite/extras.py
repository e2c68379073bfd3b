"""The extras of the package: the modules of each, and the error that names the extra of a missing module.

`pip install olmes-suite` is enough to read, compare and gate recorded runs. Everything else calls `require` for its
extra before long work starts.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from olmes_suite.errors import UsageError

MODULES: dict[str, tuple[str, ...]] = {
    "eval": (
        "lm_eval", "transformers", "torch", "datasets", "safetensors", "huggingface_hub", "sympy", "antlr4", "requests",
        "nltk", "langdetect", "peft",
    ),
    "vllm": ("vllm",),
    "decontam": ("numba",),
    "train": ("trl", "accelerate"),
    "curate": ("rensa",),
    "code": ("tree_sitter", "tree_sitter_python"),
    "ood": ("emoji", "syllapy", "spellchecker", "spacy"),
    "ray": ("ray",),
    "verifiers": ("verifiers",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
    "tensorboard": ("tensorboard",),
}  # fmt: skip
"""Extra to its modules, without those of the extras that it includes."""
INCLUDES: dict[str, tuple[str, ...]] = {
    "vllm": ("eval",),
    "decontam": ("eval",),
    "train": ("eval", "decontam"),
    "curate": ("eval", "decontam"),
    "verifiers": ("eval",),
}
"""Extra to the extras that it includes."""


def install(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install 'olmes-suite[{extra}]'"


def installed(module: str) -> bool:
    """Tell whether a module is installed, without importing it. A mere folder of that name, say `ray`, is no module."""
    if sys.modules.get(module) is not None:
        return True
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def missing(extra: str) -> list[str]:
    """Return the modules of an extra, and of those that it includes, that are not installed. Nothing is imported."""
    names = (name for part in (*INCLUDES.get(extra, ()), extra) for name in MODULES[part])
    return [name for name in names if not installed(name)]


def require(extra: str, what: str) -> None:
    """Raise UsageError with the command that installs the extra, unless all of its modules are installed."""
    if lacking := missing(extra):
        some = ", ".join(lacking[:3]) + (", …" if len(lacking) > 3 else "")
        raise UsageError(f"{what} needs packages that are not installed ({some}): {install(extra)}")


def require_module(module: str, what: str) -> None:
    """Raise UsageError if an optional module is missing: `what` (`--ray needs Ray`) and how to install it."""
    if not installed(module):
        raise UsageError(f"{what}: {install(of_module(module) or 'all')}")


def of_module(name: str) -> str | None:
    """Return the extra of a module; None for a module without one."""
    return next((extra for extra, modules in MODULES.items() if name in modules), None)
