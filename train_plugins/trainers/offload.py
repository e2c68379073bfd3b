"""Moving model and optimiser to CPU memory, to make room for an evaluator on the trainer's GPU."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from olmes_suite.devices import has_gpu

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer


def tensors(model: nn.Module, optimizer: Optimizer | None) -> Iterator[Tensor]:
    """Yield the tensors on a trainer's device between two steps: weights, gradients, buffers, moments."""
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
    yield from model.buffers()
    for state in optimizer.state.values() if optimizer is not None else ():
        yield from (value for value in state.values() if hasattr(value, "device"))


@contextmanager
def offloaded(tensors: Iterable[Tensor]) -> Iterator[int]:
    """Move the tensors to CPU memory for the block, and back to their devices, bit for bit, after it.

    Yields the number of moved tensors, which is 0 on a CPU.
    """
    away = [(tensor, tensor.device) for tensor in tensors if tensor.device.type != "cpu"]
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
    """Release unused GPU memory."""
    import torch

    gc.collect()
    if has_gpu():
        torch.cuda.empty_cache()
