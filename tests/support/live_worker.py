"""One process of several that serve an evaluator with stand-in engines; the first one writes what the evaluator got.

python -m torch.distributed.run --nproc_per_node 3 tests/support/live_worker.py FOLDER OUT
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator

from olmes_suite.models.vllm.live import RemoteEngine, connect
from olmes_suite.models.vllm.requests import FirstAsk, Outcome
from train_plugins.checkpoints.live_engine import LiveEngine, Socket, serve


def main(out: Path) -> None:
    """Serve one evaluator, whose outcomes are prompts with the number of the process that answered."""
    accelerator = Accelerator(cpu=True)
    config = SimpleNamespace(max_model_len=100, dtype="torch.float32")
    owner = SimpleNamespace(
        enable_sleep_mode=False, tensor_parallel_size=1, gpu_memory_utilization=0.3, sync_weights=lambda: None,
        llm=SimpleNamespace(llm_engine=SimpleNamespace(model_config=config)),
    )  # fmt: skip
    trainer = SimpleNamespace(
        vllm_generation=owner, state=SimpleNamespace(global_step=7), _last_loaded_step=6, accelerator=accelerator
    )
    engine = LiveEngine(trainer)
    number = accelerator.process_index
    engine._generate = lambda batch: [Outcome((*ids, number), "stop") for ids, _ in batch]  # type: ignore[method-assign]
    if not accelerator.is_main_process:
        serve(engine, None, None)
        return
    socket, running = Socket(), Future[None]()
    found: list[Any] = []

    def evaluator() -> None:
        remote = RemoteEngine("model", connect(socket.address)[0])
        for start, count in ((0, 5), (10, 1)):
            for n in range(start, start + count):
                remote.add(n, FirstAsk(n, (n,), 1))
            found.extend(outcome.tokens for _, outcome in remote.step())
        remote.close()
        running.set_result(None)

    thread = threading.Thread(target=evaluator)
    thread.start()
    serve(engine, socket, running)
    thread.join()
    socket.close()
    torch.save({"found": found}, out)


if __name__ == "__main__":
    main(Path(sys.argv[2]))
