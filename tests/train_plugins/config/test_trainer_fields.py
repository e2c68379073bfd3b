"""The tables of trainer arguments, against the configuration classes that are installed."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import pytest
from train_fixture import need_trl, refused

need_trl()

from olmes_suite.errors import UsageError  # noqa: E402
from olmes_suite.yaml_files import Place  # noqa: E402
from train_plugins.config import recipe, trainer_fields, trainer_values  # noqa: E402
from train_plugins.config.trainer_fields import Role  # noqa: E402

CLASSES = {
    "sft": "trl:SFTConfig", "rm": "trl:RewardConfig", "dpo": "trl:DPOConfig", "grpo": "trl:GRPOConfig",
    "rloo": "trl:RLOOConfig", "ppo": "train_plugins.rl.ppo:PpoConfig",
    "async_grpo": "trl.experimental.async_grpo:AsyncGRPOConfig",
}  # fmt: skip


def config(stage: str) -> Any:
    """TRL's class of a stage."""
    module, _, name = CLASSES[stage].partition(":")
    return getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("stage", CLASSES)
def test_every_argument_of_the_installed_classes_is_in_the_table(stage: str) -> None:
    assert trainer_fields.TABLES[stage].keys() == trainer_fields.defaults(config(stage)).keys()
    assert trainer_fields.TABLES.keys() == CLASSES.keys()


def other_value(default: Any) -> Any:
    """A value that differs from the default."""
    if isinstance(default, bool):
        return not default
    if isinstance(default, int | float):
        return default + 1
    return "another" if default != "another" else "one"


@pytest.mark.parametrize("stage", CLASSES)
def test_what_the_stage_does_not_read_is_refused_by_name(stage: str) -> None:
    """Replaced arguments always; unused ones unless they have their default."""
    kind, place, table = config(stage), Place("r.yaml"), trainer_fields.TABLES[stage]
    for name, default in trainer_fields.defaults(kind).items():
        role = table[name].role
        if role not in (Role.REPLACED, Role.UNUSED):
            continue
        for value in (default, other_value(default)):
            if role is Role.UNUSED and value == default:
                assert trainer_fields.check(name, value, table, default) is None
            else:
                refused(
                    lambda name=name, value=value: recipe.check_trainer({name: value}, kind, place, table),
                    rf"^r\.yaml: trainer\.{name} (is not accepted; use |has no effect here: ).+",
                    UsageError,
                )


@pytest.mark.parametrize("stage", CLASSES)
def test_what_needs_another_argument_is_refused_without_it(stage: str) -> None:
    table, defaults = trainer_fields.TABLES[stage], trainer_fields.defaults(config(stage))
    for name, found in table.items():
        for need in found.needs:
            other = {"vllm_mode": "neither"}.get(need.argument, True not in need.values)
            arguments = {"use_vllm": True, name: other_value(defaults[name]), need.argument: other}
            said = trainer_fields.check_needs(name, arguments, table, defaults)
            assert said and said.startswith("has an effect only with"), (name, need)
            assert trainer_fields.check_needs(name, {**arguments, name: defaults[name]}, table, defaults) is None


def test_an_argument_of_a_newer_version_is_refused() -> None:
    @dataclass
    class Newer(config("sft")):  # type: ignore[misc]
        novelty: int = 1

    refused(
        lambda: recipe.check_trainer({"novelty": 2}, Newer, Place("r.yaml"), trainer_fields.SFT),
        "trainer.novelty is not known to this version",
        UsageError,
    )
    assert recipe.check_trainer({"novelty": 2}, Newer, Place("r.yaml")) == {"novelty": 2}  # another package's stage


@pytest.mark.parametrize(
    ("stage", "name", "said"),
    [
        ("sft", "warmup_ratio", "unknown key 'warmup_ratio'; use warmup_steps, which below 1"),
        ("grpo", "normalize_advantages", "'normalize_advantages', an argument of rloo"),
        ("dpo", "packing", "'packing', an argument of sft"),
        ("sft", "learning_rat", "did you mean 'learning_rate'"),
    ],
)
def test_names_of_other_versions_and_stages(stage: str, name: str, said: str) -> None:
    table = trainer_fields.TABLES[stage]
    refused(lambda: recipe.check_trainer({name: 1}, config(stage), Place("r.yaml"), table), said, UsageError)


@pytest.mark.parametrize(
    ("stage", "name", "value", "said"),
    [
        ("sft", "lr_scheduler_type", "cosin", "'cosin' is none of linear.*did you mean 'cosine'"),
        ("sft", "lr_scheduler_type", 5, "5 is none of linear"),
        ("sft", "lr_scheduler_type", "greedy", "follows an evaluation loss"),
        ("sft", "lr_scheduler_kwargs", "min_lr", "expected a mapping, not 'min_lr'"),
        ("sft", "optim", "adamv", "'adamv' is none of"),
        ("sft", "save_strategy", "best", "needs an evaluation set"),
        ("sft", "save_strategy", "often", "'often' is none of no, steps, epoch, best"),
        ("sft", "packing_strategy", "wrapped", "cuts documents"),
        ("sft", "pad_to_multiple_of", "x", "whole number or auto"),
        ("sft", "train_sampling_strategy", "group_by_length", "another order after --resume"),
        ("grpo", "scale_rewards", "all", "'all' is none of group, batch, none"),
        ("grpo", "importance_sampling_level", "word", "is none of token, sequence"),
    ],
)
def test_options_are_checked(stage: str, name: str, value: Any, said: str) -> None:
    table = trainer_fields.TABLES[stage]
    refused(lambda: recipe.check_trainer({name: value}, config(stage), Place("r.yaml"), table), said, UsageError)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"learning_rate": float("nan")}, "learning_rate must be a finite number, not nan"),
        ({"learning_rate": -1.0}, "learning_rate must be at least 0, not -1.0"),
        ({"label_smoothing_factor": 1.0}, "label_smoothing_factor must be at least 0 and below 1, not 1.0"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        ({"max_steps": 0}, "max_steps 0 trains num_train_epochs instead"),
        ({"num_train_epochs": 0.0}, "num_train_epochs 0.0 trains nothing"),
        ({"adam_beta2": 1.0}, "adam_beta2 must be at least 0 and below 1"),
        ({"save_total_limit": 0}, "save_total_limit must be at least 1"),
    ],
)
def test_numbers_are_checked(arguments: dict[str, Any], said: str) -> None:
    refused(lambda: trainer_values.check_numbers(arguments, 0), said, UsageError)


def test_limits_and_options_are_of_known_arguments() -> None:
    known = {name for table in trainer_fields.TABLES.values() for name in table}
    for names in (trainer_values.LIMITS, trainer_values.CHOICES, trainer_values.NOT_HERE):
        assert set(names) <= known
