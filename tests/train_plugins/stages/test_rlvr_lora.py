"""RLVR with adapters: the reference is the base without them, what an engine gets, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rlvr_fixture import history, make_rlvr, prompt_rows, rlvr_trainer, train_rlvr
from train_fixture import need_trl, refused, weights

from olmes_suite.errors import UsageError
from olmes_suite.models.local.checkpoint import check_folder
from train_plugins.checkpoints import adapters
from train_plugins.config import recipe
from train_plugins.rl import value_model
from train_plugins.running.dry_run import dry_run
from train_plugins.running.prepare_stage import trainer_arguments
from train_plugins.stages import memory, registry
from train_plugins.trainers import lora

need_trl()
pytestmark = pytest.mark.long
LORA = {"lora": {"r": 4}}


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "rloo"])
def test_a_fresh_adapter_is_the_reference(rlvr_folder: Path, algorithm: str) -> None:
    settings = {"max_steps": 2, "num_iterations": 1, "learning_rate": 1e-2}
    trainer = rlvr_trainer(
        make_rlvr(rlvr_folder, algorithm, prompt_rows(16), trainer=settings, rlvr={"beta": 0.2}, **LORA)
    )
    assert getattr(trainer, "ref_model", None) is None
    learning = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    critic = {name for name in learning if value_model.FOLDER in name}
    assert all("lora_" in name for name in learning - critic) and learning > critic
    assert len(critic) == (len(weights(rlvr_folder / "reward")) if algorithm == "ppo" else 0)
    trainer.train()
    kl = [entry["rlvr/kl"] for entry in trainer.state.log_history if "rlvr/kl" in entry]
    assert kl[0] == 0.0 != kl[1]


@pytest.mark.parametrize("algorithm", ["ppo", "grpo", "rloo"])
def test_it_ends_in_a_whole_model(rlvr_folder: Path, algorithm: str) -> None:
    out = train_rlvr(rlvr_folder, algorithm, prompt_rows(8), trainer={"max_steps": 2, "save_steps": 1}, **LORA)
    check_folder(out)
    base, whole = weights(rlvr_folder / "tiny"), weights(out)
    assert base.keys() == whole.keys()
    moved = {name.split(".")[-2] for name in base if not bool((base[name] == whole[name]).all())}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapters.is_adapter(out / "checkpoint-1") and adapters.is_adapter(out / adapters.FOLDER)
    ends = [
        json.loads((one / "generation_config.json").read_text())["eos_token_id"] for one in (out, rlvr_folder / "tiny")
    ]
    assert ends[0] == ends[1] and len(ends[0]) > 2
    for checkpoint in (out, out / "checkpoint-1"):
        assert (checkpoint / value_model.FOLDER).is_dir() == (algorithm == "ppo")
    assert not (out / adapters.FOLDER / value_model.FOLDER).exists()
    if algorithm == "ppo":
        start, end = weights(rlvr_folder / "reward"), weights(out / value_model.FOLDER)
        assert start.keys() == end.keys() and any(bool((start[n] != end[n]).any()) for n in start)
    assert len(history(out)) == 2


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_an_engine_gets_the_merged_weights_and_the_base_stays(rlvr_folder: Path, algorithm: str) -> None:
    import torch

    trainer = rlvr_trainer(make_rlvr(rlvr_folder, algorithm, prompt_rows(8), trainer={"max_steps": 1}, **LORA))
    trainer.train()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    given = dict(value_model.of_policy(lora.merged(trainer.model)))
    trainer.save_model(str(rlvr_folder / "adapter"))
    adapters.merge(rlvr_folder / "adapter", rlvr_folder / "whole")
    wanted = weights(rlvr_folder / "whole")
    assert given.keys() == wanted.keys()
    assert all(torch.allclose(given[name], wanted[name], atol=1e-7) for name in wanted)
    assert all(bool((value == before[name]).all()) for name, value in trainer.model.state_dict().items())


def test_what_adapters_cannot_do_is_refused(rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(match: str, algorithm: str = "grpo", **keys: Any) -> None:
        wanted = make_rlvr(rlvr_folder, algorithm, prompt_rows(8), **{**LORA, **keys})
        refused(lambda: trainer_arguments(registry.find("rlvr"), wanted), match, UsageError)

    bad("rlvr switches all dropout off", lora={"dropout": 0.1})
    bad("the reference is the base", trainer={"sync_ref_model": True})
    bad("not a pattern", lora={"target_modules": "q_(proj"})
    later = {"asynchronous": True, "rollouts": "vllm_server", "beta": 0, "server": "http://localhost:8000"}
    bad("asynchronous trains all weights", rlvr=later)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    bad("no FSDP, no DeepSpeed", rlvr={"rollouts": "vllm_colocate"})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    bad("with lora.bits use `rollouts: transformers`", lora={"bits": 4}, rlvr={"rollouts": "vllm_colocate"})
    for modules, said in (("q", "Target modules q"), (["lm_head"], "lm_head")):
        refused(
            lambda modules=modules: train_rlvr(rlvr_folder, "grpo", prompt_rows(8), lora={"target_modules": modules}),
            said,
        )


def test_the_memory_is_that_of_the_adapter(rlvr_folder: Path) -> None:
    base, reward = (memory.count(memory.shapes(rlvr_folder / name)) for name in ("tiny", "reward"))
    trainer = rlvr_trainer(make_rlvr(rlvr_folder, "ppo", prompt_rows(8), **LORA))
    wanted = make_rlvr(rlvr_folder, "ppo", prompt_rows(8), **LORA)
    held = memory.hold(wanted.model, wanted.lora, registry.find("rlvr").beside(wanted))
    assert held.trained == sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    assert held.frozen == sum(p.numel() for p in trainer.model.parameters() if not p.requires_grad) == base
    assert held.frozen_bytes == 4 * base
    plain = make_rlvr(rlvr_folder, "ppo", prompt_rows(8))
    held = memory.hold(plain.model, None, registry.find("rlvr").beside(plain))
    assert (held.trained, held.frozen, held.frozen_bytes) == (base + reward, base, 4 * base)  # value model, reference
    assert "million frozen ones" in dry_run(registry.find("rlvr"), wanted)[-1]
    packed = memory.hold(wanted.model, recipe.Lora(bits=4), ())
    linear = memory.count(memory.linear(memory.shapes(rlvr_folder / "tiny"), "all-linear"))
    assert 0 < linear < base and packed.frozen_bytes == 4 * (base - linear) + linear / 2
