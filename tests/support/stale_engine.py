"""The command line with a colocated vLLM that gets the learner's weights SYNCS times only: a control for tests.

`python tests/support/stale_engine.py SYNCS train rlvr RECIPE`
"""

from __future__ import annotations

import sys
from typing import Any


def main(syncs: int, arguments: list[str]) -> int:
    """Run the command; its exit status."""
    from trl.generation.vllm_generation import VLLMGeneration

    from olmes_suite.cli.main import run

    sync, done = VLLMGeneration.sync_weights, []

    def some(self: Any) -> None:
        done.append(None)
        if len(done) <= syncs:
            sync(self)

    VLLMGeneration.sync_weights = some
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
