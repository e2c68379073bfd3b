"""For scripts that train in several processes: the gradients of each step, and FSDP without a GPU."""

from __future__ import annotations

from typing import Any

import torch
from transformers import TrainerCallback


class Keep(TrainerCallback):
    """Gradients right before each optimiser step, whole, by parameter."""

    def __init__(self) -> None:
        self.steps: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **_):
        found = {}
        for name, p in model.named_parameters():
            if p.grad is not None:
                whole = p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad
                for part in ("module.", "_orig_mod."):
                    name = name.removeprefix(part)
                found[name.replace("_checkpoint_wrapped_module.", "")] = whole.detach().clone()
        self.steps.append(found)


def fsdp_on_cpu(args: Any) -> None:
    """accelerate turns FSDP on for GPUs only; of a world of CPUs it would make plain DDP without a word."""
    from accelerate import PartialState
    from accelerate.utils import DistributedType

    args.device  # noqa: B018  # makes the state, with gloo
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
