"""The verifiers by name: ours, then entry points of the group `olmes.verifiers`. A name imports nothing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.tasks import index, suites
from train_plugins.verifiers.base import Verifier

BUILT_IN = {
    "gsm8k": "train_plugins.verifiers.final_answer:gsm8k",
    "math": "train_plugins.verifiers.mathematics:math",
    "string": "train_plugins.verifiers.final_answer:string",
    "ifeval": "train_plugins.verifiers.instructions:ifeval",
    "ifeval_fraction": "train_plugins.verifiers.instructions:ifeval_fraction",
    "ifeval_strict": "train_plugins.verifiers.instructions:ifeval_strict",
}
"""Run in worker processes."""
SANDBOXED = {
    "code": "train_plugins.verifiers.programs:code",
    "code_fraction": "train_plugins.verifiers.programs:code_fraction",
}
"""Run in threads of the trainer's process; the sandbox has processes and time limits of its own."""
GROUP = "olmes.verifiers"


def names() -> list[str]:
    """Every known verifier."""
    return [*BUILT_IN, *SANDBOXED, *sorted(set(_installed()) - {*BUILT_IN, *SANDBOXED})]


def check(wanted: Sequence[str]) -> list[str]:
    """The verifiers' own spelling. Raises UsageError for an unknown name, and for a task of the unseen suite."""
    return [_check(name) for name in wanted]


@lru_cache(maxsize=256)
def _check(name: str) -> str:
    lower = name.strip().lower()
    if lower in BUILT_IN or lower in SANDBOXED:
        return lower
    if suites.asks_unseen(lower):
        raise UsageError(
            f"{name!r} is a task of the unseen suite, which is for the end: its checker is no reward; "
            f"known verifiers: {', '.join(names())}"
        )
    for known in _installed():
        if known.lower() == lower:
            return known
    raise UsageError(f"unknown verifier {name!r}{index.nearest(lower, names())}; known: {', '.join(names())}")


def load(name: str) -> Any:
    """The function of a verifier that `check` has passed, its module's `prepare()` called, if it has one."""
    target = (BUILT_IN | SANDBOXED).get(name)
    if target is not None:
        module, _, attribute = target.partition(":")
        function: Verifier = getattr(import_module(module), attribute)
    else:
        function = _installed()[name].load()
    prepare = getattr(sys.modules.get(getattr(function, "__module__", "")), "prepare", None)
    if prepare is not None:
        prepare()
    return function


def _installed() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}
