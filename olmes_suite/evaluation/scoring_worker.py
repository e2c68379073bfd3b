"""A scoring worker: reads jobs as JSON lines from stdin, answers on stdout, and is killed when a job hangs."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sys
from functools import lru_cache
from typing import Any

from olmes_suite.errors import OlmesError
from olmes_suite.processes import end_with_parent, limit_memory
from olmes_suite.records import Scored
from olmes_suite.scoring.scorers import Scorer


@lru_cache(maxsize=64)
def scorer_at(file: str, name: str) -> Scorer:
    """Load the scorer called `name` from the Python file `file`."""
    spec = importlib.util.spec_from_file_location(f"olmes_scorer_{abs(hash(file))}", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    loaded = getattr(module, name)
    assert isinstance(loaded, Scorer)
    return loaded


def as_list(scored: Scored) -> list[Any]:
    """Convert a `Scored` to its JSON form."""
    return [scored.scores, scored.extracted, scored.failed, scored.weight, scored.flags]


def main() -> None:
    """Serve jobs until stdin ends."""
    end_with_parent(signal.SIGKILL)
    limit_memory()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="surrogatepass")
    os.dup2(2, 1)  # output of a scorer must not mix with the answers
    for line in sys.stdin.buffer:
        job = json.loads(line.decode("utf-8", "surrogatepass"))
        try:
            scorer = scorer_at(job["file"], job["name"])
            answer: dict[str, Any] = {}  # without a document the scorer is only loaded
            if "doc" in job:
                scored, samples = scorer.document(job["doc"], job["responses"])
                answer = {"scored": as_list(scored), "samples": [as_list(sample) for sample in samples]}
        except OlmesError as error:
            answer = {"olmes_error": str(error)}
        except MemoryError:  # caused by the response, such as the factorial of a factorial: it counts as a timeout
            os._exit(1)
        except Exception as error:  # a scorer's bug is reported with its document, never a silent zero
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
