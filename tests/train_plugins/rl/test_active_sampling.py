"""Active sampling: which prompts are drawn, which groups are kept, the loss over them, and resuming."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rlvr_fixture import Coin, history, make_rlvr, prompt_rows, rlvr_trainer, train_rlvr
from stop_after import StopAfter
from train_fixture import need_trl, refused, weights

from olmes_suite.errors import StageRefused, UsageError
from train_plugins.checkpoints import lineage

need_trl()


def test_prompts_come_in_a_new_order_in_each_pass_and_go_on_from_a_position() -> None:
    from train_plugins.rl.active_sampling import Prompts

    one = Prompts(10, 3, shuffle=True)
    drawn = [one.draw(n) for n in (4, 9, 7)]
    passes = [row for rows in drawn for row in rows]
    assert sorted(passes[:10]) == sorted(passes[10:]) == list(range(10)) and passes[:10] != passes[10:]
    other = Prompts(10, 3, shuffle=True)
    other.position = 13
    assert other.draw(7) == drawn[2]
    assert Prompts(3, 3, shuffle=False).draw(5) == [0, 1, 2, 0, 1]


def test_retired_prompts_are_not_drawn() -> None:
    from train_plugins.rl.active_sampling import Prompts

    one = Prompts(4, 0, shuffle=False)
    one.retired = {1, 2}
    assert one.draw(5) == [0, 3, 0, 3, 0]
    one.retired = {0, 1, 2, 3}
    refused(lambda: one.draw(1), "all 4 prompts are solved", StageRefused)


@pytest.mark.parametrize(
    ("needed", "kept", "drawn", "processes", "size"),
    [
        (64, 0, 0, 1, 64), (64, 32, 64, 1, 64), (64, 60, 100, 1, 7), (64, 0, 64, 1, 64), (64, 63, 640, 1, 8),
        (64, 63, 100, 16, 2), (64, 62, 64, 16, 4),
    ],
)  # fmt: skip
def test_a_further_round_has_as_many_prompts_as_the_share_of_useful_ones_asks_for(
    needed: int, kept: int, drawn: int, processes: int, size: int
) -> None:
    from train_plugins.rl.active_sampling import round_size

    assert round_size(needed, kept, drawn, 8, processes) == size and size * 8 % processes == 0


def test_rollouts_of_different_widths_are_joined_and_cut_to_what_is_used() -> None:
    import torch

    from train_plugins.rl.active_sampling import joined, trimmed

    def rollout(prompt: list[int], answer: list[int], gain: float) -> dict[str, Any]:
        return {
            "prompt_ids": torch.tensor([prompt]), "prompt_mask": torch.tensor([[int(i != 9) for i in prompt]]),
            "completion_ids": torch.tensor([answer]), "completion_mask": torch.tensor([[int(i != 9) for i in answer]]),
            "advantages": torch.tensor([gain]), "importance_sampling_ratio": torch.tensor([[gain]]),
            "num_items_in_batch": torch.tensor(3),
        }  # fmt: skip

    fills = {"prompt_ids": 9, "completion_ids": 9}
    whole = joined([rollout([9, 1], [2, 3, 9], 0.5), rollout([9, 9, 4, 5], [6, 9, 9, 9], -1.0)], fills)
    found = {name: tensor.tolist() for name, tensor in trimmed(whole).items()}
    assert found == {
        "prompt_ids": [[9, 1], [4, 5]], "prompt_mask": [[0, 1], [1, 1]],
        "completion_ids": [[2, 3], [6, 9]], "completion_mask": [[1, 1], [1, 0]],
        "advantages": [0.5, -1.0], "importance_sampling_ratio": [[0.5], [-1.0]],
    }  # fmt: skip


class Often(Coin):
    """Says the same of all responses to three of four prompts, and tosses a coin for the rest."""

    def verify(self, calls: Sequence[Any]) -> list[float | None]:
        """0, 1, no verdict at all, or a coin."""
        flat: dict[int, float | None] = {0: 0.0, 1: 1.0, 2: None}
        rows = [call.row["row"] for call in calls]
        return [
            flat[row % 4] if row % 4 in flat else zlib.crc32(call.response.encode()) % 3 / 2
            for row, call in zip(rows, calls, strict=True)
        ]


OLMO = {"beta": 0.0, "active_sampling": True, "no_eos_penalty": None, "active_sampling_limit": 40}
LOSS = {"scale_rewards": "none", "epsilon": 0.2, "epsilon_high": 0.272}


@pytest.fixture
def often(rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of RLVR, with prompts most of which teach nothing."""
    monkeypatch.setattr("train_plugins.rl.rollouts.Verifiers", Often)
    return rlvr_folder


