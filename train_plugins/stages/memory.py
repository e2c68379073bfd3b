"""A rough estimate of the memory that a stage needs, from the headers of the checkpoints' files."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError, nearest
from olmes_suite.models.local.checkpoint import tensor_shapes
from train_plugins.config.recipe import Lora, Sizes

GIB = 2**30
TRAINED = 16
"""Bytes of a trained parameter: the value, its gradient and AdamW's two moments, in 32 bits."""
FROZEN = 4
"""Bytes of a frozen parameter."""
NOT_ADAPTED = frozenset({"lm_head", "score", "embed_tokens", "wte", "wpe", "embed_in", "embed_out"})
"""Matrices that `all-linear` excludes: embeddings and heads."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A model in memory beside the one that the stage starts from."""

    model: str
    trained: bool


@dataclass(frozen=True, slots=True)
class Held:
    """The parameters of all models of a stage."""

    trained: int
    """Number of trained parameters."""
    frozen: int
    """Number of frozen parameters."""
    frozen_bytes: float

    @property
    def gib(self) -> float:
        """Memory of parameters, gradients and moments, in GiB."""
        return (TRAINED * self.trained + self.frozen_bytes) / GIB


def estimate(
    model: str,
    arguments: Mapping[str, Any],
    length: int,
    lora: Lora | None = None,
    beside: Sequence[Beside] = (),
    sizes: Sizes | None = None,
) -> str:
    """Describe the memory of weights, gradients and moments, and of one pass's activations over `length` tokens.

    With gradient checkpointing a pass stores one hidden state per layer, and about 34 values per hidden unit of the
    layer that is being recomputed (Korthikanti et al. 2022, without the attention matrix). `sizes` stand for a
    checkpoint that is not on this machine, and for the models beside it.
    """
    size = hold(model, lora, beside)
    file = Path(model).expanduser() / "config.json"
    if size is not None:
        config = json.loads(file.read_text(encoding="utf-8"))
        hidden, layers = int(config.get("hidden_size", 0)), int(config.get("num_hidden_layers", 0))
    elif sizes and sizes.parameters and lora is None:
        still = sizes.parameters * sum(not one.trained for one in beside)
        size = Held(sizes.parameters * (1 + len(beside)) - still, still, FROZEN * still)
        hidden, layers = sizes.hidden or 0, sizes.layers or 0
    else:
        return "memory: unknown until the checkpoints are on this machine"
    width = 2 if arguments.get("bf16") or arguments.get("fp16") else 4
    tokens = int(arguments.get("per_device_train_batch_size", 8)) * length
    values = layers + 34 if arguments.get("gradient_checkpointing", True) else 34 * layers
    activations = tokens * hidden * values * width / GIB
    frozen = f", and {_millions(size.frozen)} frozen ones" if size.frozen else ""
    return (
        f"memory: about {size.gib:.1f} GiB for {_millions(size.trained)} parameters with gradients and AdamW in "
        f"32 bits{frozen} (divided by the processes under FSDP or ZeRO-3), {activations:.1f} GiB of activations "
        "a process"
    )


def hold(model: str, lora: Lora | None, beside: Sequence[Beside]) -> Held | None:
    """Count parameters and bytes of the stage's models; None if one is not on this machine."""
    base = shapes(Path(model).expanduser())
    others = [(shapes(Path(one.model).expanduser()), one.trained) for one in beside]
    if not base or not all(tensors for tensors, _ in others):
        return None
    trained = sum(count(tensors) for tensors, learns in others if learns)
    frozen = sum(count(tensors) for tensors, learns in others if not learns)
    if lora is None:
        return Held(trained + count(base), frozen, FROZEN * frozen)
    inside = count(base)
    packed = count(linear(base, "all-linear")) if lora.bits else 0  # bitsandbytes packs all of them but the head
    size = FROZEN * (frozen + inside - packed) + (lora.bits or 0) / 8 * packed
    adapters = lora.r * sum(sum(shape) for shape in linear(base, lora.target_modules).values())
    return Held(trained + adapters, frozen + inside, size)


def linear(tensors: Mapping[str, Sequence[int]], targets: str | Sequence[str]) -> dict[str, Sequence[int]]:
    """Select matrices as peft's `target_modules` does: all-linear, a pattern of the whole name, or last names."""
    chosen = {}
    for name, shape in tensors.items():
        module = name.removesuffix(".weight")
        last = module.rpartition(".")[2]
        if targets == "all-linear":
            fits = last not in NOT_ADAPTED
        elif isinstance(targets, str):
            fits = re.fullmatch(targets, module) is not None
        else:
            fits = any(module == one or module.endswith("." + one) for one in targets)
        if len(shape) == 2 and fits:
            chosen[name] = shape
    return chosen


def check_targets(model: str, lora: Lora | None) -> None:
    """Raise UsageError for names of `lora.target_modules` that no layer of a checkpoint on this machine has.

    Patterns are left to peft: a model may hold its layers under a longer name than its files.
    """
    if lora is None or isinstance(lora.target_modules, str):
        return
    tensors = shapes(Path(model).expanduser())
    for name in lora.target_modules if tensors else ():
        if not linear(dict.fromkeys(tensors, (1, 1)), [name]):
            known = sorted(
                {one.removesuffix(".weight").rpartition(".")[2] for one, of in tensors.items() if len(of) == 2}
            )
            raise UsageError(f"lora.target_modules: {model} has no layer {name!r}{nearest(name, known)}; it has "
                             f"{', '.join(known)}")  # fmt: skip


def shapes(folder: Path) -> dict[str, list[int]]:
    """Read the shapes of a checkpoint's tensors from the headers of its safetensors files; empty without such files."""
    tensors: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        tensors |= tensor_shapes(file)
    return tensors


def count(tensors: Mapping[str, Sequence[int]]) -> int:
    """Count the parameters in tensors of these shapes."""
    return sum(math.prod(shape) for shape in tensors.values())


def _millions(number: int) -> str:
    return f"{number / 1e6:.1f} million"
