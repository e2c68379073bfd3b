"""Checks of trainer arguments that belong to the model, against the checkpoint's configuration."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError, nearest
from train_plugins.data.fields import PASSED as NOT_THE_TEMPLATES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from train_plugins.config.recipe import DataEntry

REFUSED = {
    "revision": "the tokenizer and the reference would be of another one; download the revision and name its folder",
    "subfolder": "name the folder as `model`",
    "quantization_config": "use lora.bits",
    "num_labels": "a reward model has one label",
    "config": "change the checkpoint's config.json",
    "trust_remote_code": "use trainer.trust_remote_code",
}
"""Keywords of `from_pretrained` that a stage cannot pass on, with what to do instead."""
LOADING = (
    "dtype", "torch_dtype", "attn_implementation", "use_kernels", "device_map", "low_cpu_mem_usage", "max_memory",
    "offload_folder", "offload_state_dict", "use_safetensors", "cache_dir", "local_files_only", "token", "tp_plan",
    "tp_size", "experts_implementation", "ignore_mismatched_sizes", "variant", "weights_only", "kernel_config",
)  # fmt: skip
"""Keywords of `from_pretrained`; the others must be settings of the model's configuration."""
PASSED = (
    "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt",
    "continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_tensors", "return_dict",
    "return_assistant_tokens_mask", "tokenizer_kwargs", "processor_kwargs",
)  # fmt: skip
"""Arguments of `apply_chat_template` itself, which are no variables of the template."""
PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def check_model_arguments(model: str, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for arguments that the checkpoint `model` cannot take; one on the Hub is not looked up."""
    settings = arguments.get("model_init_kwargs") or {}
    for name, instead in REFUSED.items():
        if name in settings:
            raise UsageError(f"trainer.model_init_kwargs: {name} is not accepted: {instead}")
    _check_dtype(settings.get("dtype", settings.get("torch_dtype")), "trainer.model_init_kwargs: dtype")
    _check_dtype(arguments.get("dtype"), "trainer.dtype")
    attention = settings.get("attn_implementation")
    if isinstance(attention, str) and (package := PACKAGES.get(attention)) and find_spec(package) is None:
        raise UsageError(f"trainer.model_init_kwargs: attn_implementation {attention} needs the package {package}")
    if isinstance(attention, str) and "/" not in attention:  # with a slash it is a kernel on the Hub
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        known = ["eager", *ALL_ATTENTION_FUNCTIONS.valid_keys()]
        if attention not in known:
            raise UsageError(
                f"trainer.model_init_kwargs: attn_implementation {attention!r} is none of {', '.join(known)}"
                f"{nearest(attention, known)}"
            )
    config = _config(model)
    if config is None:
        return
    for name in settings:
        if name not in LOADING and not hasattr(config, name):
            known = [*LOADING, *config.to_dict()]
            raise UsageError(
                f"trainer.model_init_kwargs: {name!r} is neither a keyword of from_pretrained nor a setting of {model}"
                f"{nearest(str(name), known)}"
            )
    if arguments.get("router_aux_loss_coef") and not hasattr(config.get_text_config(), "output_router_logits"):
        raise UsageError(
            f"trainer.router_aux_loss_coef: {model} is no mixture of experts, so it has no effect; remove it"
        )


def set_pad_token(tokenizer: PreTrainedTokenizerBase, name: str | None, pooled: bool) -> None:
    """Set the tokenizer's padding token, as TRL would do after the rows are encoded. Raises UsageError.

    `pooled`: the model's head reads the last token that is not padding.
    """
    if name is None:
        return
    if name not in tokenizer.get_vocab():
        raise UsageError(f"trainer.pad_token {name!r} is not in the tokenizer's vocabulary")
    if pooled and name == tokenizer.eos_token:
        raise UsageError(
            f"trainer.pad_token {name!r} ends each text, so the reward would be read before it; take another"
        )
    tokenizer.pad_token = name


def check_template_arguments(template: str, settings: Mapping[str, Any] | None) -> None:
    """Raise UsageError for `chat_template_kwargs` that the template does not read, or that TRL passes itself."""
    for name in settings or {}:
        if name in PASSED:
            raise UsageError(f"trainer.chat_template_kwargs: {name} is not accepted: the trainer passes it itself")
        if not re.search(rf"\b{re.escape(str(name))}\b", template):
            raise UsageError(f"trainer.chat_template_kwargs: the chat template does not read {name!r}; remove it")


def check_evaluation(template: str, settings: Mapping[str, Any]) -> None:
    """Raise UsageError for `eval.chat_template_args` that the template does not read."""
    for name in settings:
        if not re.search(rf"\b{re.escape(str(name))}\b", template):
            raise UsageError(f"eval.chat_template_args: the chat template does not read {name!r}; remove it")


def check_entries(template: str, entries: Sequence[DataEntry]) -> None:
    """Raise UsageError for `chat_template_kwargs` of a data entry that the template does not read."""
    for number, entry in enumerate(entries):
        for name in entry.chat_template_kwargs or {}:
            if name in NOT_THE_TEMPLATES:
                raise UsageError(f"data[{number}]: chat_template_kwargs: {name} is not the chat template's")
            if not re.search(rf"\b{re.escape(str(name))}\b", template):
                raise UsageError(f"data[{number}]: chat_template_kwargs: the chat template does not read {name!r}")


def _check_dtype(name: Any, where: str) -> None:
    import torch

    if name is None or name == "auto" or isinstance(name, torch.dtype):
        return
    if not isinstance(name, str) or not isinstance(getattr(torch, name, None), torch.dtype):
        raise UsageError(f"{where} {name!r} is not a floating-point type of torch; use float32, bfloat16 or float16")


def _config(model: str) -> Any:
    """Return the checkpoint's configuration; None if it is not here, or if loading says what is wrong."""
    from pathlib import Path

    from transformers import AutoConfig

    if not (Path(model).expanduser() / "config.json").is_file():
        return None
    try:
        return AutoConfig.from_pretrained(Path(model).expanduser())
    except (OSError, ValueError):
        return None
