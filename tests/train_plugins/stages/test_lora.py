"""Adapters: merged at the end, alone in between, evaluated all the same; and room made for an evaluator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import write_gsm8k
from train_fixture import make_recipe, need_trl, pair_rows, refused, sft_rows, weights, write_rows

from olmes_suite.errors import UsageError
from olmes_suite.models.local.checkpoint import check_folder
from train_plugins.checkpoints import adapters, eval_command, evaluator, lineage, resume
from train_plugins.config import recipe
from train_plugins.config.evaluation import Evaluation
from train_plugins.running.train_stage import run
from train_plugins.stages import registry
from train_plugins.trainers import lora, offload


def train(folder: Path, kind: str, go_on: bool = False, **keys: Any) -> Path:
    data = write_rows(folder / f"{kind}.jsonl", sft_rows(8) if kind == "sft" else pair_rows(8))
    trainer = {"learning_rate": 1e-2, **keys.pop("trainer", {})}
    made = make_recipe(kind, folder, data, lora={"r": 4}, output=str(folder / kind), trainer=trainer, **keys)
    return run(registry.find(kind), made, go_on)


@pytest.mark.long
def test_an_adapter_is_trained_merged_and_evaluated(train_folder: Path) -> None:
    need_trl()
    write_gsm8k(train_folder / "data", rows=3)
    wanted = {"tasks": ["gsm8k"], "limit": 1, "every": 1, "data_dir": [str(train_folder / "data")],
              "runs": str(train_folder / "runs"), "device": "same"}  # fmt: skip
    out = train(train_folder, "sft", eval=wanted, trainer={"save_steps": 1})
    check_folder(out)
    base, merged = weights(train_folder / "tiny"), weights(out)
    assert base.keys() == merged.keys()
    moved = {name.split(".")[-2] for name in base if not bool((base[name] == merged[name]).all())}
    assert moved == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert adapters.is_adapter(out / "checkpoint-1") and (out / "adapter" / adapters.CONFIG).is_file()
    results = evaluator.read_results(out / evaluator.FILE)
    assert [(result.step, result.error) for result in results] == [(1, None), (2, None)]
    best = out / evaluator.BEST
    assert results[0].average == results[1].average  # both 0: the earlier one is kept, as a whole model
    check_folder(best)
    assert not adapters.is_adapter(best)


@pytest.mark.long
@pytest.mark.parametrize(("kind", "own"), [("dpo", {}), ("rm", {"rm": {"fresh_head": True}})])
def test_preference_stages_take_adapters(train_folder: Path, kind: str, own: dict[str, Any]) -> None:
    need_trl()
    out = train(train_folder, kind, **own)
    name = json.loads((out / "config.json").read_text())["architectures"][0]
    assert name == ("LlamaForCausalLM" if kind == "dpo" else "LlamaForSequenceClassification")
    base, merged = weights(train_folder / "tiny"), weights(out)
    assert ("score.weight" in merged) == (kind == "rm")
    assert any(not bool((base[name] == merged[name]).all()) for name in base.keys() & merged.keys())


def test_adapters_that_make_no_sense_are_refused() -> None:
    refused(lambda: lora.check(recipe.Lora(r=0), "sft"), "r must be at least 1", UsageError)
    refused(lambda: lora.check(recipe.Lora(), "distil"), "distil trains all weights", UsageError)


class Fake:
    """A tensor on a device that this machine does not have."""

    def __init__(self, kind: str, content: list[float]) -> None:
        self.device = type("Device", (), {"type": kind})()
        self.content = content

    @property
    def data(self) -> Fake:
        return self

    @data.setter
    def data(self, other: Fake) -> None:
        self.device, self.content = other.device, other.content

    def to(self, device: Any) -> Fake:
        return Fake(device if isinstance(device, str) else device.type, list(self.content))


def test_what_is_put_aside_comes_back() -> None:
    import torch

    held = [Fake("cuda", [1.0, 2.0]), Fake("cpu", [3.0]), Fake("cuda", [4.0])]
    with offload.offloaded(held) as moved:
        assert moved == 2 and {one.device.type for one in held} == {"cpu"}
    assert [(one.device.type, one.content) for one in held] == [("cuda", [1.0, 2.0]), ("cpu", [3.0]), ("cuda", [4.0])]
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    kept = list(offload.tensors(model, optimizer))
    assert len(kept) == 2 + 2 + 2 * 3  # weights, their gradients, step and two moments of each
    with offload.offloaded(kept) as moved:
        assert moved == 0


def test_where_checkpoints_are_evaluated(tmp_path: Path) -> None:
    line = eval_command.command(Evaluation(tasks=("gsm8k",), device="endpoint", base_url="http://x/v1"), tmp_path)
    assert line[line.index("--backend") + 1] == "openai" and line[line.index("--base-url") + 1] == "http://x/v1"
    wanted = Evaluation(tasks=("gsm8k",), device="endpoint", base_url="http://x/v1")
    (tmp_path / lineage.FILE).write_text("{}")
    line = eval_command.command(wanted, tmp_path, "out/checkpoint-5")  # its own path, with the lineage of its links
    assert line[line.index("--model") + 1] == "out/checkpoint-5"
    assert line[line.index("--lineage") + 1] == str(tmp_path / lineage.FILE)
    made = evaluator.Evaluator(wanted, tmp_path)
    made.started |= {5, 10}
    made.done.append(evaluator.Result(5, "checkpoint-5", None, {}, None, "failed"))
    assert made.held() == {str(tmp_path / "checkpoint-10")}  # until the server has answered for it
    for step in (5, 10, 15, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / lineage.FILE).write_text("{}")
    resume.rotate(tmp_path, 1, None, made.held())
    assert {path.name for path in tmp_path.glob("checkpoint-*")} == {"checkpoint-10", "checkpoint-20"}
    line = eval_command.command(Evaluation(tasks=("gsm8k",)), tmp_path, "out/checkpoint-5")
    assert line[line.index("--model") + 1] == str(tmp_path)
    assert eval_command.devices(Evaluation(device=1)) == {"CUDA_VISIBLE_DEVICES": "1"}
    assert eval_command.devices(Evaluation(device="same")) == {}