@pytest.mark.long
def test_the_loss_is_its_formula_over_useful_groups(often: Path) -> None:
    """Token mean, centred advantages, clip higher; π against the policy that sampled, at the second update."""
    import torch
    from transformers import AutoModelForCausalLM, TrainerCallback

    settings = {"max_steps": 2, "num_iterations": 2, "max_grad_norm": 0.0, "learning_rate": 3e-3, **LOSS}
    trainer = rlvr_trainer(make_rlvr(often, "grpo", prompt_rows(24), batch_size=16, trainer=settings, rlvr=OLMO))
    seen: dict[str, Any] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            if state.global_step == 1:
                seen.update(
                    gradients={name: one.grad.clone() for name, one in model.named_parameters()},
                    weights={name: one.detach().clone() for name, one in model.named_parameters()},
                    passes=[dict(one) for one in trainer._buffered_inputs],
                )

    trainer.add_callback(Keep())
    trainer.train()
    old, policy = (AutoModelForCausalLM.from_pretrained(often / "tiny") for _ in range(2))
    policy.load_state_dict(seen["weights"], strict=False)

    def log_probs(model: Any, prompt: list[int], answer: list[int]) -> Any:
        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return torch.stack([logits[len(prompt) - 1 + t, token] for t, token in enumerate(answer)])

    rollout = [
        tuple(one[f"{part}_ids"][row][one[f"{part}_mask"][row].bool()].tolist() for part in ("prompt", "completion"))
        for one in seen["passes"] for row in range(len(one["prompt_ids"]))
    ]  # fmt: skip
    text = trainer._tokenizer.decode
    score = [10 * (zlib.crc32(text(answer, skip_special_tokens=True).encode()) % 3) / 2 for _, answer in rollout]
    groups = Counter(tuple(prompt) for prompt, _ in rollout)
    assert len(rollout) == 16 and set(groups.values()) == {4}
    tokens, total, clipped = sum(len(answer) for _, answer in rollout), torch.zeros(()), 0
    for number, (prompt, answer) in enumerate(rollout):
        same = [score[n] for n, (other, _) in enumerate(rollout) if other == prompt]
        assert min(same) < max(same)
        advantage = score[number] - sum(same) / 4
        with torch.no_grad():
            before = log_probs(old, prompt, answer)
        ratio = (log_probs(policy, prompt, answer) - before).exp()
        clipped += int((ratio > 1.2).sum())
        total = total - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.272) * advantage).sum() / tokens
    assert clipped
    total.backward()
    largest = max(float(one.grad.abs().max()) for one in policy.parameters())
    for name, one in policy.named_parameters():
        assert float((seen["gradients"][name] - one.grad).abs().max()) < 1e-4 * largest
    logged = trainer.state.log_history[0]
    assert logged["rlvr/drawn"] > 2 and trainer.state.log_history[1]["loss"] == pytest.approx(
        float(total.detach()), rel=1e-3
    )


@pytest.mark.long
@pytest.mark.parametrize("kill", [2, 3])
def test_a_stage_killed_within_or_between_rollouts_ends_as_an_unbroken_one(often: Path, kill: int) -> None:
    keys: dict[str, Any] = {
        "trainer": {"max_steps": 6, "save_steps": 1, "num_iterations": 2, **LOSS},
        "rlvr": {**OLMO, "retire_above": 0.9},
    }
    rows = prompt_rows(20)
    whole = train_rlvr(often, "grpo", rows, output=str(often / "whole"), **keys)
    broken = often / "broken"
    with pytest.raises(KeyboardInterrupt):
        train_rlvr(often, "grpo", rows, output=str(broken), plugins=[StopAfter(kill)], **keys)
    train_rlvr(often, "grpo", rows, True, output=str(broken), **keys)
    assert history(broken) == history(whole) and len(history(whole)) == 6
    assert all(entry["rlvr/drawn"] >= 1 for entry in history(whole) if "rlvr/drawn" in entry)
    assert max(entry.get("rlvr/retired", 0) for entry in history(whole)) > 0
    one, other = weights(whole), weights(broken)
    assert all(bool((one[name] == other[name]).all()) for name in one)
    assert lineage.read(broken).tokens == lineage.read(whole).tokens


@pytest.mark.long
def test_a_rollout_that_cannot_be_filled_stops_the_stage(often: Path) -> None:
    def stopped(match: str, error: Any = StageRefused, rows: Any = None, algorithm: str = "grpo", **own: Any) -> None:
        keys = {"trainer": {"max_steps": 1}, "rlvr": {**OLMO, **own}}
        refused(lambda: train_rlvr(often, algorithm, rows or prompt_rows(3), **keys), match, error)

    stopped("active_sampling_limit must be at least 1", UsageError, active_sampling_limit=0)
    stopped("active_sampling is for `algorithm: grpo`", UsageError, algorithm="rloo")
    stopped("retire_above needs `active_sampling: true`", UsageError, active_sampling=False, retire_above=0.9)
    stopped("retire_above must be above 0 and below 1", UsageError, retire_above=1.5)
    stopped("of 6 prompts drawn for one rollout only 0 had responses with different rewards", active_sampling_limit=3)
    assert not (often / "out/rlvr.jsonl").read_text()
    train_rlvr(often, "grpo", prompt_rows(20), trainer={"max_steps": 1}, rlvr=OLMO)  # into the same folder
