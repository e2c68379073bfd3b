"""A verifying process, which reads and writes JSON lines. It does not import torch, and is killed if a verdict hangs.

{"load": name}                                   → {"loaded": name}
{"verify": name, "response", "truth", "row"}     → {"value": float | null}
either                                           → {"error": why}
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.processes import end_with_parent, limit_memory
from train_plugins.verifiers import registry
from train_plugins.verifiers.base import Verifier, shown


def answer(request: Mapping[str, Any], loaded: dict[str, Verifier]) -> dict[str, Any]:
    """Answer one line; a verifier that it loads is added to `loaded`."""
    if "load" in request:
        loaded[request["load"]] = registry.load(request["load"])
        return {"loaded": request["load"]}
    value = loaded[request["verify"]](request["response"], request["truth"], request["row"])
    return {"value": None if value is None else fraction(value)}


def fraction(value: Any) -> float:
    """Return the value as a float. Raises ValueError unless it is a number from 0 to 1."""
    if not isinstance(value, (bool, int, float)) or not math.isfinite(value) or not 0 <= value <= 1:
        raise ValueError(f"it returned {shown(value)}, which is neither a number from 0 to 1 nor None")
    return float(value)


def main() -> None:
    """Answer lines until stdin ends."""
    end_with_parent(signal.SIGKILL)
    limit_memory()
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)  # a verifier's output must not mix with the answers
    loaded: dict[str, Verifier] = {}
    for line in sys.stdin.buffer:
        try:
            reply = answer(json.loads(line), loaded)
        except OlmesError as error:  # a malformed truth, a broken plugin
            reply = {"error": str(error)}
        except MemoryError:  # caused by the response: the trainer counts it and starts another process
            os._exit(1)
        except Exception as error:  # the trainer stops with this error instead of a silent zero
            reply = {"error": f"it raised {type(error).__name__}: {shown(str(error), 200)}"}
        print(json.dumps(reply), file=answers, flush=True)


if __name__ == "__main__":
    main()
