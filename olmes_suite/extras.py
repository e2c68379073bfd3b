"""The extras of the package: which modules each brings, and the one line that names the extra where one is missing.

`pip install olmes-suite` brings what reading, comparing and gating recorded runs takes. Everything else asks for its
extra with `require` before anything long starts.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

from olmes_suite.errors import UsageError
from olmes_suite.plugins import install

__all__ = ["INCLUDES", "MODULES", "install", "installed", "missing", "of_module", "require"]

MODULES: dict[str, tuple[str, ...]] = {
    "eval": (
        "lm_eval", "transformers", "torch", "datasets", "safetensors", "huggingface_hub", "sympy", "requests", "nltk",
        "langdetect",
    ),
    "vllm": ("vllm",),
    "decontam": ("numba", "llvmlite"),
    "train": ("trl", "accelerate", "peft"),
    "code": ("tree_sitter", "tree_sitter_python"),
    "ood": ("emoji", "syllapy", "spellchecker", "spacy"),
    "ray": ("ray",),
}  # fmt: skip
"""Extra to the modules that it adds to those of the extras that it includes."""
INCLUDES: dict[str, tuple[str, ...]] = {"vllm": ("eval",), "decontam": ("eval",), "train": ("eval", "decontam")}
"""Extra to the extras that it brings along."""


def installed(module: str) -> bool:
    """Whether a module is there; it is not imported."""
    return sys.modules.get(module) is not None or find_spec(module) is not None


def missing(extra: str) -> list[str]:
    """Modules of an extra, and of those that it includes, which are not installed. Nothing is imported."""
    names = (name for part in (*INCLUDES.get(extra, ()), extra) for name in MODULES[part])
    return [name for name in names if not installed(name)]


def require(extra: str, what: str) -> None:
    """Raise UsageError with the command that installs the extra, unless all of its modules are there."""
    if lacking := missing(extra):
        some = ", ".join(lacking[:3]) + (", …" if len(lacking) > 3 else "")
        raise UsageError(f"{what} needs packages that are not installed ({some}): {install(extra)}")


def of_module(name: str) -> str | None:
    """The extra that brings a module; None for a module of no extra."""
    return next((extra for extra, modules in MODULES.items() if name in modules), None)
