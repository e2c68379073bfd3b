"""Errors of trainer arguments come before the model is loaded, in one line that names the argument."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from train_fixture import make_recipe, need_trl, refused, sft_rows, write_rows

need_trl()

from olmes_suite.devices import has_gpu  # noqa: E402
from olmes_suite.errors import UsageError  # noqa: E402
from train_plugins.config import recipe  # noqa: E402
from train_plugins.rl.keys import RlvrKeys  # noqa: E402
from train_plugins.running.dry_run import dry_run  # noqa: E402
from train_plugins.running.prepare_stage import trainer_arguments  # noqa: E402
from train_plugins.running.train_stage import run  # noqa: E402
from train_plugins.stages import registry  # noqa: E402
from train_plugins.stages.model_arguments import check_evaluation, check_template_arguments  # noqa: E402
from train_plugins.stages.rlvr_checks import check_sampling  # noqa: E402

CPU = pytest.mark.skipif(has_gpu(), reason="says what a machine without a GPU lacks")


def wanted(folder: Path, **trainer: Any) -> recipe.Recipe:
    """An SFT recipe with trainer arguments."""
    return make_recipe("sft", folder, write_rows(folder / "rows.jsonl", sft_rows(8)), trainer=trainer)


def lacks(module: str) -> Any:
    """Skip where a package is installed."""
    from importlib.util import find_spec

    return pytest.mark.skipif(find_spec(module) is not None, reason=f"{module} is installed")


@pytest.mark.long
@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"lr_scheduler_type": "cosine_with_min_lr"}, "lr_scheduler_type cosine_with_min_lr: One of min_lr"),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "'num_decay_steps'"),
        ({"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}}, "lr_end .1.0. must be smaller"),
        ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "a"}}, "lr_scheduler_type cosine: "),
        ({"lr_scheduler_kwargs": {"foo": 1}}, "lr_scheduler_type linear: .*'foo'"),
        (
            {"lr_scheduler_type": "constant", "warmup_steps": 0.1},
            "warmup_steps 0.1 has no effect .*constant_with_warmup",
        ),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"a": 1}}, "lr_scheduler_kwargs has no effect"),
        (
            {"eval_strategy": "steps"},
            r"line \d+: trainer.eval_strategy has no effect here: the stage has no evaluation",
        ),
        ({"load_best_model_at_end": True}, "trainer.load_best_model_at_end has no effect"),
        ({"push_to_hub": True}, "trainer.push_to_hub has no effect here: the stage does not push"),
        ({"fsdp": "full_shard"}, "trainer.fsdp has no effect here: use --launcher"),
        ({"deepspeed": "zero3.json"}, "trainer.deepspeed has no effect here: use --launcher"),
        pytest.param({"optim": "adamw_bnb_8bit"}, "optim adamw_bnb_8bit: .*bitsandbytes", marks=lacks("bitsandbytes")),
        pytest.param({"optim": "galore_adamw"}, "optim galore_adamw: .*galore", marks=lacks("galore_torch")),
        pytest.param(
            {"report_to": "wandb"}, "report_to wandb needs packages .*olmes-suite.wandb", marks=lacks("wandb")
        ),
        ({"report_to": "foo"}, "trainer: foo is not supported"),
        ({"optim": "sgd", "adam_beta1": 0.5}, "adam_beta1 has no effect with optim: sgd"),
        ({"optim": "sgd", "optim_args": "momentom=0.9"}, "'momentom=0.9' has no effect with optim: sgd"),
        ({"optim": "sgd", "optim_args": "momentum"}, "expected key=value pairs"),
        ({"optim_target_modules": "all-linear"}, "optim_target_modules has no effect with optim: adamw_torch_fused"),
        pytest.param({"bf16": True}, "trainer: Your setup doesn't support bf16", marks=CPU),
        pytest.param({"fp16": True}, "trainer.fp16 needs a GPU", marks=CPU),
        pytest.param({"activation_offloading": True}, "activation_offloading moves .* from a GPU", marks=CPU),
        pytest.param({"use_liger_kernel": True}, "needs liger-kernel", marks=lacks("liger_kernel")),
        ({"torch_compile_backend": "foo"}, "torch_compile_backend 'foo' is none of"),
        ({"gradient_checkpointing_kwargs": {"foo": 1}}, "gradient_checkpointing_kwargs: unknown key 'foo'"),
        ({"model_init_kwargs": {"dtype": "foo"}}, "dtype 'foo' is not a floating-point type"),
        ({"model_init_kwargs": {"attn_implementation": "sdpaa"}}, "'sdpaa' is none of eager.*did you mean 'sdpa'"),
        ({"model_init_kwargs": {"revision": "main"}}, "revision is not accepted"),
        ({"model_init_kwargs": {"foo": 1}}, "'foo' is neither a keyword of from_pretrained nor a setting"),
        ({"router_aux_loss_coef": 0.1}, "is no mixture of experts"),
        ({"padding_free": True}, "padding_free needs packing: true or max_length: null"),
        ({"ddp_backend": "gloo"}, "ddp_backend has an effect only with several processes"),
        ({"dataloader_persistent_workers": True}, "has an effect only with dataloader_num_workers above 0"),
        ({"save_steps": 1.5}, "save_steps must be an integer"),
    ],
)
def test_a_wrong_argument_is_one_line_before_the_model_is_loaded(
    train_folder: Path, monkeypatch: pytest.MonkeyPatch, trainer: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("train_plugins.running.train_stage._trainer", lambda *_: pytest.fail("the model is loaded"))
    one = wanted(train_folder, **trainer)
    refused(lambda: run(registry.find("sft"), one), said, UsageError)
    refused(lambda: dry_run(registry.find("sft"), one), said, UsageError)
    assert not (train_folder / "out").exists()


@pytest.mark.parametrize(
    "trainer",
    [
        {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr_rate": 0.1}},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
        {"optim": "adafactor", "eval_strategy": "no", "push_to_hub": False, "fsdp": "", "report_to": "none"},
        {"model_init_kwargs": {"dtype": "bfloat16", "attention_dropout": 0.1}},
        {"padding_free": True, "max_length": None},
    ],
)
def test_right_arguments_pass(train_folder: Path, trainer: dict[str, Any]) -> None:
    trainer_arguments(registry.find("sft"), wanted(train_folder, **trainer))
    assert not (train_folder / "out").exists()


def test_a_padding_token_is_the_vocabularys(train_folder: Path) -> None:
    refused(lambda: dry_run(registry.find("sft"), wanted(train_folder, pad_token="<no>")), "pad_token '<no>' is not in")


def test_a_template_reads_its_arguments() -> None:
    check_template_arguments("{{ enable_thinking }}", {"enable_thinking": False})
    check_evaluation("{{ enable_thinking }}", {"enable_thinking": False})
    refused(
        lambda: check_evaluation("{{ enable_thinking }}", {"enable_thinkin": False}),
        "eval.chat_template_args: the chat template does not read 'enable_thinkin'",
        UsageError,
    )
    for name, said in (("thinking", "does not read 'thinking'"), ("tools", "tools is not accepted")):
        refused(lambda name=name: check_template_arguments("{{ enable_thinking }}", {name: 1}), said, UsageError)


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        (
            {"generation_kwargs": {"temprature": 2}},
            "generation_kwargs: unknown key 'temprature', did you mean 'temperature'",
        ),
        ({"generation_kwargs": {"num_return_sequences": 2}}, "use trainer.num_generations"),
        ({"max_completion_length": None}, "must be a number"),
        ({"reward_clip_range": [1.0]}, "two numbers, low and high"),
        ({"reward_clip_range": [1.0, 0.0]}, "two numbers, low and high"),
    ],
)
def test_arguments_of_sampling(trainer: dict[str, Any], said: str) -> None:
    refused(lambda: check_sampling(RlvrKeys(algorithm="rloo"), trainer), said, UsageError)


def test_a_warmup_that_does_not_end_is_noted(train_folder: Path) -> None:
    lines = dry_run(registry.find("sft"), wanted(train_folder, warmup_steps=100))
    assert "note: the 2 steps end within trainer.warmup_steps 100: the learning rate does not reach its value" in lines


@pytest.mark.parametrize("steps", [0, 0.5])
def test_saves_that_are_no_number_of_steps_do_not_fit_evaluations(train_folder: Path, steps: float) -> None:
    rows = write_rows(train_folder / "rows.jsonl", sft_rows(8))
    found = make_recipe("sft", train_folder, rows, trainer={"save_steps": steps}, eval={"tasks": ["gsm8k"], "every": 2})
    refused(lambda: trainer_arguments(registry.find("sft"), found), f"trainer.save_steps {steps}", UsageError)


def test_suites_of_decontamination_are_known_before_a_model_is_loaded(train_folder: Path) -> None:
    rows = write_rows(train_folder / "rows.jsonl", sft_rows(8))
    refused(lambda: make_recipe("sft", train_folder, rows, decontam={"suites": ["dve"]}), "'?dve'?", UsageError)


def test_layers_that_the_model_lacks_are_known_before_it_is_loaded(train_folder: Path) -> None:
    pytest.importorskip("peft")
    rows = write_rows(train_folder / "rows.jsonl", sft_rows(8))
    found = make_recipe("sft", train_folder, rows, lora={"target_modules": ["q_proj", "v_prj"]})
    refused(
        lambda: trainer_arguments(registry.find("sft"), found), "no layer 'v_prj', did you mean 'v_proj'", UsageError
    )
