"""The RLVR trainers: gradients against formulas, response by response, and resuming inside a cycle."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from rlvr_fixture import history, make_rlvr, prompt_rows, rlvr_trainer, train_rlvr, verdict
from rounding import gradient_limit
from stop_after import StopAfter
from train_fixture import need_trl, refused, weights

from olmes_suite.errors import StageRefused, UsageError
from train_plugins.checkpoints import lineage
from train_plugins.rl.value_model import WRAPPED

need_trl()
pytestmark = pytest.mark.long
LIMIT = gradient_limit(16 * 40)  # prompts and responses of at most 16 rows, 40 tokens each
LORA = {"lora": {"r": 4}}


def one_update(trainer: Any, at: int) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]], float]:
    """Of the optimiser step number `at`: unclipped gradients, weights before it, the rollout's passes, the loss."""
    import torch
    from transformers import TrainerCallback

    seen: dict[str, Any] = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **_):
            if state.global_step == at:
                named = {n.removeprefix(WRAPPED): p for n, p in model.named_parameters()}
                seen["gradients"] = {n: p.grad.clone() for n, p in named.items() if p.grad is not None}
                seen["weights"] = {n: p.detach().clone() for n, p in named.items()}
                seen["passes"] = [
                    {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in one.items()}
                    for one in trainer._buffered_inputs
                ]

    trainer.add_callback(Keep())
    trainer.train()
    return seen["gradients"], seen["weights"], seen["passes"], trainer.state.log_history[at]["loss"]


def responses(passes: list[dict[str, Any]]) -> list[tuple[list[int], list[int]]]:
    """(prompt, response) in token ids, without padding, of all passes."""
    found = []
    for one in passes:
        for row in range(len(one["prompt_ids"])):
            ids = [
                one[f"{part}_ids"][row][one[f"{part}_mask"][row].bool()].tolist() for part in ("prompt", "completion")
            ]
            found.append((ids[0], ids[1]))
    return found


class Adapted:
    """A policy with rank 4 updates B A of its linear layers, each times alpha / r, by torch alone, in 64 bits."""

    def __init__(self, model: Any, now: dict[str, Any]) -> None:
        self.model = copy.deepcopy(model).double()
        self.adapter = {n: v.double().requires_grad_() for n, v in now.items() if "lora_" in n}
        for name, weight in model.state_dict().items():  # the base is where it was, bit for bit
            same = now.get(name.replace(".weight", ".base_layer.weight"), now.get(name))
            assert same is None or bool((same == weight).all())

    def __call__(self, ids: Any) -> Any:
        from torch.func import functional_call

        weights = dict(self.model.named_parameters())
        for name in [n for n in self.adapter if ".lora_A." in n]:
            layer = name.split(".lora_A.")[0]
            update = self.adapter[f"{layer}.lora_B.default.weight"] @ self.adapter[name]
            weights[f"{layer}.weight"] = weights[f"{layer}.weight"].detach() + 32 / 4 * update
        return functional_call(self.model, weights, (ids,))

    def named_parameters(self) -> Any:
        return self.adapter.items()


class ByHand:
    """Policies and value models, and the quantities that the formulas are made of, one response at a time."""

    def __init__(self, folder: Path, trainer: Any, now: dict[str, Any]) -> None:
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        def policy() -> Any:
            return AutoModelForCausalLM.from_pretrained(folder / "tiny")

        def critic() -> Any:
            return AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1)

        self.old, self.policy = policy(), policy()
        self.old_critic, self.critic = critic(), critic()
        inside = {n.removeprefix("value_model."): v for n, v in now.items() if n.startswith("value_model.")}
        own = {n: v for n, v in now.items() if not n.startswith("value_model.")}
        if any("lora_" in n for n in own):
            self.policy = Adapted(self.policy, own)
        else:
            self.policy.load_state_dict(own)
        if inside:
            self.critic.load_state_dict(inside)
        self.tokenizer, self.ends = trainer._tokenizer, trainer.eos_token_ids
        texts = [self.tokenizer.apply_chat_template(row["prompt"], tokenize=False) for row in trainer.train_dataset]
        self.number = {text: trainer.train_dataset[n]["row"] for n, text in enumerate(texts)}

    def log_probs(self, model: Any, prompt: list[int], answer: list[int]) -> Any:
        import torch

        logits = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        return torch.stack([logits[len(prompt) - 1 + t, token] for t, token in enumerate(answer)])

    def values(self, model: Any, prompt: list[int], answer: list[int]) -> Any:
        import torch

        hidden = model.model(torch.tensor([prompt + answer])).last_hidden_state[0]
        return model.score(hidden)[len(prompt) - 1 : -1, 0]

    def score(self, prompt: list[int], answer: list[int], reward: float, unended: float | None) -> float:
        asked = self.tokenizer.decode(prompt)
        (row,) = [n for text, n in self.number.items() if asked.startswith(text.rstrip("\n"))]
        if unended is not None and answer[-1] not in self.ends:
            return unended
        return reward * verdict(self.tokenizer.decode(answer, skip_special_tokens=True), row)

    def gradients(self) -> dict[str, Any]:
        found = {n: p.grad for n, p in self.policy.named_parameters()}
        return found | {f"value_model.{n}": p.grad for n, p in self.critic.named_parameters() if p.grad is not None}


