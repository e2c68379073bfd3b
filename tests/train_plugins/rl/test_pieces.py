"""Pieces of the stages, each on its own: dropout, padding, the reference's cache on several machines."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rlvr_fixture import make_rlvr, prompt_rows, rlvr_trainer
from train_fixture import make_recipe, need_trl, pair_rows, refused, write_rows

from olmes_suite.errors import UsageError
from train_plugins.data import encoding
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.stages import registry
from train_plugins.trainers import reference_logprobs

need_trl()

DROPOUT = 0.5


def change(file: Path, **keys: Any) -> None:
    """Set keys of a JSON file; None removes one."""
    found = {**json.loads(file.read_text()), **keys}
    file.write_text(json.dumps({key: value for key, value in found.items() if value is not None}))


def test_the_first_pass_over_a_rollout_sees_the_networks_that_sampled(
    rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Policy, reference and value model have dropout in their attention, which Llama keeps as a number."""
    from train_plugins.rl.ppo import Ppo

    for name in ("tiny", "reward"):
        change(rlvr_folder / name / "config.json", attention_dropout=DROPOUT)
    trainer = rlvr_trainer(make_rlvr(rlvr_folder, "ppo", prompt_rows(8), trainer={"max_steps": 1, "num_iterations": 1}))
    plain, passes = Ppo._get_per_token_logps_and_entropies, []

    def keep(self: Any, model: Any, *args: Any, **kwargs: Any) -> Any:
        found = plain(self, model, *args, **kwargs)
        passes.append((found[0].detach(), self.seen[-1].detach() if self.seen else None))
        return found

    compute, far = Ppo._compute_loss, []

    def compare(self: Any, model: Any, inputs: Any) -> Any:
        loss = compute(self, model, inputs)
        (logps, values), mask = passes[-1], inputs["completion_mask"].bool()
        far.append(float((logps - inputs["old_per_token_logps"])[mask].abs().max()))
        far.append(float((values[:, -logps.size(1) :] - inputs["old_values"])[mask].abs().max()))
        return loss

    monkeypatch.setattr(Ppo, "_get_per_token_logps_and_entropies", keep)
    monkeypatch.setattr(Ppo, "_compute_loss", compare)
    trainer.train()
    assert len(far) == 4 and max(far) < 1e-5
    reference = trainer.accelerator.unwrap_model(trainer.ref_model)
    assert {layer.self_attn.attention_dropout for layer in reference.model.layers} == {0.0}


def test_layers_of_dropout_are_switched_off_too() -> None:
    import torch

    from train_plugins.trainers import dropout

    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5), torch.nn.AlphaDropout(0.5)).train()
    dropout.switch_off(model)
    ones = torch.ones(3, 4)
    assert torch.equal(model(ones), model(ones))


@pytest.mark.parametrize("pad", [False, True], ids=["no token", "end of text"])
def test_a_reward_is_read_at_the_end_of_text_whatever_the_tokenizer_pads_with(rlvr_folder: Path, pad: bool) -> None:
    import torch

    tiny = rlvr_folder / "tiny"
    tokens = json.loads((tiny / "tokenizer_config.json").read_text())
    change(tiny / "tokenizer_config.json", pad_token=tokens["eos_token"] if pad else None)
    change(tiny / "config.json", pad_token_id=None)
    rows = write_rows(rlvr_folder / "pairs.jsonl", pair_rows(4))
    wanted, arguments = trainer_arguments(
        registry.find("rm"), make_recipe("rm", rlvr_folder, rows, rm={"fresh_head": True})
    )
    stage = registry.find("rm")
    ready = prepare(stage, wanted, arguments)
    trainer = stage.trainer(wanted, configuration(stage.config(wanted), arguments, wanted), ready.encoded.rows,
                            ready.tokenizer)  # fmt: skip
    batch = trainer.data_collator([trainer.train_dataset[number] for number in range(2)])
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    model, last = trainer.model.eval(), batch["attention_mask"].sum(1) - 1
    assert set(batch["input_ids"][torch.arange(len(last)), last].tolist()) == {ready.tokenizer.eos_token_id}
    with torch.no_grad():
        read = model(**inputs).logits.squeeze(-1)
        each = model.score(model.model(**inputs).last_hidden_state).squeeze(-1)
    assert torch.allclose(read, each[torch.arange(len(last)), last], atol=1e-5)
    assert model.config.pad_token_id == ready.tokenizer.pad_token_id != ready.tokenizer.eos_token_id


