"""Low-rank adapters, trained instead of all weights (LoRA), also on top of weights in 4 or 8 bits (QLoRA).

Checkpoints of a running stage hold only the adapter; the last one is merged into a plain model folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError, one_line
from olmes_suite.extras import require_module
from train_plugins.config.recipe import Lora

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer


def check(settings: Lora, stage: str) -> None:
    """Raise UsageError for values out of range, a stage without adapters, or a package that is not installed."""
    from importlib.util import find_spec

    if stage not in ("sft", "dpo", "rm", "rlvr"):
        raise UsageError(f"lora: the stage {stage} trains all weights; sft, dpo, rm and rlvr take adapters")
    if settings.r < 1 or settings.alpha <= 0 or not 0 <= settings.dropout < 1:
        raise UsageError("lora: r must be at least 1, alpha above 0, dropout from 0 to below 1")
    try:
        re.compile(settings.target_modules if isinstance(settings.target_modules, str) else "")
    except re.error as error:
        raise UsageError(f"lora.target_modules {settings.target_modules!r}: not a pattern ({error})") from None
    require_module("peft", "lora needs peft")
    if settings.bits and find_spec("bitsandbytes") is None:
        raise UsageError("lora.bits needs bitsandbytes: pip install bitsandbytes")


@contextmanager
def explained(settings: Lora | None) -> Iterator[None]:
    """Convert the errors of peft and TRL for an adapter that does not fit the model. Raises UsageError."""
    try:
        yield
    except ValueError as error:
        if settings is None:
            raise
        raise UsageError(f"lora: {one_line(error, 300)}") from None


def keywords(settings: Lora | None, stage: str) -> dict[str, Any]:
    """Return the keyword arguments for TRL's trainer that set up the adapter; empty without one."""
    if settings is None:
        return {}
    from peft import LoraConfig

    modules = settings.target_modules
    arguments: dict[str, Any] = {
        "peft_config": LoraConfig(
            r=settings.r, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
            target_modules=modules if isinstance(modules, str) else list(modules),
            modules_to_save=["score"] if stage == "rm" else None,
            task_type="SEQ_CLS" if stage == "rm" else "CAUSAL_LM",
        )
    }  # fmt: skip
    if settings.bits:
        import torch
        from transformers import BitsAndBytesConfig

        arguments["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=settings.bits == 4, load_in_8bit=settings.bits == 8, bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
    return arguments


def settle(model: torch.nn.Module, autocast: bool) -> None:
    """Make a model with quantised weights trainable; call it before the first forward pass.

    On CPUs with AVX512-BF16, bitsandbytes repacks 4-bit weights in a pass without gradients (DPO's reference,
    rollouts); later passes then get no gradients through them, with only a warning. Without autocast everything is
    computed in 32 bits: TRL's adapters and heads in 16 bits would not match hidden states in 32 bits.
    """
    import torch

    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):  # a layer in 4 bits
            module.support_avx512bf16_for_cpu = False
            module.compute_dtype = module.compute_dtype if autocast else torch.float32
    for parameter in model.parameters():
        if parameter.requires_grad and not autocast:
            parameter.data = parameter.data.float()


def layers(model: torch.nn.Module) -> dict[str, BaseTunerLayer]:
    """Return the layers that have an adapter, by name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


def merged(model: PeftModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the (name, weight) pairs of the base model with the adapter added, for a sampling engine.

    The base model keeps its weights, which are the reference. Adding the adapter to them and subtracting it again, as
    TRL does, would leave rounding errors in them at each rollout.
    """
    base = model.get_base_model()
    adapted = {f"{name}.base_layer.weight": layer for name, layer in layers(base).items()}
    for name, parameter in base.named_parameters():
        if model.base_model.prefix in name:  # the adapter's weights
            continue
        weight = parameter.data
        if name in adapted:
            weight = weight + adapted[name].get_delta_weight(model.active_adapter).to(weight.dtype)
        yield name.replace(".base_layer", ""), weight
