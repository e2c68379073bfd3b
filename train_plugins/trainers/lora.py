"""Low-rank adapters: what is trained in place of all weights (LoRA), over weights in 4 or 8 bits (QLoRA).

Checkpoints of a running stage hold the adapter alone; its last one is merged, so that it is a plain folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from olmes_suite.errors import UsageError, one_line
from olmes_suite.plugins import require
from train_plugins.config.recipe import Lora


def check(wanted: Lora, stage: str) -> None:
    """Raise UsageError for values that make no sense, or a package that is not installed."""
    from importlib.util import find_spec

    if stage not in ("sft", "dpo", "rm", "rlvr"):
        raise UsageError(f"lora: the stage {stage} trains all weights; sft, dpo, rm and rlvr take adapters")
    if wanted.r < 1 or wanted.alpha <= 0 or not 0 <= wanted.dropout < 1:
        raise UsageError("lora: r must be at least 1, alpha above 0, dropout from 0 to below 1")
    try:
        re.compile(wanted.target_modules if isinstance(wanted.target_modules, str) else "")
    except re.error as error:
        raise UsageError(f"lora.target_modules {wanted.target_modules!r}: not a pattern ({error})") from None
    require("peft", "train", "lora needs peft")
    if wanted.bits and find_spec("bitsandbytes") is None:
        raise UsageError("lora.bits needs bitsandbytes: pip install bitsandbytes")


@contextmanager
def explained(wanted: Lora | None) -> Iterator[None]:
    """What peft and TRL say of an adapter that fits the model not, in one line. Raises UsageError."""
    try:
        yield
    except ValueError as error:
        if wanted is None:
            raise
        raise UsageError(f"lora: {one_line(error, 300)}") from None


def keywords(wanted: Lora | None, stage: str) -> dict[str, Any]:
    """What TRL's trainer is given beside its own; nothing without adapters."""
    if wanted is None:
        return {}
    from peft import LoraConfig

    modules = wanted.target_modules
    found: dict[str, Any] = {
        "peft_config": LoraConfig(
            r=wanted.r, lora_alpha=wanted.alpha, lora_dropout=wanted.dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            modules_to_save=["score"] if stage == "rm" else None,
            task_type="SEQ_CLS" if stage == "rm" else "CAUSAL_LM",
        )
    }  # fmt: skip
    if wanted.bits:
        import torch
        from transformers import BitsAndBytesConfig

        found["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=wanted.bits == 4, load_in_8bit=wanted.bits == 8, bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    return found


def settle(model: Any, autocast: bool) -> None:
    """Make a model with packed weights train as its recipe says; call it before its first forward pass.

    On processors with AVX512-BF16, bitsandbytes packs 4-bit weights anew in a pass without gradients (DPO's reference,
    rollouts), and later passes that need gradients get none through them, with no more than a warning. Without autocast
    all is computed in 32 bits: TRL's adapters and heads in 16 would meet hidden states in 32.
    """
    import torch

    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # a layer in 4 bits
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = module.compute_dtype if autocast else torch.float32
    for parameter in model.parameters():
        if parameter.requires_grad and not autocast:
            parameter.data = parameter.data.float()


def layers(model: Any) -> dict[str, Any]:
    """The layers that have an adapter, by name; none of a model without adapters."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def merged(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, weight) pairs of the base model with the adapter added, one at a time, for a sampling engine.

    The base keeps its weights. Adding the adapter to them and subtracting it again, as TRL does, leaves rounding errors
    in them at each rollout, and they are the reference.
    """
    base = model.get_base_model()
    adapted = {f"{name}.base_layer.weight": layer for name, layer in layers(base).items()}
    for name, parameter in base.named_parameters():
        if model.base_model.prefix in name:  # the adapter's own
            continue
        weight = parameter.data
        if name in adapted:
            weight = weight + adapted[name].get_delta_weight(model.active_adapter).to(weight.dtype)
        yield name.replace(".base_layer", ""), weight
