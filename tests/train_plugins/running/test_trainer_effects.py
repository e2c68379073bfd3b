"""Every trainer argument that is said to change the weights does so: two steps with it, and two without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rlvr_fixture import make_rlvr, prompt_rows
from train_fixture import make_recipe, need_trl, pair_rows, sft_rows, write_rows

need_trl()

from train_plugins.config import trainer_fields  # noqa: E402
from train_plugins.config.trainer_fields import Role  # noqa: E402
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments  # noqa: E402
from train_plugins.stages import registry  # noqa: E402

pytestmark = pytest.mark.slow

STEPS = {"max_steps": 3, "num_train_epochs": 1, "logging_steps": 1, "save_strategy": "no"}
REUSED = {"num_iterations": 4, "learning_rate": 1e-4, "max_steps": 4}
SAMPLES: dict[str, Any] = {
    "per_device_train_batch_size": 8, "num_train_epochs": {"num_train_epochs": 0.5, "max_steps": -1}, "max_steps": 2,
    "learning_rate": 2e-3, "lr_scheduler_type": "inverse_sqrt",
    "lr_scheduler_kwargs": {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"power": 3.0}},
    "warmup_steps": {"warmup_steps": 2, "lr_scheduler_type": "linear"}, "optim": "sgd",
    "optim_args": {"optim": "sgd", "optim_args": "momentum=0.9"}, "weight_decay": 0.5, "adam_beta1": 0.5,
    "adam_beta2": 0.5, "adam_epsilon": 1e-2, "gradient_accumulation_steps": 4, "max_grad_norm": 1e-6,
    "bf16": {"bf16": True, "use_cpu": True},
    "neftune_noise_alpha": 5.0, "dataloader_drop_last": {"dataloader_drop_last": True, "max_steps": 7},
    "train_sampling_strategy": "sequential", "label_smoothing_factor": 0.2,
    "model_init_kwargs": {"model_init_kwargs": {"rms_norm_eps": 0.1}}, "max_length": 70, "shuffle_dataset": True,
    "packing": True, "padding_free": {"padding_free": True, "max_length": None}, "pad_to_multiple_of": 64,
    "center_rewards_coefficient": 0.5, "num_generations": 2, "max_completion_length": 5,
    "generation_batch_size": 16, "steps_per_generation": 4, "temperature": 0.5, "top_p": 0.3, "top_k": 3, "min_p": 0.5,
    "repetition_penalty": 3.0, "generation_kwargs": {"generation_kwargs": {"no_repeat_ngram_size": 1}},
    "num_iterations": 2, "epsilon": {"epsilon": 1e-5, **REUSED}, "epsilon_high": {"epsilon_high": 1e-5, **REUSED},
    "mask_truncated_completions": True,
    "ref_model_mixup_alpha": {"ref_model_mixup_alpha": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1},
    "ref_model_sync_steps": {"sync_ref_model": True, "ref_model_sync_steps": 2},
    "delta": 0.5, "top_entropy_quantile": 0.3, "entropy_coef": 0.5,
    "use_adaptive_entropy": {"use_adaptive_entropy": True, "entropy_coef": 0.5},
    "entropy_coef_max": {"use_adaptive_entropy": True, "entropy_coef_max": 0.5, "entropy_coef": 0.5,
                         "entropy_target": 20.0},
    "entropy_coef_delta": {"use_adaptive_entropy": True, "entropy_coef_delta": 0.4, "entropy_target": 20.0},
    "entropy_target": {"use_adaptive_entropy": True, "entropy_coef": 0.5, "entropy_target": 20.0},
    "scale_rewards": "none",
    "importance_sampling_level": {"importance_sampling_level": "sequence", "num_iterations": 2},
    "off_policy_mask_threshold": {"off_policy_mask_threshold": 0.0, "num_iterations": 2},
    "use_bias_correction_kl": {"use_bias_correction_kl": True, "num_iterations": 2},
    "normalize_advantages": True, "reward_clip_range": [0.0, 2.0],
    "chat_template_kwargs": {"chat_template_kwargs": {"documents": []}},
}  # fmt: skip
"""A value of each argument, or the arguments to set together."""
SAME = {
    "use_cpu": "the tests run on a CPU", "tf32": "needs a GPU", "fp16": "needs a GPU",
    "full_determinism": "a CPU is deterministic",
    "torch_compile": "equal up to rounding", "torch_compile_backend": "equal up to rounding",
    "torch_compile_mode": "equal up to rounding", "use_liger_kernel": "needs a GPU",
    "liger_kernel_config": "needs a GPU", "optim_target_modules": "needs a package",
    "router_aux_loss_coef": "needs a mixture of experts", "average_tokens_across_devices": "needs two processes",
    "disable_dropout": "the model has no dropout", "packing_strategy": "bfd is the only one",
    "cast_lm_head_to_fp32": "the model is in 32 bits", "chat_template_kwargs": "the template reads none",
    "pad_to_multiple_of": "equal up to rounding", "padding_free": "equal up to rounding",
    "entropy_coef_min": "needs an entropy that crosses its target", "sync_ref_model": "waits for 512 steps by default",
    "vllm_structured_outputs_regex": "needs vLLM", "vllm_importance_sampling_correction": "needs vLLM",
    "vllm_importance_sampling_mode": "needs vLLM", "vllm_importance_sampling_clip_max": "needs vLLM",
    "vllm_importance_sampling_clip_min": "needs vLLM",
}  # fmt: skip
"""Arguments whose effect does not show here."""
OF_A_STAGE = {
    **{(kind, "shuffle_dataset"): False for kind in ("grpo", "ppo", "rloo")},
    ("dpo", "max_length"): 45,
    ("rm", "max_length"): 50,
}
"""Values for one stage."""
KINDS = ("sft", "dpo", "rm", "grpo", "ppo", "rloo")
CASES = [
    (kind, name)
    for kind in KINDS
    for name, found in trainer_fields.TABLES[kind].items()
    if found.role is Role.TRAINS and name not in SAME
]


def trained(folder: Path, kind: str, trainer: dict[str, Any]) -> dict[str, Any]:
    """The weights after some steps."""
    import torch

    trainer = {**STEPS, **trainer}
    if kind in ("sft", "dpo", "rm"):
        rows = write_rows(folder / f"{kind}.jsonl", (sft_rows if kind == "sft" else pair_rows)(26))
        keys = {"rm": {"fresh_head": True}} if kind == "rm" else {}
        wanted = make_recipe(kind, folder, rows, trainer=trainer, **keys)
        stage = registry.find(kind)
    else:
        several = {"batch_size": None} if "gradient_accumulation_steps" in trainer else {}
        wanted = make_rlvr(folder, kind, prompt_rows(16), trainer=trainer, **several)
        stage = registry.find("rlvr")
    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(wanted), arguments, wanted)
    made = stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)
    made.train()
    return {name: value.detach().to(torch.float64) for name, value in made.model.named_parameters()}


@pytest.fixture(scope="module")
def plain() -> dict[str, dict[str, Any]]:
    """The weights without the argument, by the stage and the arguments beside it."""
    return {}


@pytest.fixture
def folder(rlvr_folder: Path, hash_cache: Path) -> Iterator[Path]:
    yield rlvr_folder


@pytest.mark.parametrize(("kind", "name"), CASES, ids=lambda value: str(value))
def test_the_argument_changes_the_weights(folder: Path, plain: dict[str, dict[str, Any]], kind: str, name: str) -> None:
    sample = OF_A_STAGE.get((kind, name), SAMPLES[name])
    given = sample if isinstance(sample, dict) and name in sample else {name: sample}
    others = {key: value for key, value in given.items() if key != name}
    key = f"{kind} {sorted(others.items())}"
    if key not in plain:
        plain[key] = trained(folder, kind, others)
    found = trained(folder, kind, given)
    assert any(not found[one].equal(value) for one, value in plain[key].items())


def test_every_argument_has_a_sample_or_a_reason() -> None:
    assert {name for _, name in CASES} <= SAMPLES.keys()
