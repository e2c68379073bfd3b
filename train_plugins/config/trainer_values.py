"""Values that trainer arguments may have, where the libraries would fail late, or train something else silently."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, get_args

from olmes_suite.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Between:
    """The numbers that an argument may have."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    """Whether `low` itself is not allowed."""
    below: bool = False
    """Whether `high` itself is not allowed."""

    def holds(self, value: float) -> bool:
        """Return whether the value is allowed; infinite numbers and NaN never are."""
        if not math.isfinite(value):
            return False
        over = value > self.low if self.above else value >= self.low
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        low = f"{'above' if self.above else 'at least'} {self.low:g}" if math.isfinite(self.low) else ""
        high = f"{'below' if self.below else 'at most'} {self.high:g}" if math.isfinite(self.high) else ""
        return " and ".join(part for part in (low, high) if part) or "finite"


def _each(limit: Between, names: str) -> dict[str, Between]:
    return dict.fromkeys(names.split(), limit)


_SHARE = Between(0, 1)
LIMITS: Mapping[str, Between] = {
    **_each(
        Between(1),
        """per_device_train_batch_size gradient_accumulation_steps max_length max_completion_length num_generations
        num_iterations steps_per_generation generation_batch_size save_total_limit dataset_num_proc
        precompute_ref_batch_size ref_model_sync_steps vllm_tensor_parallel_size vllm_max_model_length
        pad_to_multiple_of ddp_timeout ddp_bucket_cap_mb dataloader_prefetch_factor max_staleness
        weight_sync_steps token_budget queue_maxsize""",
    ),
    **_each(
        Between(0),
        """save_steps logging_steps weight_decay max_grad_norm warmup_steps learning_rate dataloader_num_workers top_k
        epsilon epsilon_high delta center_rewards_coefficient neftune_noise_alpha adam_epsilon
        router_aux_loss_coef vllm_importance_sampling_clip_min vllm_importance_sampling_clip_max""",
    ),
    **_each(
        Between(0, above=True),
        """temperature repetition_penalty vllm_server_timeout request_timeout weight_sync_timeout
        heartbeat_stale_after_s""",
    ),
    "adam_beta1": Between(0, 1, below=True),
    "adam_beta2": Between(0, 1, below=True),
    "label_smoothing_factor": Between(0, 1, below=True),
    "top_p": Between(0, 1, above=True),
    "min_p": _SHARE,
    "top_entropy_quantile": Between(0, 1, above=True),
    "ref_model_mixup_alpha": _SHARE,
    "vllm_gpu_memory_utilization": Between(0, 1, above=True),
    "vllm_group_port": Between(1, 65535),
}
CHOICES: Mapping[str, tuple[str, ...]] = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length", "batch_rebalance"),
    "packing_strategy": ("bfd", "bfd_split", "wrapped"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no"),
    "ddp_backend": ("nccl", "gloo", "mpi"),
    "importance_sampling_level": ("token", "sequence"),
    "scale_rewards": ("group", "batch", "none"),
    "vllm_importance_sampling_mode": ("sequence_mask", "token_mask", "sequence_truncate", "token_truncate"),
    "vllm_model_impl": ("vllm", "transformers"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "torch_compile_mode": ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "cache_implementation": ("static", "offloaded_static", "dynamic", "offloaded"),
    "log_level": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
    "log_level_replica": ("detail", "debug", "info", "warning", "error", "critical", "passive"),
}
"""Options of arguments whose type is text; enumerations are checked by their type."""

_GROUPED = "draws another order after --resume; use random or sequential"
NOT_HERE: Mapping[str, Mapping[str, str]] = {
    "lr_scheduler_type": dict.fromkeys(
        ("reduce_lr_on_plateau", "greedy"), "follows an evaluation loss, and the stage has no evaluation set"
    ),
    "save_strategy": {
        "best": "needs an evaluation set; the recipe's `eval` keeps the best checkpoint in <output>/best"
    },
    "packing_strategy": dict.fromkeys(("bfd_split", "wrapped"), "cuts documents or mixes them; use bfd"),
    "train_sampling_strategy": dict.fromkeys(("group_by_length", "batch_rebalance"), _GROUPED),
}
"""Options that the stages do not have, with the reason."""


def check_option(name: str, value: Any, hint: Any) -> str | None:
    """Return what is wrong with a value that must be one of several names, or a mapping; None if it is right."""
    if isinstance(value, str) and name.endswith("_kwargs") and not value.startswith("{"):
        return f": expected a mapping, not {value!r}"
    if name == "pad_to_multiple_of" and isinstance(value, str) and value != "auto":
        return f": expected a whole number or auto, not {value!r}"
    if isinstance(value, str) and (why := NOT_HERE.get(name, {}).get(value)):
        return f" {value!r} {why}"
    listed = next((one for one in (hint, *get_args(hint)) if isinstance(one, type) and issubclass(one, Enum)), None)
    options = CHOICES.get(name) or (tuple(str(one.value) for one in listed) if listed else ())
    if (
        not options
        or value is None
        or isinstance(value, list | Enum | bool)
        or value in options
        or (listed is not None and value == "")
    ):
        return None
    return f": {value!r} is none of {', '.join(options)}{nearest(str(value), options)}"


def check_numbers(arguments: Mapping[str, Any], seed: int) -> None:
    """Raise UsageError for numbers with which the trainer cannot train."""
    for name, limit in LIMITS.items():
        value = arguments.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and not limit.holds(value):
            allowed = limit if math.isfinite(value) else "a finite number"
            raise UsageError(f"trainer.{name} must be {allowed}, not {value}")
    epochs, steps = arguments.get("num_train_epochs", 3), arguments.get("max_steps", -1)
    if steps < -1 or steps == 0:
        raise UsageError(
            f"trainer.max_steps {steps} trains num_train_epochs instead; it must be above 0, or -1 for that"
        )
    if not steps > 0 and not (epochs > 0 and math.isfinite(epochs)):
        raise UsageError(f"trainer.num_train_epochs {epochs} trains nothing; it must be above 0")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must lie between 0 and 2^32 - 1, not {seed}")
