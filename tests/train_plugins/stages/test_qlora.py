"""Adapters over weights in 4 and 8 bits, without a GPU, where bitsandbytes is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from train_fixture import losses, make_recipe, need_trl, pair_rows, sft_rows, weights, write_rows

from olmes_suite.models.local.checkpoint import check_folder
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.running.train_stage import run
from train_plugins.stages import registry
from train_plugins.trainers import lora

need_trl()
pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install bitsandbytes")
pytestmark = pytest.mark.long


def recipe_of(folder: Path, kind: str, bits: int, **trainer: Any) -> Any:
    """A recipe over a tiny model."""
    data = write_rows(folder / "rows.jsonl", sft_rows(16) if kind == "sft" else pair_rows(16))
    own = {"rm": {"fresh_head": True}} if kind == "rm" else {}
    return make_recipe(
        kind, folder, data, lora={"r": 4, "bits": bits}, trainer={"learning_rate": 1e-2, **trainer}, **own
    )


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("kind", ["sft", "dpo", "rm"])
def test_a_stage_trains_and_merges_into_the_base(
    train_folder: Path, kind: str, bits: int, recwarn: pytest.WarningsRecorder
) -> None:
    out = run(registry.find(kind), recipe_of(train_folder, kind, bits, num_train_epochs=4))
    check_folder(out)
    base, whole = weights(train_folder / "tiny"), weights(out)
    moved = {name.split(".")[-2] for name in base.keys() & whole.keys() if bool((base[name] != whole[name]).any())}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {value.dtype for value in whole.values()} == {value.dtype for value in base.values()}
    assert sum(losses(out)[-4:]) < sum(losses(out)[:4])
    assert not [one for one in recwarn if "autograd kernel was not registered" in str(one.message)]


def test_gradients_in_four_bits_are_those_of_the_unpacked_weights(train_folder: Path) -> None:
    """DPO, whose reference is computed without gradients first; a plain model with what NF4 makes of the weights."""
    import torch
    from bitsandbytes.functional import dequantize_4bit

    stage = registry.find("dpo")
    wanted, arguments = trainer_arguments(stage, recipe_of(train_folder, "dpo", 4))
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(wanted), arguments, wanted)
    trainer = stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)
    batch = next(iter(trainer.get_train_dataloader()))
    torch.manual_seed(0)
    for name, parameter in trainer.model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.05)

    def gradients() -> dict[str, Any]:
        trainer.model.zero_grad()
        trainer.compute_loss(trainer.model.train(), dict(batch)).backward()
        return {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}

    packed = gradients()
    for layer in lora.layers(trainer.model).values():
        inside = layer.base_layer
        plain = torch.nn.Linear(inside.in_features, inside.out_features, bias=False)
        plain.weight = torch.nn.Parameter(dequantize_4bit(inside.weight.data, inside.weight.quant_state), False)
        layer.base_layer = plain
    unpacked = gradients()
    assert len(packed) == 2 * 7 * 2  # two layers
    for name, wanted_gradient in unpacked.items():
        scale = float(wanted_gradient.abs().max())
        assert scale > 0 and float((packed[name] - wanted_gradient).abs().max()) < 1e-4 * scale, name
