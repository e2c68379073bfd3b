"""The recipes of OLMo 3: the published numbers, and what `--dry-run` makes of them without model and data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from train_fixture import need_trl

from train_plugins.config import recipe
from train_plugins.stages import price, registry

NAMES = sorted(path.stem for path in recipe.SHIPPED.glob("olmo3_*.yaml"))


def shipped(name: str) -> recipe.Recipe:
    kind = name.split("_")[2]
    return recipe.load(Path(name), kind, registry.find(kind).own, registry.names())


def test_each_stage_of_both_sizes_ships() -> None:
    kinds = [f"olmo3_{line}_{stage}" for line in ("instruct", "think") for stage in ("dpo", "rlvr", "sft")]
    assert sorted(f"{kind}_{size}" for kind in kinds for size in ("7b", "32b")) == sorted(NAMES)
    for name in NAMES:
        found = shipped(name)
        assert found.decontam is not None and found.sizes is not None and found.eval is None


@pytest.mark.parametrize(
    ("name", "rate", "batch"),
    [
        ("think_sft_7b", 5e-5, 1_048_576), ("think_sft_32b", 1e-4, 4_194_304),
        ("instruct_sft_7b", 8e-5, 1_048_576), ("instruct_sft_32b", 8e-5, 4_194_304),
    ],
)  # fmt: skip
def test_sft(name: str, rate: float, batch: int) -> None:
    found = shipped(f"olmo3_{name}")
    assert (found.own.loss, found.own.batch_tokens, found.trainer["learning_rate"]) == ("mean", batch, rate)
    assert (found.trainer["max_length"], found.trainer["packing"], found.trainer["num_train_epochs"]) == (
        32768,
        True,
        2,
    )
    assert (found.own.skip_spikes.window, found.own.skip_spikes.sigma) == (128, 6)
    assert (found.trainer["adam_beta1"], found.trainer["adam_beta2"]) == (0.9, 0.95)


@pytest.mark.parametrize(
    ("name", "rate", "length", "pairs"),
    [
        ("think_dpo_7b", 8e-8, 16384, 150_000), ("think_dpo_32b", 7e-8, 8192, 200_000),
        ("instruct_dpo_7b", 1e-6, 16384, 259_922), ("instruct_dpo_32b", 1e-6, 8192, 259_922),
    ],
)  # fmt: skip
def test_dpo(name: str, rate: float, length: int, pairs: int) -> None:
    found = shipped(f"olmo3_{name}")
    assert (found.own.loss, found.own.beta, found.batch_size) == ("dpo_norm", 5.0, 128)
    assert (found.trainer["learning_rate"], found.trainer["max_length"]) == (rate, length)
    assert found.sizes is not None and found.sizes.rows == pairs


@pytest.mark.parametrize(
    ("name", "rate", "length", "rollout", "updates", "rollouts"),
    [
        ("think_rlvr_7b", 1e-6, 32768, 512, 1, 1400), ("think_rlvr_32b", 2e-6, 32768, 1024, 1, 750),
        ("instruct_rlvr_7b", 1e-6, 8192, 512, 4, 450), ("instruct_rlvr_32b", 2e-6, 16384, 512, 1, 450),
    ],
)  # fmt: skip
def test_rlvr(name: str, rate: float, length: int, rollout: int, updates: int, rollouts: int) -> None:
    found = shipped(f"olmo3_{name}")
    given: dict[str, Any] = dict(found.trainer)
    assert (given["learning_rate"], given["max_completion_length"], given["num_generations"]) == (rate, length, 8)
    assert found.batch_size == rollout // updates and given.get("generation_batch_size", rollout) == rollout
    assert given["max_steps"] == rollouts * updates
    assert (given["epsilon"], given["epsilon_high"], given["scale_rewards"]) == (0.2, 0.272, "none")
    assert (found.own.algorithm, found.own.beta, found.own.active_sampling) == ("grpo", 0.0, True)
    truncated = given.get("vllm_importance_sampling_mode"), given.get("vllm_importance_sampling_clip_max")
    assert truncated == (("token_truncate", 2.0) if name == "think_rlvr_32b" else (None, None))


def test_the_arithmetic_of_a_stage() -> None:
    assert price.Passes().flop == 8 and price.Passes(recomputed=False).flop == 6
    assert price.Passes(learnt=4, forward=2, recomputed=False).flop == 28
    line = price.estimate(7.3e9, 90.8e9, price.Passes())
    hours = 7.3e9 * 90.8e9 * 8 / (989e12 * 0.4) / 3600
    assert f"{hours / 24:,.0f} days of one H100" in line and "5.3e+21 FLOP (8 per" in line


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_dry_run_prices_a_recipe_without_its_model_and_data(name: str) -> None:
    need_trl()
    from train_plugins.running.dry_run import dry_run

    lines = dry_run(registry.find(name.split("_")[2]), shipped(name))
    text = "\n".join(lines)
    assert "not loaded, sizes from the recipe" in text and "memory: about" in lines[-1]
    assert " days of one H100" in lines[-2]
    steps = {"think_sft_7b": 86594, "think_sft_32b": 21554, "instruct_sft_7b": 6486, "think_dpo_7b": 1172,
             "instruct_rlvr_7b": 1800}  # fmt: skip
    if count := steps.get(name.removeprefix("olmo3_")):
        assert f" {count} steps, about" in text


def test_the_template_marks_answers_and_ends_every_turn() -> None:
    need_trl()
    from models_fixture import make_tiny_tokenizer

    from train_plugins.data import encoding, turn_end

    tokenizer = make_tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    turn_end.set_eos(tokenizer, "<|im_end|>")
    tokenizer = encoding.prepare_tokenizer(tokenizer, encoding.template_text("olmo3"))
    turns = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
    ]
    again = [*turns, {"role": "user", "content": "c"}]
    text = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>"
    assert tokenizer.apply_chat_template(turns, tokenize=False) == text
    assert tokenizer.apply_chat_template(again, tokenize=False, add_generation_prompt=True) == (
        f"{text}\n<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n"
    )
    turn_end.check_turn_end(tokenizer, [tokenizer.eos_token_id], masked=True)
