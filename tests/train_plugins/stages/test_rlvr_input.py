"""RLVR's bad input: one line each, before a model is loaded where it can be known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import olmes, one_line_error
from rlvr_fixture import Coin, history, make_rlvr, prompt_rows, train_rlvr, verdict
from train_fixture import Poison, chat, need_trl, refused, write_rows

from olmes_suite.errors import DataError, StageRefused, UsageError
from train_plugins.checkpoints import lineage
from train_plugins.running.dry_run import dry_run
from train_plugins.running.prepare_stage import prepare, trainer_arguments
from train_plugins.stages import registry
from train_plugins.verifiers import VerifierFailed, Verifiers

need_trl()
pytestmark = pytest.mark.long


def plan(folder: Path, algorithm: str = "grpo", rows: Any = None, **keys: Any) -> Any:
    """The plan, without a model."""
    wanted = make_rlvr(folder, algorithm, prompt_rows(8) if rows is None else rows, **keys)
    return prepare(registry.find("rlvr"), *trainer_arguments(registry.find("rlvr"), wanted))


def test_rows_that_cannot_be_trained_on(rlvr_folder: Path) -> None:
    def bad(match: str, row: dict[str, Any], **keys: Any) -> None:
        refused(lambda: plan(rlvr_folder, rows=[*prompt_rows(8), row], **keys), match)

    bad("row 8 has wrong turn order", {"messages": chat("a", "b"), "ground_truth": "1", "verifier": "string"})
    bad("row 8 has wrong turn order", {"messages": [], "prompt": chat("a")[::-1] * 2, "verifier": "string"})
    bad("row 8 has no 'prompt'.*columns: ground_truth, verifier", {"ground_truth": "1", "verifier": "string"})
    bad("row 8 has no verifier", {"prompt": "a", "ground_truth": "1"})
    bad("row 8 has no 'ground_truth', with which the verifier string compares", {"prompt": "a", "verifier": "string"})
    bad("row 8 has a 'ground_truth' that the verifier gsm8k cannot read: it contains no number",
        {"prompt": "a", "ground_truth": "many", "verifier": "GSM8K"})  # fmt: skip
    bad("row 8 has a 'ground_truth' that the verifier string cannot read",
        {"prompt": "a", "ground_truth": " ", "dataset": "words"},
        rlvr={"verifiers": {"words": "string", "gsm8k": "gsm8k", "string": "string"}})  # fmt: skip
    bad("row 8 has a 'ground_truth' that the verifier ifeval cannot read",
        {"prompt": "a", "ground_truth": "{}", "verifier": "ifeval"})  # fmt: skip
    bad("row 8 has a 'ground_truth' that the verifier code cannot read",
        {"prompt": "a", "ground_truth": [], "verifier": "code"})  # fmt: skip
    bad(r"rows.jsonl: row 8 has an unknown verifier 'strng', did you mean 'string'\?; known: gsm8k, ",
        {"prompt": "a", "ground_truth": "1", "verifier": "strng"})  # fmt: skip
    bad("rlvr.verifiers.words: unknown verifier 'strng', did you mean 'string'", prompt_rows(1)[0],
        rlvr={"verifiers": {"words": "strng", "string": "string"}})  # fmt: skip
    bad("rlvr.verifiers.1: unknown verifier 'mathh'", prompt_rows(1)[0], rlvr={"verifiers": ["string", "mathh"]})
    bad("row 8 has the verifier 'gpqa': .*unseen suite", {"prompt": "a", "ground_truth": "1", "verifier": "gpqa"})
    known = {"verifiers": ["gsm8k", "string"]}
    bad(r"row 8 has the verifier 'math', which rlvr.verifiers leaves out \(it has gsm8k, string\)",
        {"prompt": "a", "ground_truth": "1", "verifier": "math"}, rlvr=known)  # fmt: skip
    mapped = {"verifiers": {"gsm8k": "string", "string": "string", "sums": "gsm8k"}}
    more = {"prompt": "a", "ground_truth": "1", "dataset": "sums"}
    found = plan(rlvr_folder, rows=[*prompt_rows(4), more], rlvr=mapped, batch_size=4)
    assert found.encoded.rows["verifier"] == ["string"] * 4 + ["gsm8k"]
    assert found.encoded.rows["prompt"][4] == [{"role": "user", "content": "a"}]


def test_rows_with_unreadable_truths_can_be_left_out(rlvr_folder: Path) -> None:
    rows = [*prompt_rows(8), {"prompt": "a", "ground_truth": "", "verifier": "string"}]
    file = write_rows(rlvr_folder / "with_bad.jsonl", rows)
    found = plan(rlvr_folder, data=[{"path": str(file), "bad_rows": "skip"}])
    assert len(found.encoded.rows) == 8 and [bad.row for bad in found.data.sets[0].bad] == [8]


def test_a_wrong_verifier_is_no_bad_row(rlvr_folder: Path) -> None:
    """One wrong name would silently leave out all rows of a set."""
    rows = [*prompt_rows(8), {"prompt": "a", "ground_truth": "1", "verifier": "strng"}]
    file = write_rows(rlvr_folder / "wrong.jsonl", rows)
    data = [{"path": str(file), "bad_rows": "skip"}]
    refused(lambda: plan(rlvr_folder, data=data), "wrong.jsonl: row 8 has an unknown verifier 'strng'", UsageError)


def test_responses_that_pass_the_models_positions_are_known_before(rlvr_folder: Path) -> None:
    assert any("512 positions" in note for note in plan(rlvr_folder, trainer={"max_completion_length": 600}).notes)
    assert not any("positions" in note for note in plan(rlvr_folder).notes)


def test_settings_of_sampling_stand_in_one_place(rlvr_folder: Path) -> None:
    for name, value in (("temperature", 0.1), ("top_p", 0.5), ("num_beams", 2), ("do_sample", False)):
        keys = {"trainer": {"generation_kwargs": {name: value}}}
        refused(lambda k=keys: plan(rlvr_folder, **k), f"{name} is not accepted; use trainer")


def test_numbers_that_do_not_fit(rlvr_folder: Path) -> None:
    def bad(match: str, algorithm: str = "grpo", rows: Any = None, **keys: Any) -> None:
        refused(lambda: plan(rlvr_folder, algorithm, rows, **keys), match)

    bad("1 prompt to train on is fewer than the 2 of one rollout", rows=prompt_rows(1))
    bad("7 prompts to train on are fewer than the 8 of one rollout", "ppo", rows=prompt_rows(7))
    bad("8 responses of a rollout are not a multiple of trainer.num_generations 3", trainer={"num_generations": 3})
    bad("compares two or more responses", trainer={"num_generations": 1})
    bad("beta must be 0 or above", rlvr={"beta": -1})
    bad("must not be above 0", rlvr={"no_eos_penalty": 10})
    bad("rlvr.lam must lie between", "ppo", rlvr={"lam": 1.5})
    bad("use rlvr.beta", trainer={"beta": 0.1})
    bad("use rlvr.rollouts", trainer={"use_vllm": True})
    bad("grpo has no value model", rlvr={"value_model": str(rlvr_folder / "reward")})
    assert not (rlvr_folder / "out").exists()


def test_value_models_that_are_none(rlvr_folder: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    def bad(match: str, value: Any = None, **keys: Any) -> None:
        own = {"value_model": str(value) if value else None, **keys}
        refused(lambda: plan(rlvr_folder, "ppo", rlvr=own), match)

    bad("ppo needs `value_model`")
    bad("no such checkpoint", rlvr_folder / "nowhere")
    bad("no such checkpoint", "tulu3-8b-rm")  # the output of a stage that has not run, and no name on the Hub
    bad("a language model, which has no reward head", rlvr_folder / "tiny")
    bad("give either value_model or fresh_head", rlvr_folder / "reward", fresh_head=True)
    model = AutoModelForSequenceClassification.from_pretrained(rlvr_folder / "tiny", num_labels=2)
    model.save_pretrained(rlvr_folder / "two")
    bad("has 2 labels; a reward model has one", rlvr_folder / "two")
    shutil.copytree(rlvr_folder / "reward", rlvr_folder / "other")
    words = json.loads((rlvr_folder / "other/tokenizer.json").read_text())
    words["model"]["vocab"]["another"] = len(words["model"]["vocab"])
    (rlvr_folder / "other/tokenizer.json").write_text(json.dumps(words))
    bad("has another vocabulary", rlvr_folder / "other")


def test_rollouts_that_cannot_be_had(rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(match: str, **own: Any) -> None:
        refused(lambda: plan(rlvr_folder, rlvr=own), match)

    bad("rlvr.server is for", server="http://localhost:1")
    bad("asynchronous is for", asynchronous=True)
    bad("no KL term: set `beta: 0`", asynchronous=True, rollouts="vllm_server")
    bad("rlvr.watch.stop: not with rlvr.asynchronous", asynchronous=True, rollouts="vllm_server", beta=0,
        watch={"stop": ["all"]})  # fmt: skip
    monkeypatch.setattr("train_plugins.stages.rlvr_checks.has_gpu", lambda: False)
    bad("asynchronous needs a GPU", asynchronous=True, rollouts="vllm_server", beta=0)
    monkeypatch.setattr("train_plugins.stages.rlvr_checks.find_spec", lambda name: None)
    bad(r"needs vLLM: pip install 'trl\[vllm\]'", rollouts="vllm_colocate")
    monkeypatch.setattr("train_plugins.stages.rlvr_checks.find_spec", lambda name: name)
    bad("needs the server's URL", rollouts="vllm_server")
    bad("which needs a GPU", rollouts="vllm_server", server="http://localhost:1")
    monkeypatch.setattr("train_plugins.stages.rlvr_checks.has_gpu", lambda: True)
    bad("server http://127.0.0.1:9 does not answer", rollouts="vllm_server", server="http://127.0.0.1:9")


def test_the_asynchronous_reward_travels_to_another_process(rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    asynchronous = pytest.importorskip("train_plugins.rl.async_grpo")
    monkeypatch.setattr(asynchronous, "Verifiers", Coin)
    monkeypatch.setattr("train_plugins.stages.rlvr_checks.has_gpu", lambda: True)
    monkeypatch.setattr("train_plugins.stages.rlvr_checks.find_spec", lambda name: name)
    monkeypatch.setattr("train_plugins.stages.rlvr_checks._check_server", lambda url: None)
    own = {"asynchronous": True, "rollouts": "vllm_server", "beta": 0, "server": "http://localhost:8000"}
    ready = plan(rlvr_folder, rlvr=own)
    assert registry.find("rlvr").config(ready.recipe) is asynchronous.AsyncGRPOConfig
    reward = asynchronous.Reward(("gsm8k", "string"), ready.recipe.own, (1,))
    rows = [ready.encoded.rows[0]] * 2
    columns = {name: [row[name] for row in rows] for name in ("verifier", "truth", "extra", "row")}
    answers = [[{"role": "assistant", "content": text}] for text in ("a", "b")]
    for one in (reward, pickle.loads(pickle.dumps(reward))):
        found = one([row["prompt"] for row in rows], answers, [[5, 1], [5, 6]], **columns)
        assert found == [10 * verdict("a", rows[0]["row"]), -10.0]
    assert pickle.loads(pickle.dumps(reward)).state == {}


def test_a_sampling_engine_gets_the_policy_alone() -> None:
    from train_plugins.rl import value_model

    pairs = [("model.norm", 1), ("value_model.score.weight", 2), ("lm_head.weight", 3)]
    assert list(value_model.of_policy(pairs)) == [pairs[0], pairs[2]]


def test_long_prompts_are_counted(rlvr_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = {"prompt": "blue " * 60, "ground_truth": "1", "verifier": "string"}
    out = train_rlvr(rlvr_folder, "grpo", [*prompt_rows(8), long], rlvr={"max_prompt_length": 60})
    assert "rlvr.max_prompt_length 60: 0 rows are cut, 1 of 9 left out" in capsys.readouterr().err
    assert lineage.read(out).rows["dropped"] == 1
    refused(
        lambda: train_rlvr(rlvr_folder, "grpo", [long], rlvr={"max_prompt_length": 9}, output=str(rlvr_folder / "o")),
        "all 1 prompts are longer than 9 tokens; raise rlvr.max_prompt_length",
    )


def test_the_plan_counts_what_is_trained(rlvr_folder: Path) -> None:
    settings = {"num_train_epochs": 3, "max_completion_length": 12}
    for algorithm, rows, keys in (("ppo", 19, {"num_iterations": 4}), ("grpo", 5, {})):
        wanted = make_rlvr(rlvr_folder, algorithm, prompt_rows(rows), trainer={**settings, **keys})
        lines = dry_run(registry.find("rlvr"), wanted)
        out = train_rlvr(
            rlvr_folder, algorithm, prompt_rows(rows), trainer={**settings, **keys}, output=str(rlvr_folder / algorithm)
        )
        steps = len(history(out))
        assert steps == (24 if algorithm == "ppo" else 6)
        assert any(f"{steps} steps" in line for line in lines)
        assert [entry["rlvr/verified"] for entry in history(out) if "rlvr/verified" in entry] != []
        assert (out / "rlvr.jsonl").is_file()
    assert not (rlvr_folder / "out").exists()


def test_a_verifier_that_raises_stops_the_stage_and_keeps_the_checkpoint(
    rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def verify(self: Coin, calls: Any) -> list[float]:
        asked.append(1)
        if len(asked) == 2:
            raise VerifierFailed("verifier gsm8k, row 3 (ground truth 'x'): it raised")
        return [1.0] * len(calls)

    monkeypatch.setattr(Coin, "verify", verify)
    refused(lambda: train_rlvr(rlvr_folder, "grpo", prompt_rows(8), trainer={"save_steps": 1}), "row 3", StageRefused)
    assert [path.name for path in lineage.whole_checkpoints(rlvr_folder / "out")] == ["checkpoint-1"]
    assert not (rlvr_folder / "out/config.json").exists()


def test_a_truth_that_cannot_be_read_stops_the_stage_before_the_first_rollout(
    rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train_plugins.rl.rollouts.Verifiers", Verifiers)
    monkeypatch.setattr(Verifiers, "verify", _only_empty(Verifiers.verify))
    rows = [*prompt_rows(8), {"prompt": "a", "ground_truth": '{"func_name": "no_such"}', "verifier": "ifeval"}]
    refused(lambda: train_rlvr(rlvr_folder, "grpo", rows), "row 8.*ifeval", DataError)


def _only_empty(verify: Any) -> Any:
    def checked(self: Verifiers, calls: Any) -> Any:
        assert all(call.response == "" for call in calls), "a rollout was judged"
        return verify(self, calls)

    return checked


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_weights_that_are_no_numbers_stop_the_stage(
    rlvr_folder: Path, algorithm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"save_steps": 1, "num_iterations": 1, "max_steps": 2}
    refused(
        lambda: train_rlvr(rlvr_folder, algorithm, prompt_rows(8), plugins=[Poison(monkeypatch)], trainer=settings),
        "not a number at step 2; the last good checkpoint is .*checkpoint-1",
        StageRefused,
    )


def test_the_command_line_trains(rlvr_folder: Path) -> None:
    make_rlvr(rlvr_folder, "ppo", prompt_rows(8), trainer={"max_steps": 1})
    done = olmes("train", "rlvr", str(rlvr_folder / "rlvr.yaml"), tmp=rlvr_folder)
    assert done.returncode == 0, done.stderr
    assert (rlvr_folder / "out/value_model/model.safetensors").is_file()
    assert "rlvr/verified" in json.loads((rlvr_folder / "out/trainer_state.json").read_text())["log_history"][0]
    said = one_line_error(
        olmes("train", "rlvr", str(rlvr_folder / "rlvr.yaml"), "--set", "rlvr.algoritm=ppo", tmp=rlvr_folder)
    )
    assert "did you mean 'algorithm'" in said


def test_a_short_stage_without_a_signal_says_so(
    rlvr_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Coin, "verify", lambda self, calls: [0.0] * len(calls))
    train_rlvr(rlvr_folder, "grpo", prompt_rows(8), trainer={"max_steps": 2}, rlvr={"no_eos_penalty": None})
    assert "warning: the rewards taught nothing: in each of the 2 rollouts" in capsys.readouterr().err
