"""A verifying process: JSON lines in, JSON lines out. It imports no torch, and is killed when a verdict hangs.

{"load": name}                                   → {"loaded": name}
{"verify": name, "response", "truth", "row"}     → {"value": float | null}
either                                           → {"error": why}
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Mapping
from typing import Any

from olmes_suite.errors import OlmesError
from train_plugins.verifiers import registry
from train_plugins.verifiers.base import Verifier, shown

MEMORY = 4 * 2**30
"""Address space in bytes: an expression that would fill the machine's memory ends in this process."""


def answer(asked: Mapping[str, Any], loaded: dict[str, Verifier]) -> dict[str, Any]:
    """The answer to one line; `loaded` grows by the verifiers that are named."""
    if "load" in asked:
        loaded[asked["load"]] = registry.load(asked["load"])
        return {"loaded": asked["load"]}
    value = loaded[asked["verify"]](asked["response"], asked["truth"], asked["row"])
    return {"value": None if value is None else fraction(value)}


def fraction(value: Any) -> float:
    """The value as a float. Raises ValueError unless it is a number from 0 to 1."""
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"it answered {shown(value)}, which is no number from 0 to 1 and not None")
    return float(value)


def main() -> None:
    """Serve until standard input ends."""
    _end_with_parent()
    _limit_memory()
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # what a verifier prints must not get between the answers
    loaded: dict[str, Verifier] = {}
    for line in sys.stdin.buffer:
        try:
            said = answer(json.loads(line), loaded)
        except OlmesError as error:  # a malformed truth, a broken plugin
            said = {"error": str(error)}
        except MemoryError:  # the response's doing: the trainer counts it and starts another process
            os._exit(1)
        except Exception as error:  # the trainer stops with it: never a silent zero
            said = {"error": f"it raised {type(error).__name__}: {shown(str(error), 200)}"}
        print(json.dumps(said), file=answers, flush=True)


def _end_with_parent() -> None:
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = MEMORY if hard == resource.RLIM_INFINITY else min(MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


if __name__ == "__main__":
    main()