def far(found: dict[str, Any], wanted: dict[str, Any]) -> float:
    """Largest difference, relative to the largest gradient of the same part (policy, value model)."""
    worst = 0.0
    for inside in (False, True):
        names = [name for name in wanted if name.startswith("value_model.") == inside and wanted[name] is not None]
        assert {name for name in found if name.startswith("value_model.") == inside} == set(names)
        if names:
            scale = max(float(wanted[name].abs().max()) for name in names)
            assert scale > 0
            worst = max(worst, *(float((found[name] - wanted[name]).abs().max()) / scale for name in names))
    return worst


@pytest.mark.parametrize(("at", "keys"), [(0, {}), (1, {}), (1, LORA)])
def test_ppo_is_its_formula(rlvr_folder: Path, at: int, keys: dict[str, Any]) -> None:
    """Equations of the Tülu 3 paper's §6 and of PPO, in double loops; `at` 1: the second pass, ratios off 1."""
    import torch

    settings = {"max_steps": 2, "num_iterations": 2, "max_grad_norm": 0.0, "learning_rate": 3e-3}
    trainer = rlvr_trainer(make_rlvr(rlvr_folder, "ppo", prompt_rows(8), trainer=settings, rlvr={"beta": 0.3}, **keys))
    found, now, passes, loss = one_update(trainer, at)
    hand = ByHand(rlvr_folder, trainer, now)
    rollout, advantages, parts = responses(passes), [], []
    for prompt, answer in rollout:
        with torch.no_grad():  # the reference is the policy that the stage starts from, and sampled this rollout
            old = hand.log_probs(hand.old, prompt, answer)
            values = hand.values(hand.old_critic, prompt, answer)
        rewards = [0.0] * len(answer)
        rewards[-1] += hand.score(prompt, answer, 10.0, -10.0)
        following = [*values.tolist()[1:], 0.0]
        errors = [r + after - v for r, after, v in zip(rewards, following, values.tolist(), strict=True)]
        here = [sum(0.95 ** (k - t) * errors[k] for k in range(t, len(errors))) for t in range(len(errors))]
        advantages += here
        parts.append((prompt, answer, old, values, here))
    count, mean = len(advantages), sum(advantages) / len(advantages)
    spread = (sum((one - mean) ** 2 for one in advantages) / count) ** 0.5
    total = torch.zeros(())
    clipped = 0
    for prompt, answer, old, values, here in parts:
        ratio = (hand.log_probs(hand.policy, prompt, answer) - old).exp()
        value = hand.values(hand.critic, prompt, answer)
        for t in range(len(answer)):
            whitened = (here[t] - mean) / spread
            inside = ratio[t].clamp(0.8, 1.2)
            clipped += bool(inside != ratio[t])
            total = total - torch.minimum(ratio[t] * whitened, inside * whitened) / count
            target = here[t] + values[t]
            near = torch.minimum(torch.maximum(value[t], values[t] - 0.2), values[t] + 0.2)
            total = total + 0.1 * 0.5 * torch.maximum((value[t] - target) ** 2, (near - target) ** 2) / count
    total.backward()
    assert len({answer[-1] in hand.ends for _, answer in rollout}) == 2  # both with and without end-of-text
    assert len({len(answer) for _, answer in rollout}) > 2
    assert clipped > 0 or at == 0
    assert loss == pytest.approx(float(total.detach()), rel=1e-4)
    assert far(found, hand.gradients()) < LIMIT


