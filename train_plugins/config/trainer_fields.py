"""What each argument under `trainer` does to a stage: one table for every configuration class of TRL.

An argument trains (it changes the weights as TRL documents it), runs (it changes how the training runs, but not the
weights: memory, processes, logging, saving), is replaced by a key of the recipe, or is unused: the stage does not read
it. Replaced arguments are refused; unused ones are refused unless they have their default. An argument without an entry
is refused too: what a newer TRL does with it is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import Enum
from typing import Any


class Role(Enum):
    """What an argument does to a stage."""

    TRAINS = "changes the weights"
    RUNS = "changes how the training runs, not the weights"
    REPLACED = "another key of the recipe sets it"
    UNUSED = "the stage does not read it"


@dataclass(frozen=True, slots=True)
class Needs:
    """Another argument without which an argument has no effect."""

    argument: str
    values: tuple[Any, ...]
    """Values of that argument with which the first one has an effect; `True` stands for any value that is true."""
    said: str
    """The condition, as the recipe writes it."""


@dataclass(frozen=True, slots=True)
class Field:
    """What one argument does to a stage."""

    role: Role
    instead: str = ""
    """What to use instead of a refused argument, or why it has no effect."""
    needs: tuple[Needs, ...] = ()


Table = Mapping[str, Field]
_EMPTY: tuple[Any, ...] = (None, "", [], {}, ())


def _all(role: Role, names: str, instead: str = "", needs: Iterable[Needs] = ()) -> dict[str, Field]:
    return dict.fromkeys(names.split(), Field(role, instead, tuple(needs)))


def _trains(names: str, *needs: Needs) -> dict[str, Field]:
    return _all(Role.TRAINS, names, needs=needs)


def _runs(names: str, *needs: Needs) -> dict[str, Field]:
    return _all(Role.RUNS, names, needs=needs)


def _replaced(names: str, instead: str) -> dict[str, Field]:
    return _all(Role.REPLACED, names, instead)


def _unused(names: str, instead: str) -> dict[str, Field]:
    return _all(Role.UNUSED, names, instead)


# transformers' TrainingArguments

NO_EVALUATION_SET = "the stage has no evaluation set; the recipe's `eval` evaluates checkpoints"
PUSHED_BY_HAND = "the stage does not push; push the finished folder"
LAUNCHED = "use --launcher and --launch-config"
WORKERS = Needs("dataloader_num_workers", (True,), "dataloader_num_workers above 0")

_EVERY_STAGE: Table = {
    **_trains(
        """per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type lr_scheduler_kwargs
        warmup_steps optim optim_args optim_target_modules weight_decay adam_beta1 adam_beta2 adam_epsilon
        gradient_accumulation_steps max_grad_norm bf16 fp16 tf32 torch_compile torch_compile_backend
        torch_compile_mode use_liger_kernel neftune_noise_alpha full_determinism use_cpu"""
    ),
    **_trains("liger_kernel_config", Needs("use_liger_kernel", (True,), "use_liger_kernel: true")),
    **_runs(
        """activation_checkpointing activation_checkpointing_kwargs gradient_checkpointing
        gradient_checkpointing_kwargs use_cache torch_empty_cache_steps logging_strategy logging_steps
        logging_first_step log_on_each_node logging_nan_inf_filter include_num_input_tokens_seen log_level
        log_level_replica disable_tqdm report_to run_name project trackio_space_id trackio_bucket_id
        trackio_static_space_id save_only_model save_strategy save_steps save_on_each_node save_total_limit
        restore_callback_states_from_checkpoint dataloader_num_workers dataloader_pin_memory
        ddp_find_unused_parameters ddp_bucket_cap_mb ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout
        debug skip_memory_metrics do_train"""
    ),
    **_runs(
        "dataloader_persistent_workers dataloader_prefetch_factor dataloader_multiprocessing_context "
        "dataloader_in_order",
        WORKERS,
    ),
    **_replaced("output_dir", "output"),
    **_replaced("seed data_seed", "seed"),
    **_replaced("resume_from_checkpoint", "--resume"),
    **_replaced("local_rank", "--launcher, which sets it"),
    **_unused(
        """eval_strategy eval_steps eval_delay per_device_eval_batch_size prediction_loss_only eval_on_start
        eval_do_concat_batches eval_use_gather_object eval_accumulation_steps include_for_metrics batch_eval_metrics
        bf16_full_eval fp16_full_eval label_names do_eval do_predict""",
        NO_EVALUATION_SET,
    ),
    **_unused(
        "load_best_model_at_end metric_for_best_model greater_is_better",
        "the recipe's `eval` finds the best checkpoint, which stays in <output>/best",
    ),
    **_unused(
        """push_to_hub hub_token hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision""",
        PUSHED_BY_HAND,
    ),
    **_unused("fsdp fsdp_config deepspeed parallelism_config accelerator_config", LAUNCHED),
    **_unused("auto_find_batch_size", "the batch stays as planned; lower per_device_train_batch_size"),
    **_unused("ignore_data_skip", "a resumed stage continues with the rows that it has not seen"),
    **_unused("enable_jit_checkpoint", "set save_steps; a killed stage resumes from its last checkpoint"),
    **_unused("remove_unused_columns", "the trainers read the columns that they need"),
    **_unused("length_column_name", "lengths are those of the encoded rows"),
}

_EPOCHS_OF_ROWS: Table = {  # sft, rm and dpo draw their rows as transformers does
    **_trains("dataloader_drop_last train_sampling_strategy"),
    **_unused("label_smoothing_factor", "the stage's loss has no token labels"),
    **_unused("average_tokens_across_devices", "the stage's loss is a mean over pairs"),
}
_ROLLOUTS_OF_PROMPTS: Table = {
    **_unused("dataloader_drop_last", "prompts that do not fill a rollout are left out in any case"),
    **_unused("train_sampling_strategy length_column_name", "set shuffle_dataset: false to keep the order of the rows"),
    **_unused("label_smoothing_factor average_tokens_across_devices", "the stage's loss has no token labels"),
}

# TRL

_ALL_OF_TRL: Table = {
    **_EVERY_STAGE,
    **_trains("model_init_kwargs"),
    **_runs("trust_remote_code"),
}
_ENCODED_HERE = "the rows are encoded by the stage"
_NO_TEMPLATE: Table = {
    **_replaced("chat_template_path", "chat_template"),
    **_replaced("eos_token", "the recipe's `eos_token`"),
}
PACKING = Needs("packing", (True,), "packing: true")

SFT: Table = {
    **_ALL_OF_TRL,
    **_EPOCHS_OF_ROWS,
    **_NO_TEMPLATE,
    **_trains(
        """label_smoothing_factor average_tokens_across_devices router_aux_loss_coef max_length shuffle_dataset packing
        padding_free pad_to_multiple_of"""
    ),
    **_trains("packing_strategy", PACKING),
    **_runs("dataset_num_proc activation_offloading pad_token"),
    **_replaced("assistant_only_loss completion_only_loss", "sft (the loss always covers only the assistant's turns)"),
    **_replaced("loss_type", "sft.loss"),
    **_unused("dataset_text_field dataset_kwargs", _ENCODED_HERE),
    **_unused("truncation_mode", "rows over max_length are cut at their end"),
    **_unused("eval_packing", NO_EVALUATION_SET),
}
RM: Table = {
    **_ALL_OF_TRL,
    **_EPOCHS_OF_ROWS,
    **_NO_TEMPLATE,
    **_trains("disable_dropout max_length pad_to_multiple_of center_rewards_coefficient"),
    **_runs("dataset_num_proc activation_offloading pad_token"),
}
DPO: Table = {
    **_ALL_OF_TRL,
    **_EPOCHS_OF_ROWS,
    **_trains("disable_dropout max_length pad_to_multiple_of"),
    **_runs("dataset_num_proc activation_offloading pad_token precompute_ref_batch_size"),
    **_replaced("loss_type", "dpo.loss"),
    **_replaced("beta", "dpo.beta"),
    **_unused(
        "label_smoothing", "TRL reads it in the losses robust and exo_pair; dpo.loss has dpo_norm, dpo and simpo"
    ),
    **_replaced("precompute_ref_log_probs", "dpo (reference log-probabilities are always computed beforehand)"),
    **_unused("truncation_mode", "answers over max_length are cut at their end"),
    **_unused("padding_free", "TRL does not support it in DPO"),
    **_unused("router_aux_loss_coef", "the preference losses have no load-balancing term"),
    **_unused("loss_weights", "dpo.loss is a single loss"),
    **_unused("ld_alpha", "dpo.loss: dpo_norm divides by the length of the answer instead"),
    **_unused(
        "f_divergence_type f_alpha_divergence_coef", "the losses of dpo.loss are those of the reverse KL divergence"
    ),
    **_unused("use_weighting discopop_tau", "dpo.loss has dpo_norm, dpo and simpo"),
    **_unused(
        "sync_ref_model ref_model_mixup_alpha ref_model_sync_steps",
        "the reference is the checkpoint that the stage starts from",
    ),
}

VLLM = Needs("use_vllm", (True,), "rlvr.rollouts: vllm_colocate or vllm_server")
COLOCATED = Needs("vllm_mode", ("colocate",), "rlvr.rollouts: vllm_colocate")
SERVED = Needs("vllm_mode", ("server",), "rlvr.rollouts: vllm_server")
BY_TRANSFORMERS = Needs("use_vllm", (False,), "rlvr.rollouts: transformers")
SYNCED = Needs("sync_ref_model", (True,), "sync_ref_model: true")
ADAPTIVE = Needs("use_adaptive_entropy", (True,), "use_adaptive_entropy: true")
CORRECTED = Needs("vllm_importance_sampling_correction", (True,), "vllm_importance_sampling_correction: true")
KL = Needs("beta", (True,), "rlvr.beta above 0")
COMPLETIONS = Needs("log_completions", (True,), "log_completions: true")

_SAMPLED: Table = {  # TRL's GRPO and RLOO trainers
    **_ALL_OF_TRL,
    **_ROLLOUTS_OF_PROMPTS,
    **_trains(
        """disable_dropout router_aux_loss_coef num_generations max_completion_length shuffle_dataset pad_to_multiple_of
        generation_batch_size steps_per_generation temperature top_p top_k min_p repetition_penalty generation_kwargs
        chat_template_kwargs num_iterations epsilon epsilon_high mask_truncated_completions"""
    ),
    **_trains("sync_ref_model", KL),
    **_trains("ref_model_mixup_alpha ref_model_sync_steps", SYNCED),
    **_trains("vllm_structured_outputs_regex", VLLM),
    **_runs("ds3_gather_for_generation log_completions log_unique_prompts log_multimodal"),
    **_runs("num_completions_to_print", COMPLETIONS),
    **_runs("cache_implementation", BY_TRANSFORMERS),
    **_runs(
        "vllm_model_impl vllm_enable_sleep_mode vllm_gpu_memory_utilization vllm_max_model_length "
        "vllm_tensor_parallel_size",
        VLLM, COLOCATED,
    ),
    **_runs("vllm_server_timeout vllm_group_port", VLLM, SERVED),
    **_replaced("beta", "rlvr.beta"),
    **_replaced("use_vllm vllm_mode", "rlvr.rollouts"),
    **_replaced("vllm_server_base_url vllm_server_host vllm_server_port", "rlvr.server"),
    **_unused("num_generations_eval", NO_EVALUATION_SET),
    **_unused("reward_weights", "there is one reward; rlvr.reward is its factor"),
    **_unused(
        "use_transformers_continuous_batching transformers_continuous_batching_config use_transformers_paged",
        "use rlvr.rollouts: vllm_colocate",
    ),
}  # fmt: skip
_CLIPPED: Table = {  # TRL's GRPO trainer, which PPO stands on
    **_SAMPLED,
    **_trains("cast_lm_head_to_fp32 delta top_entropy_quantile entropy_coef use_adaptive_entropy"),
    **_trains("entropy_coef_min entropy_coef_max entropy_coef_delta entropy_target", ADAPTIVE),
    **_trains("vllm_importance_sampling_correction", VLLM),
    **_trains(
        """vllm_importance_sampling_mode vllm_importance_sampling_clip_max vllm_importance_sampling_clip_min""",
        VLLM, CORRECTED,
    ),
    **_replaced("vllm_importance_sampling_cap", "trainer.vllm_importance_sampling_clip_max"),
    **_replaced("loss_type", "no other loss: in rlvr it is the mean over the batch's tokens"),
    **_unused(
        """sapo_temperature_neg sapo_temperature_pos vespo_k_pos vespo_lambda_pos vespo_k_neg vespo_lambda_neg""",
        "the loss is the mean over the batch's tokens, of clipped ratios",
    ),
    **_unused("multi_objective_aggregation", "there is one reward"),
    **_unused("max_tool_calling_iterations", "without rlvr.tools or rlvr.environment responses have no calls"),
    **_unused("log_completions_hub_repo", PUSHED_BY_HAND),
}  # fmt: skip
GRPO: Table = {
    **_CLIPPED,
    **_trains("scale_rewards importance_sampling_level off_policy_mask_threshold"),
    **_trains("use_bias_correction_kl", KL),
}
PPO: Table = {
    **_CLIPPED,
    **_unused("scale_rewards", "PPO's advantages come from its value model and are whitened over all tokens"),
    **_unused("importance_sampling_level off_policy_mask_threshold", "PPO clips the ratio of each token"),
    **_unused(
        "sync_ref_model ref_model_mixup_alpha ref_model_sync_steps",
        "TRL cannot synchronise a policy with a value model; the reference is where the stage starts",
    ),
    **_unused("use_bias_correction_kl", "PPO's KL is in the reward of each token"),
}
RLOO: Table = {**_SAMPLED, **_trains("normalize_advantages reward_clip_range")}
ASYNC_GRPO: Table = {
    **_ALL_OF_TRL,
    **_ROLLOUTS_OF_PROMPTS,
    **_trains(
        """dtype router_aux_loss_coef num_generations max_completion_length temperature top_p top_k min_p
        repetition_penalty chat_template_kwargs epsilon epsilon_high token_budget max_staleness weight_sync_steps"""
    ),
    **_runs(
        """fork_threshold_tokens vllm_server_timeout request_timeout weight_sync_timeout max_inflight_tasks
        queue_maxsize heartbeat_stale_after_s log_completions num_completions_to_print"""
    ),
    **_replaced("vllm_server_base_url", "rlvr.server"),
    **_unused("max_tool_calling_iterations", "without rlvr.tools or rlvr.environment responses have no calls"),
}
TOOLS: Table = _trains("max_tool_calling_iterations")
"""What differs where rollouts have calls of tools."""
TABLES: Mapping[str, Table] = {
    "sft": SFT, "rm": RM, "dpo": DPO, "grpo": GRPO, "ppo": PPO, "rloo": RLOO, "async_grpo": ASYNC_GRPO,
}  # fmt: skip
"""All tables, by the name of the stage or of its algorithm."""

RENAMED = {
    "warmup_ratio": "warmup_steps, which below 1 is a share of the steps",
    "evaluation_strategy": "the recipe's `eval`, which evaluates checkpoints",
    "logging_dir": "the environment variable TENSORBOARD_LOGGING_DIR",
    "max_seq_length": "max_length",
    "max_prompt_length": "max_length, or in rlvr rlvr.max_prompt_length",
    "max_new_tokens": "max_completion_length",
    "no_cuda": "use_cpu",
    "overwrite_output_dir": "output (`--resume` continues a stage; another one needs another folder)",
    "batch_size": "per_device_train_batch_size, or the recipe's `batch_size`",
    "rpo_alpha": "dpo.loss, which has dpo_norm, dpo and simpo",
    "gamma": "dpo.gamma or rlvr.gamma",
}
"""Names of earlier versions and of other trainers, with what to use instead."""


def defaults(config: type[Any]) -> dict[str, Any]:
    """Return the arguments of one of TRL's configuration classes, with their defaults."""
    return {
        one.name: one.default if one.default_factory is MISSING else one.default_factory()
        for one in fields(config)
        if one.init
    }


