"""GRPO with tools and environments: the mask, the log, resuming, and what stops a stage."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rlvr_fixture import Coin, history, make_rlvr, prompt_rows, rlvr_trainer, train_rlvr
from stop_after import StopAfter
from tool_fixture import make_tool_model, write_tools
from train_fixture import need_trl, refused, weights

from olmes_suite.errors import StageRefused
from train_plugins.checkpoints import lineage
from train_plugins.running.prepare_stage import prepare, trainer_arguments
from train_plugins.stages import registry

need_trl()
pytestmark = pytest.mark.long
NAME = "rollout_tools_of_a_test"
TOOLS = {"tools": [f"{NAME}:add", f"{NAME}:divide"], "no_eos_penalty": None}
KEYS: dict[str, Any] = {
    "chat_template": None, "trainer": {"max_completion_length": 200, "max_tool_calling_iterations": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def tool_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tool_model(tmp_path_factory.mktemp("tools") / "tiny")


@pytest.fixture
def folder(tmp_path: Path, tool_checkpoint: Path, no_plugins: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the policy that calls tools, and the module of tools beside the recipe."""
    monkeypatch.setattr("train_plugins.rl.rollouts.Verifiers", Coin)
    monkeypatch.setattr(sys, "path", list(sys.path))
    shutil.copytree(tool_checkpoint, tmp_path / "tiny")
    sys.modules.pop(NAME, None)
    write_tools(tmp_path, NAME)
    yield tmp_path
    sys.modules.pop(NAME, None)