def test_the_kl_is_in_the_reward_of_each_token(rlvr_folder: Path) -> None:
    settings = {"max_steps": 3, "num_iterations": 2, "learning_rate": 1e-2}
    trainer = rlvr_trainer(make_rlvr(rlvr_folder, "ppo", prompt_rows(16), trainer=settings, rlvr={"beta": 0.3}))
    _, _, passes, _ = one_update(trainer, 2)  # the second rollout: the policy has left the reference
    moved = False
    for one in passes:
        apart = (one["old_per_token_logps"] - one["ref_per_token_logps"]) * one["completion_mask"]
        moved |= bool(apart.abs().max() > 0.05)
        for row in range(len(apart)):  # with λ 0.95: A_t = δ_t + λ A_{t+1}; R = A + V undoes it
            values, found = one["old_values"][row], one["returns"][row] - one["old_values"][row]
            for t in range(int(one["completion_mask"][row].sum()) - 1):
                reward = found[t] - 0.95 * found[t + 1] - values[t + 1] + values[t]
                assert float(reward) == pytest.approx(-0.3 * float(apart[row, t]), abs=2e-4)
    assert moved
    entry = next(e for e in reversed(trainer.state.log_history) if "rlvr/kl" in e)
    whole = [float(v) for one in passes for v in (
        (one["old_per_token_logps"] - one["ref_per_token_logps"]) * one["completion_mask"]).sum(1)]  # fmt: skip
    assert entry["rlvr/kl"] == pytest.approx(sum(whole) / len(whole), rel=1e-4)


@pytest.mark.parametrize("keys", [{}, LORA])
@pytest.mark.parametrize("algorithm", ["grpo", "rloo"])
def test_grpo_and_rloo_are_their_formulas(rlvr_folder: Path, algorithm: str, keys: dict[str, Any]) -> None:
    import torch

    settings = {"max_steps": 2, "num_iterations": 2, "max_grad_norm": 0.0, "learning_rate": 2e-4}
    wanted = make_rlvr(
        rlvr_folder, algorithm, prompt_rows(4), batch_size=16, trainer=settings, rlvr={"beta": 0.2}, **keys
    )
    trainer = rlvr_trainer(wanted)
    found, now, passes, loss = one_update(trainer, 1)
    hand = ByHand(rlvr_folder, trainer, now)
    rollout = responses(passes)
    scores = [hand.score(prompt, answer, 10.0, -10.0) for prompt, answer in rollout]
    assert len(set(scores)) > 2
    tokens = sum(len(answer) for _, answer in rollout)
    total = torch.zeros(())
    for number, (prompt, answer) in enumerate(rollout):
        group = [n for n, (other, _) in enumerate(rollout) if other == prompt]
        assert len(group) == 4
        others = [scores[n] for n in group if n != number]
        mean = sum(scores[n] for n in group) / 4
        spread = (sum((scores[n] - mean) ** 2 for n in group) / 3) ** 0.5
        with torch.no_grad():  # also the reference
            old = hand.log_probs(hand.old, prompt, answer)
        policy = hand.log_probs(hand.policy, prompt, answer)
        if algorithm == "grpo":
            advantage = (scores[number] - mean) / (spread + 1e-4)
            ratio = (policy - old).exp()
            gain = torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            k3 = (old - policy).exp() - (old - policy) - 1
            total = total + (0.2 * k3 - gain).sum() / tokens
        else:
            advantage = scores[number] - sum(others) / 3  # the first rollout's KL is 0
            ratio = (policy - old).sum().exp()
            total = total - torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) / len(rollout)
    total.backward()
    assert loss == pytest.approx(float(total.detach()), rel=1e-4, abs=1e-5)
    assert far(found, hand.gradients()) < LIMIT


@pytest.mark.parametrize(
    ("algorithm", "kill", "adapter"),
    [("ppo", 2, {}), ("ppo", 6, {}), ("grpo", 3, {}), ("rloo", 7, {}), ("ppo", 2, LORA), ("ppo", 6, LORA),
     ("grpo", 3, LORA)],
)  # fmt: skip
def test_a_stage_killed_inside_a_cycle_ends_as_an_unbroken_one(
    rlvr_folder: Path, algorithm: str, kill: int, adapter: dict[str, Any]
) -> None:
    """Two epochs of one rollout each, four passes over each: killed in the first epoch and in the second."""
    rows = prompt_rows(8 if algorithm == "ppo" else 2)
    keys: dict[str, Any] = {"trainer": {"num_train_epochs": 2, "save_steps": 1, "num_iterations": 4}, **adapter}
    whole = train_rlvr(rlvr_folder, algorithm, rows, output=str(rlvr_folder / "whole"), **keys)
    broken = rlvr_folder / "broken"
    with pytest.raises(KeyboardInterrupt):
        train_rlvr(rlvr_folder, algorithm, rows, output=str(broken), plugins=[StopAfter(kill)], **keys)
    train_rlvr(rlvr_folder, algorithm, rows, True, output=str(broken), **keys)
    assert history(broken) == history(whole) and len(history(whole)) == 8
    for part in ("", "value_model") if algorithm == "ppo" else ("",):
        one, other, start = (
            weights(whole / part),
            weights(broken / part),
            weights(rlvr_folder / ("reward" if part else "tiny")),
        )
        assert all(bool((one[name] == other[name]).all()) for name in one)
        assert not any(name.startswith("value_model") for name in one)
        assert any(bool((one[name] != start[name]).any()) for name in one)
    assert lineage.read(broken).tokens == lineage.read(whole).tokens > 0
    keys["trainer"]["learning_rate"] = 5e-3
    (broken / lineage.FILE).unlink()
    refused(
        lambda: train_rlvr(rlvr_folder, algorithm, rows, True, output=str(broken), **keys),
        r"trainer\.learning_rate was 0\.001 and is now 0\.005",
        UsageError,
    )