def test_padding_apart_from_the_end_of_text() -> None:
    def pads_with(*special: str, **named: Any) -> Any:
        ids = {token: number for number, token in enumerate(special)}
        found = SimpleNamespace(
            added_tokens_decoder={n: AddedToken(token) for token, n in ids.items()},
            **{"eos_token": "</s>", "pad_token": "</s>", "unk_token": None, "bos_token": None, "eos_token_id": 9,
               "pad_token_id": 9, **named},
        )  # fmt: skip
        encoding.pad_apart(found)
        return found.pad_token

    class AddedToken(str):
        special = True

    assert pads_with("</s>", "<|reserved_0|>", "<|finetune_right_pad_id|>") == "<|finetune_right_pad_id|>"
    assert pads_with("</s>", "<|reserved_0|>", unk_token="<unk>") == "<unk>"
    assert pads_with("<s>", "</s>", "<|reserved_0|>", bos_token="<s>") == "<|reserved_0|>"
    assert pads_with("<s>", "</s>", bos_token="<s>") == "<s>"
    assert pads_with("<pad>", pad_token="<mine>", pad_token_id=3) == "<mine>"
    refused(lambda: pads_with("</s>", bos_token="</s>"), "set `pad_token`", UsageError)


@pytest.mark.parametrize("known", [True, False])
def test_the_first_process_says_for_all_whether_the_reference_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    """The second process, on another machine: what lies in its own cache, or does not, must not count."""
    from datasets import Dataset

    from train_plugins.trainers import preference

    def no_look(*_: Any) -> Any:
        raise AssertionError("a process beside the first has looked into its own cache")

    columns = {column: [0.5, 0.25] for column in reference_logprobs.COLUMNS}
    computed = {column: [1.0, 2.0] for column in reference_logprobs.COLUMNS}

    def from_the_first(found: list[Any]) -> list[Any]:
        found[0] = columns if known else None
        return found

    monkeypatch.setattr(reference_logprobs, "read", no_look)
    monkeypatch.setattr(reference_logprobs, "write", no_look)
    monkeypatch.setattr(preference, "broadcast_object_list", from_the_first)
    second = SimpleNamespace(
        model=None, keys=SimpleNamespace(loss="dpo"), accelerator=SimpleNamespace(is_main_process=False),
        args=SimpleNamespace(bf16=False, fp16=False), _precompute_model_hash="x", _reference=lambda *_: computed,
    )  # fmt: skip
    rows = Dataset.from_list([{"prompt_ids": [1], "chosen_ids": [2], "rejected_ids": [3]}] * 2)
    found = preference.PreferenceTrainer._precompute_ref_logps(second, rows, "train", 1)
    assert {column: list(found[column]) for column in reference_logprobs.COLUMNS} == (columns if known else computed)


def test_a_draw_from_what_is_no_distribution_has_an_error_of_its_own() -> None:
    import torch

    from olmes_suite.errors import StageRefused
    from train_plugins.rl.rollouts import drawing

    draw = torch.multinomial
    with drawing(lambda: StageRefused("not a number")):
        assert torch.multinomial(torch.tensor([0.0, 1.0]), num_samples=1).tolist() == [1]
        for wrong in (float("nan"), float("inf"), -1.0):
            refused(lambda wrong=wrong: torch.multinomial(torch.tensor([1.0, wrong]), 1), "not a number", StageRefused)
        with pytest.raises(RuntimeError, match="sample"):  # torch's own complaint stays
            torch.multinomial(torch.tensor([0.5, 0.5]), 3)
    assert torch.multinomial is draw


@pytest.mark.parametrize(
    ("ended", "scores", "said"),
    [(0.0, (-10.0, -10.0), "no response ended by itself"), (1.0, (0.0, 0.0), "got the same reward"),
     (1.0, (0.0, 10.0), None)],
)  # fmt: skip
def test_rollouts_without_a_signal_stop_the_stage(ended: float, scores: tuple[float, float], said: str | None) -> None:
    import torch

    from train_plugins.rl.rollouts import HOPELESS, Rollouts

    stage: Any = SimpleNamespace(num_generations=2, keys=SimpleNamespace(no_eos_penalty=-10.0), hopeless=0, rollouts=0)
    facts = torch.tensor([[score, 0.0, ended, 5.0] for score in scores])  # score, verified, ended, length
    for _ in range(HOPELESS - 1):
        Rollouts._stop_without_signal(stage, facts)
    if said is None:
        Rollouts._stop_without_signal(stage, facts)
        assert stage.hopeless == 0 and stage.rollouts == HOPELESS
    else:
        refused(lambda: Rollouts._stop_without_signal(stage, facts), said)
