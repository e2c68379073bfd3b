"""Room for an evaluator on the trainer's GPU: model and optimiser wait in the CPU's memory."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from olmes_suite.devices import has_gpu


def tensors(model: Any, optimizer: Any) -> Iterator[Any]:
    """All that a trainer keeps on its device between two steps: weights, gradients, buffers, moments."""
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()
    for state in optimizer.state.values() if optimizer is not None else ():
        yield from (value for value in state.values() if hasattr(value, "device"))


@contextmanager
def offloaded(kept: Iterable[Any]) -> Iterator[int]:
    """The tensors lie in the CPU's memory inside the block, and are back where they were, bit for bit, after it.

    Yields how many were moved: none on a CPU.
    """
    away = [(tensor, tensor.device) for tensor in kept if tensor.device.type != "cpu"]
    for tensor, _ in away:
        tensor.data = tensor.data.to("cpu")
    if away:
        release()
    try:
        yield len(away)
    finally:
        for tensor, device in away:
            tensor.data = tensor.data.to(device)


def release() -> None:
    """Give what nobody holds any more back to the GPU."""
    import torch

    gc.collect()
    if has_gpu():
        torch.cuda.empty_cache()