def test_epochs_have_orders_of_their_own(rlvr_folder: Path) -> None:
    trainer = rlvr_trainer(make_rlvr(rlvr_folder, "ppo", prompt_rows(16)))
    sampler = trainer._get_train_sampler()
    orders = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    assert set(orders[0]) == set(range(16))


def test_the_log_has_what_is_watched(rlvr_folder: Path) -> None:
    out = train_rlvr(rlvr_folder, "grpo", prompt_rows(8), trainer={"max_steps": 2})
    for entry in history(out):
        assert 0 <= entry["rlvr/verified"] <= 1 and 0 < entry["rlvr/eos_rate"] < 1
        assert 1 <= entry["rlvr/length"] <= 12 and 0 <= entry["rlvr/no_signal"] <= 1
        assert "rlvr/kl" in entry
    names = {name for entry in history(out) for name in entry if name.startswith("rlvr/verified/")}
    assert names == {"rlvr/verified/gsm8k", "rlvr/verified/string"}
    assert history(out)[0]["rlvr/kl"] == pytest.approx(0, abs=1e-5) and history(out)[1]["rlvr/kl"] != 0


def test_skipped_rows_teach_nothing_and_all_of_them_stop_the_stage(
    rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rlvr_fixture import Coin

    settings = {"max_steps": 1, "num_iterations": 1}
    trainer = rlvr_trainer(make_rlvr(rlvr_folder, "ppo", prompt_rows(8), trainer=settings))
    monkeypatch.setattr(Coin, "verify", lambda self, calls: [None if c.row["row"] < 4 else 1.0 for c in calls])
    _, _, passes, _ = one_update(trainer, 0)
    skipped = [not bool(row.any()) for one in passes for row in one["counted"]]
    assert sum(skipped) == 4
    for one in passes:
        for row in range(len(one["counted"])):
            if not one["counted"][row].any():
                assert not one["advantages"][row].any() and not one["returns"][row].any()
    assert passes[0]["num_items_in_batch"] == sum(one["counted"].sum() for one in passes)
    assert trainer.state.log_history[0]["rlvr/verified"] == 1.0
    monkeypatch.setattr(Coin, "verify", lambda self, calls: [None] * len(calls))
    for algorithm in ("ppo", "grpo"):
        refused(
            lambda name=algorithm: train_rlvr(rlvr_folder, name, prompt_rows(8), output=str(rlvr_folder / name)),
            "gave no verdict on any of 8 responses",
            StageRefused,
        )


def test_a_value_model_may_start_from_the_policy(rlvr_folder: Path) -> None:
    out = train_rlvr(rlvr_folder, "ppo", prompt_rows(8), rlvr={"value_model": None, "fresh_head": True})
    from transformers import AutoModelForSequenceClassification

    _, info = AutoModelForSequenceClassification.from_pretrained(out / "value_model", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_a_stage_may_resume_inside_a_cycle_in_smaller_passes(rlvr_folder: Path, algorithm: str) -> None:
    """The rollout in use is split anew; the second rollout is drawn from weights that differ by rounding only."""
    rows = prompt_rows(8 if algorithm == "ppo" else 2)
    settings = {"max_steps": 4, "save_steps": 1, "num_iterations": 4, "learning_rate": 1e-4}
    whole = train_rlvr(rlvr_folder, algorithm, rows, output=str(rlvr_folder / "whole"), trainer=settings)
    broken = str(rlvr_folder / "broken")
    with pytest.raises(KeyboardInterrupt):
        train_rlvr(rlvr_folder, algorithm, rows, output=broken, plugins=[StopAfter(2)], trainer=settings)
    smaller = {**settings, "per_device_train_batch_size": 2}
    done = train_rlvr(rlvr_folder, algorithm, rows, True, output=broken, trainer=smaller)
    one, other = weights(whole), weights(done)
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-5
