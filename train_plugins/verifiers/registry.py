"""The verifiers by name: built-in ones, then entry points of the group `olmes.verifiers`.

Checking a name imports no verifier.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from olmes_suite.errors import UsageError
from olmes_suite.plugins import Plugins
from olmes_suite.tasks import suites
from train_plugins.verifiers.base import Verifier

BUILT_IN = {
    "gsm8k": "train_plugins.verifiers.final_answer:gsm8k",
    "gsm8k_benchmark": "train_plugins.verifiers.final_answer:gsm8k_benchmark",
    "math": "train_plugins.verifiers.mathematics:math",
    "math_benchmark": "train_plugins.verifiers.mathematics:math_benchmark",
    "string": "train_plugins.verifiers.final_answer:string",
    "ifeval": "train_plugins.verifiers.instructions:ifeval",
    "ifeval_fraction": "train_plugins.verifiers.instructions:ifeval_fraction",
    "ifeval_strict": "train_plugins.verifiers.instructions:ifeval_strict",
    "ifeval_strict_fraction": "train_plugins.verifiers.instructions:ifeval_strict_fraction",
    "string_f1": "train_plugins.verifiers.text_overlap:string_f1",
    "re_search": "train_plugins.verifiers.form:re_search",
    "think_format": "train_plugins.verifiers.form:think_format",
    "max_length": "train_plugins.verifiers.form:max_length",
    "up_to_max_length": "train_plugins.verifiers.form:up_to_max_length",
}
"""Verifiers that run in worker processes."""
SANDBOXED = {
    "code": "train_plugins.verifiers.programs:code",
    "code_fraction": "train_plugins.verifiers.programs:code_fraction",
    "code_stdio": "train_plugins.verifiers.stdin_programs:code_stdio",
    "code_stdio_fraction": "train_plugins.verifiers.stdin_programs:code_stdio_fraction",
}
"""Verifiers that run in threads of the trainer's process; the sandbox has its own processes and time limits."""
OF_OTHERS = {
    "environment": "train_plugins.verifiers.no_verdict:environment",
    "taskset": "train_plugins.verifiers.tasksets:taskset",
}
"""Verifiers whose verdict is that of an environment, or of a taskset of the package `verifiers`."""
JUDGED = {
    "judge": "train_plugins.verifiers.judged:question",
    "rubric": "train_plugins.verifiers.judged:question",
}
"""Verifiers that ask a served model (`judges`)."""
OF_FORM = ("think_format", "re_search", "max_length", "up_to_max_length")
"""Verifiers that read the whole response with its thought, and are told its number of tokens."""
VERIFIERS = Plugins("verifier", "olmes.verifiers", BUILT_IN | SANDBOXED | JUDGED | OF_OTHERS)


def names() -> list[str]:
    """Return the names of all known verifiers."""
    return VERIFIERS.names()


def check(names: Sequence[str]) -> list[str]:
    """Return the registered spelling of names. Raises UsageError for an unknown name or an unseen task."""
    return [_check(name) for name in names]


@lru_cache(maxsize=256)
def _check(name: str) -> str:
    lower = name.strip().lower()
    if lower in VERIFIERS.built_in:
        return lower
    if suites.asks_unseen(lower):
        raise UsageError(
            f"{name!r} is a task of the unseen suite, which is for the end; its checker cannot be a reward; "
            f"known verifiers: {', '.join(names())}"
        )
    for known in names():
        if known.lower() == lower:
            return known
    raise VERIFIERS.unknown(name)


def load(name: str) -> Any:
    """Load the function of a checked verifier, and call its module's `prepare()` if there is one."""
    function: Verifier = VERIFIERS.load(name)
    prepare = getattr(sys.modules.get(getattr(function, "__module__", "")), "prepare", None)
    if prepare is not None:
        prepare()
    return function