def rollout(folder: Path, **own: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The trainer of a recipe, and the passes of its first rollout."""
    from transformers import TrainerCallback

    kept: list[dict[str, Any]] = []
    trainer = rlvr_trainer(make_rlvr(folder, "grpo", prompt_rows(8), rlvr=TOOLS | own, **KEYS))

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            kept.extend(dict(one) for one in trainer._buffered_inputs)
            control.should_training_stop = True

    trainer.add_callback(Keep())
    trainer.train()
    return trainer, kept


RESULT = re.compile(r"<\|im_start\|>tool\n(.*?)<\|im_end\|>\n", re.DOTALL)
BETWEEN = re.compile(rf"\n({RESULT.pattern})+<\|im_start\|>assistant\n", re.DOTALL)


def test_tokens_of_results_are_not_trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    trainer, passes = rollout(folder)
    results = []
    for one in passes:
        assert one["tool_mask"].shape == one["completion_mask"].shape
        for ids, real, own in zip(one["completion_ids"], one["completion_mask"], one["tool_mask"], strict=True):
            ids, own = ids[real.bool()].tolist(), own[real.bool()].tolist()
            starts = [n for n in range(1, len(own)) if own[n] < own[n - 1]]
            for start in starts:
                end = next((n for n in range(start, len(own)) if own[n]), len(own))
                masked = trainer._tokenizer.decode(ids[start:end])
                assert BETWEEN.fullmatch("\n" + masked.lstrip("\n")), masked
                results += RESULT.findall(masked)
            trained = trainer._tokenizer.decode([token for token, one in zip(ids, own, strict=True) if one])
            assert "<|im_start|>" not in trained, "headers of later turns are not the model's"
    assert "{'error': 'Tool multiply not found.'}" in results
    assert any(one.startswith("{'error': ") and "multiply" not in one for one in results), "what a tool raised"
    assert any(result.isdigit() for result in results)

    trainer.model.eval()
    inputs = {**passes[0], "num_items_in_batch": torch.tensor(10.0)}
    inputs = {name: value for name, value in inputs.items() if name != "old_per_token_logps"}
    plain = trainer._compute_loss(trainer.model, inputs)
    asked = type(trainer)._get_per_token_logps_and_entropies

    def moved(self: Any, *args: Any, **kwargs: Any) -> Any:
        logps, *more = asked(self, *args, **kwargs)
        return (torch.where(inputs["tool_mask"].bool(), logps, logps - 3.0), *more)

    monkeypatch.setattr(type(trainer), "_get_per_token_logps_and_entropies", moved)
    assert (inputs["tool_mask"] == 0).any()
    assert torch.equal(trainer._compute_loss(trainer.model, inputs), plain)


def test_calls_are_logged_and_killed_stages_end_as_unbroken_ones(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {**KEYS, "rlvr": TOOLS, "trainer": {**KEYS["trainer"], "save_steps": 2}}
    rows = prompt_rows(8)
    whole = train_rlvr(folder, "grpo", rows, **keys)
    assert re.search(r"tools: \d+ calls, \d+ failed: \w+ \d+ of \d+ \(last: ", capsys.readouterr().err)
    logged = history(whole)
    assert 0 < logged[0]["rlvr/tools/calls"] <= 4
    assert all(0 <= entry["rlvr/tools/failed"] <= 1 and 0 <= entry["rlvr/tools/unanswered"] <= 1 for entry in logged)
    assert any(entry.get("rlvr/tools/failed/divide") == 1 for entry in logged)
    assert all(entry["tools/call_frequency"] > 0 for entry in logged), "TRL's own"
    broken = folder / "broken"
    with pytest.raises(KeyboardInterrupt):
        train_rlvr(folder, "grpo", rows, output=str(broken), plugins=[StopAfter(2)], **keys)
    train_rlvr(folder, "grpo", rows, True, output=str(broken), **keys)
    assert history(broken) == logged
    one, other = weights(whole), weights(broken)
    assert all((one[name] == other[name]).all() for name in one)


def test_an_environment_rewards_and_its_rows_need_no_verifier(folder: Path) -> None:
    rows = [{"messages": row["messages"], "goal": n} for n, row in enumerate(prompt_rows(8))]
    rows[:2] = prompt_rows(2)
    keys = {**KEYS, "rlvr": {"environment": f"{NAME}:Counter", "no_eos_penalty": None, "reward": 1.0}}
    out = train_rlvr(folder, "grpo", rows, **keys)
    for entry in history(out):
        assert 0 <= entry["rlvr/environment/Counter"] <= 2
        assert entry["reward"] >= entry["rlvr/environment/Counter"] - 1e-6


def test_active_sampling_keeps_groups_by_the_rewards_of_environments(folder: Path) -> None:
    rows = [{"messages": row["messages"], "goal": n} for n, row in enumerate(prompt_rows(8))]
    own = {"environment": f"{NAME}:Counter", "no_eos_penalty": None, "active_sampling": True, "beta": 0.0,
           "active_sampling_limit": 50}  # fmt: skip
    keys = {**KEYS, "rlvr": own, "trainer": {**KEYS["trainer"], "save_steps": 1, "max_steps": 2}}
    whole = train_rlvr(folder, "grpo", rows, **keys)
    assert all(entry["rlvr/drawn"] >= 1 and 0 <= entry["rlvr/environment/Counter"] <= 2 for entry in history(whole))
    broken = folder / "broken"
    with pytest.raises(KeyboardInterrupt):
        train_rlvr(folder, "grpo", rows, output=str(broken), plugins=[StopAfter(1)], **keys)
    train_rlvr(folder, "grpo", rows, True, output=str(broken), **keys)
    assert history(broken) == history(whole)
    one, other = weights(whole), weights(broken)
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_rows_choose_among_environments(folder: Path) -> None:
    rows = [{"prompt": f"the number {n}", "environment": "count" if n % 2 else "other"} for n in range(8)]
    both = {"count": f"{NAME}:Counter", "other": f"{NAME}:Loses"}
    keys = {**KEYS, "rlvr": {"environment": both, "no_eos_penalty": None}}
    ready = prepare(
        registry.find("rlvr"), *trainer_arguments(registry.find("rlvr"), make_rlvr(folder, "grpo", rows, **keys))
    )
    assert ready.encoded.rows["environment"] == ["other", "count"] * 4
    rows[5]["environment"] = "cuont"
    wanted = make_rlvr(folder, "grpo", rows, **keys)
    refused(
        lambda: prepare(registry.find("rlvr"), *trainer_arguments(registry.find("rlvr"), wanted)),
        "row 5 has 'cuont' in the column 'environment', not one of rlvr.environment",
    )


@pytest.mark.parametrize(
    ("kind", "match"),
    [
        ("Resets", r"row \d+: the environment .*:Resets raised OSError: the server is gone in reset"),
        ("Loses", "Loses raised RuntimeError: no score in get_reward"),
        ("Breaks", "the environment is broken: add raised ConnectionError: the server is gone"),
    ],
)
def test_a_broken_environment_stops_the_stage_and_its_checkpoint_is_kept(folder: Path, kind: str, match: str) -> None:
    rows = [{"prompt": f"the number {n}"} for n in range(8)]
    module = folder / f"{NAME}.py"
    sound = module.read_text()
    keys = {**KEYS, "rlvr": {"environment": f"{NAME}:Counter", "no_eos_penalty": None},
            "trainer": {**KEYS["trainer"], "save_steps": 2}}  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train_rlvr(folder, "grpo", rows, plugins=[StopAfter(2)], **keys)
    broken = f"{sound}\n\nfine = Counter\n\n\nclass Counter({kind}):\n    pass\n"
    module.write_text(broken)
    sys.modules.pop(NAME, None)
    refused(lambda: train_rlvr(folder, "grpo", rows, True, **keys), match.replace(kind, "Counter"), StageRefused)
    assert [one.name for one in lineage.whole_checkpoints(folder / "out")] == ["checkpoint-2"]
    module.write_text(sound)
    sys.modules.pop(NAME, None)
    train_rlvr(folder, "grpo", rows, True, **keys)


def test_what_does_not_go_together_is_refused_before_the_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = registry.find("rlvr")
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)

    def bad(match: str, algorithm: str = "grpo", **keys: Any) -> None:
        merged = {**KEYS, **keys, "trainer": {**KEYS["trainer"], **keys.pop("trainer", {})}}
        merged["trainer"] = {name: value for name, value in merged["trainer"].items() if value is not None}
        wanted = make_rlvr(folder, algorithm, prompt_rows(8), **merged)
        refused(lambda: prepare(stage, *trainer_arguments(stage, wanted)), match)

    bad("rloo has no calls of tools", "rloo", rlvr=TOOLS, trainer={"max_tool_calling_iterations": None})
    bad("max_tool_calling_iterations must be at least 1", rlvr=TOOLS, trainer={"max_tool_calling_iterations": 0})
    bad("without rlvr.tools or rlvr.environment responses have no calls")
    bad("chat template does not render calls of tools", rlvr=TOOLS, chat_template="tulu")
    bad("there is no module 'no_such'", rlvr={"tools": ["no_such:tool"]})
    bad("argument 'a' has no type", rlvr={"tools": [f"{NAME}:untyped"]})
    bad("all 8 prompts are longer than 100 tokens", rlvr={**TOOLS, "max_prompt_length": 100})