def of_another_package(names: Iterable[str]) -> Table:
    """Return the table of a stage that has none: what every stage refuses, and the rest as the trainer documents it."""
    return {name: _EVERY_STAGE.get(name, Field(Role.TRAINS)) for name in names}


def elsewhere(name: str) -> str:
    """Return advice on a name that the stage's class does not have: its new name, or the stages that have it."""
    if instead := RENAMED.get(name):
        return f"; use {instead}"
    having = [stage for stage, table in TABLES.items() if name in table]
    return f", an argument of {', '.join(having)}" if having else ""


def check(name: str, value: Any, table: Table, default: Any) -> str | None:
    """Return why an argument of a recipe is refused, None if it is not. `default` is that of TRL's class."""
    found = table.get(name)
    if found is None:
        return "is not known to this version, so neither is what it does to the stage; remove it"
    if found.role is Role.REPLACED:
        return f"is not accepted; use {found.instead}"
    if found.role is Role.UNUSED and not _same(value, default):
        return f"has no effect here: {found.instead}"
    return None


def check_needs(name: str, arguments: Mapping[str, Any], table: Table, defaults: Mapping[str, Any]) -> str | None:
    """Return why an argument has no effect beside the others, None if it has, or if it has its default.

    `arguments` are all arguments of the trainer, `defaults` those of TRL's class.
    """
    if name not in table or _same(arguments.get(name), defaults.get(name)):
        return None
    for one in table[name].needs:
        value = arguments.get(one.argument, defaults.get(one.argument))
        if value not in one.values and not (True in one.values and bool(value)):
            return f"has an effect only with {one.said}"
    return None


def _same(value: Any, default: Any) -> bool:
    """Return whether a value is the default; an enumeration equals its text, and empty values equal None."""
    value, default = (one.value if isinstance(one, Enum) else one for one in (value, default))
    return bool(value == default) or (value in _EMPTY and default in _EMPTY)


def running(table: Table) -> frozenset[str]:
    """Return the arguments that do not change the weights, so they may change between the starts of a stage."""
    return frozenset(name for name, found in table.items() if found.role is Role.RUNS)
