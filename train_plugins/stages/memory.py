"""A rough estimate of the memory that a stage will need, from the headers of the checkpoints' files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.models.local.checkpoint import tensor_shapes
from train_plugins.config.recipe import Lora

GIB = 2**30
TRAINED = 16
"""Bytes of a parameter that is trained: itself, its gradient and AdamW's two moments, in 32 bits."""
FROZEN = 4
NOT_ADAPTED = frozenset({"lm_head", "score", "embed_tokens", "wte", "wpe", "embed_in", "embed_out"})
"""Matrices that `all-linear` leaves out: embeddings and heads."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A model in memory beside the one that the stage starts from."""

    model: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Held:
    """What the models take together."""

    trained: int
    """Parameters."""
    frozen: int
    frozen_bytes: float

    @property
    def gib(self) -> float:
        """All of it."""
        return (TRAINED * self.trained + self.frozen_bytes) / GIB


def estimate(
    model: str, arguments: Mapping[str, Any], length: int, lora: Lora | None = None, beside: Sequence[Beside] = ()
) -> str:
    """In words: weights, gradients and moments, and one pass's activations over rows of `length` tokens.

    With checkpointing one hidden state a layer is kept, and about 34 values a hidden unit of one layer while it is
    recomputed (Korthikanti et al. 2022, without the attention matrix).
    """
    held = hold(model, lora, beside)
    if held is None:
        return "memory: unknown before the checkpoints are on this machine"
    config = json.loads((Path(model).expanduser() / "config.json").read_text(encoding="utf-8"))
    hidden, layers = int(config.get("hidden_size", 0)), int(config.get("num_hidden_layers", 0))
    width = 2 if arguments.get("bf16") or arguments.get("fp16") else 4
    tokens = int(arguments.get("per_device_train_batch_size", 8)) * length
    kept = layers + 34 if arguments.get("gradient_checkpointing", True) else 34 * layers
    activations = tokens * hidden * kept * width / GIB
    frozen = f", and {_millions(held.frozen)} frozen ones" if held.frozen else ""
    return (
        f"memory: about {held.gib:.1f} GiB for {_millions(held.trained)} parameters with gradients and AdamW in "
        f"32 bits{frozen} (divided by the processes under FSDP or ZeRO-3), {activations:.1f} GiB of activations "
        "a process"
    )


def hold(model: str, lora: Lora | None, beside: Sequence[Beside]) -> Held | None:
    """Parameters and bytes of the stage's models; None where one is not on this machine."""
    own = shapes(Path(model).expanduser())
    others = [(shapes(Path(one.model).expanduser()), one.trained) for one in beside]
    if not own or not all(found for found, _ in others):
        return None
    trained = sum(count(found) for found, learns in others if learns)
    frozen = sum(count(found) for found, learns in others if not learns)
    if lora is None:
        return Held(trained + count(own), frozen, FROZEN * frozen)
    inside = count(own)
    packed = count(linear(own, "all-linear")) if lora.bits else 0  # bitsandbytes packs all of them but the head
    size = FROZEN * (frozen + inside - packed) + (lora.bits or 0) / 8 * packed
    adapters = lora.r * sum(sum(shape) for shape in linear(own, lora.target_modules).values())
    return Held(trained + adapters, frozen + inside, size)


def linear(found: Mapping[str, Sequence[int]], wanted: str | Sequence[str]) -> dict[str, Sequence[int]]:
    """The matrices that peft's `target_modules` names: all-linear, a pattern of the whole name, or last names."""
    chosen = {}
    for name, shape in found.items():
        module = name.removesuffix(".weight")
        last = module.rpartition(".")[2]
        if wanted == "all-linear":
            fits = last not in NOT_ADAPTED
        elif isinstance(wanted, str):
            fits = re.fullmatch(wanted, module) is not None
        else:
            fits = any(module == one or module.endswith("." + one) for one in wanted)
        if len(shape) == 2 and fits:
            chosen[name] = shape
    return chosen


def shapes(folder: Path) -> dict[str, list[int]]:
    """The tensors of a checkpoint by the headers of its safetensors files; none where there are none."""
    found: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        found |= tensor_shapes(file)
    return found


def count(found: Mapping[str, Sequence[int]]) -> int:
    """Parameters in tensors of these shapes."""
    return sum(math.prod(shape) for shape in found.values())


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f} million"
