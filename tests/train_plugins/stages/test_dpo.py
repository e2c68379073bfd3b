"""Preference stages: losses against formulas, the reference's cache, the reward model, evaluation of checkpoints."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from helpers import write_gsm8k
from models_fixture import make_tiny_model
from rounding import gradient_limit
from train_fixture import chat, losses, make_recipe, need_trl, pair_rows, refused, weights, write_rows

from olmes_suite.errors import DataError, UsageError
from olmes_suite.hooks import hookimpl
from train_plugins.checkpoints import evaluator, lineage
from train_plugins.data import encoding
from train_plugins.running.prepare_stage import configuration, prepare, trainer_arguments
from train_plugins.running.train_stage import run
from train_plugins.stages import registry
from train_plugins.trainers import reference_logprobs

need_trl()
pytestmark = pytest.mark.long
LIMIT = gradient_limit(8 * 62)  # four pairs, whose texts have at most 62 tokens


def train(folder: Path, rows: list[dict[str, Any]], kind: str = "dpo", go_on: bool = False, **keys: Any) -> Path:
    data = write_rows(folder / "rows.jsonl", rows)
    return run(registry.find(kind), make_recipe(kind, folder, data, **keys), go_on)


def trainer_for(folder: Path, keys: dict[str, Any], model: Path | None = None) -> Any:
    data = write_rows(folder / "rows.jsonl", pair_rows(4))
    settings = {"per_device_train_batch_size": 4, "gradient_checkpointing": False}
    wanted = make_recipe("dpo", folder, data, dpo=keys, trainer=settings)
    stage = registry.find("dpo")
    wanted, arguments = trainer_arguments(stage, wanted)
    ready = prepare(stage, wanted, arguments)
    args = configuration(stage.config(), arguments, wanted)
    trainer = stage.trainer(wanted, args, ready.encoded.rows, ready.tokenizer)
    if model is not None:  # a policy that has moved away from the reference
        trainer.model.load_state_dict(weights(model), strict=False)
    return trainer


def one_batch(trainer: Any) -> tuple[float, dict[str, Any], dict[str, list[float]]]:
    """Loss and gradients of the policy over the whole data, and what was logged."""
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in trainer.model.named_parameters()}, trainer._metrics["train"]


def by_hand(folder: Path, policy: Path, loss: str, beta: float, gamma: float) -> tuple[float, dict[str, Any], float]:
    """The formula, answer by answer: equation 6 of the Tülu 3 paper, equation 7 of DPO's, equation 6 of SimPO's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models = [AutoModelForCausalLM.from_pretrained(p, dtype=torch.float32) for p in (policy, folder / "tiny")]
    tokenizer = AutoTokenizer.from_pretrained(folder / "tiny")

    def log_prob(model: Any, turns: list[dict[str, str]]) -> tuple[Any, int]:
        prompt = f"<|user|>\n{turns[0]['content']}\n<|assistant|>\n"
        start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = tokenizer(prompt + turns[1]["content"] + "</s>", add_special_tokens=False)["input_ids"]
        assert ids[: len(start)] == start
        logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        steps = [logits[at - 1, ids[at]] for at in range(len(start), len(ids))]
        return torch.stack(steps).sum(), len(steps)

    total, margins = torch.zeros(()), 0.0
    for row in pair_rows(4):
        reward = {}
        for side in ("chosen", "rejected"):
            own, length = log_prob(models[0], row[side])
            base = log_prob(models[1], row[side])[0].detach()
            reward[side] = {
                "dpo_norm": beta * (own - base) / length,
                "dpo": beta * (own - base),
                "simpo": beta * own / length,
            }[loss]
        difference = reward["chosen"] - reward["rejected"]
        margins += float(difference.detach()) / 4
        total = total - torch.log(torch.sigmoid(difference - gamma)) / 4
    total.backward()
    return float(total.detach()), {n: p.grad for n, p in models[0].named_parameters()}, margins


@pytest.mark.parametrize(("loss", "beta", "gamma"), [("dpo_norm", 5.0, 0.0), ("dpo", 0.1, 0.0), ("simpo", 2.0, 0.5)])
def test_losses_and_gradients_are_those_of_the_formulas(
    train_folder: Path, loss: str, beta: float, gamma: float
) -> None:
    policy = make_tiny_model(train_folder / "policy", seed=1)
    value, gradient, margin = by_hand(train_folder, policy, loss, beta, gamma)
    largest = max(float(g.abs().max()) for g in gradient.values())
    for separate in (False, True):
        keys = {"loss": loss, "beta": beta, "gamma": gamma, "separate_forward": separate}
        found, own, metrics = one_batch(trainer_for(train_folder, keys, policy))
        assert found == pytest.approx(value, rel=LIMIT)
        assert max(float((own[name] - gradient[name]).abs().max()) for name in gradient) / largest < LIMIT
        assert metrics["rewards/margins"][0] == pytest.approx(margin, rel=1e-4)
    if loss != "simpo":
        assert math.isclose(one_batch(trainer_for(train_folder, keys))[0], math.log(2), rel_tol=LIMIT)


def test_our_loss_is_trls_sigmoid_norm(train_folder: Path) -> None:
    from trl import DPOTrainer

    trainer = trainer_for(train_folder, {}, make_tiny_model(train_folder / "policy", seed=1))
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))
    ours = float(trainer._compute_loss(trainer.model, dict(batch), False).detach())
    trainer.loss_types, trainer.beta = ["sigmoid_norm"], 5.0
    theirs = float(DPOTrainer._compute_loss(trainer, trainer.model, dict(batch), False).detach())
    assert ours == pytest.approx(theirs, rel=LIMIT)


def test_the_reference_is_computed_once_and_kept_by_content(
    train_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from trl import DPOTrainer

    asked = []
    compute = DPOTrainer.compute_ref_log_probs
    monkeypatch.setattr(DPOTrainer, "compute_ref_log_probs", lambda *a: (asked.append(1), compute(*a))[1])
    first = trainer_for(train_folder, {})
    assert len(asked) == 1 and first.ref_model is None
    again = trainer_for(train_folder, {"beta": 1.0, "loss": "dpo"})
    assert len(asked) == 1 and "from the cache" in capsys.readouterr().err
    for column in reference_logprobs.COLUMNS:
        assert list(again.train_dataset[column]) == list(first.train_dataset[column])
    (file,) = (train_folder / "cache/reference").glob("*.parquet")
    file.write_bytes(b"torn")
    trainer_for(train_folder, {})
    assert len(asked) == 2
    trainer_for(train_folder, {"loss": "simpo", "beta": 2.0})
    assert len(asked) == 2  # SimPO has no reference
    make_tiny_model(train_folder / "tiny", seed=2)
    trainer_for(train_folder, {})
    assert len(asked) == 3


def test_a_stage_learns_its_pairs_and_is_the_child_of_its_parent(train_folder: Path) -> None:
    settings = {"trainer": {"num_train_epochs": 6, "learning_rate": 2e-3, "max_length": 128}, "batch_size": 8}
    out = train(train_folder, pair_rows(16), **settings)
    history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    accuracy = [entry["rewards/accuracies"] for entry in history if "rewards/accuracies" in entry]
    assert losses(out)[0] == pytest.approx(math.log(2), rel=1e-4)
    assert losses(out)[-1] < 0.3 and accuracy[-1] == 1.0
    said = lineage.read(out)
    assert (said.stage, said.parent) == ("dpo", str(train_folder / "tiny"))
    assert said.recipe["dpo"] == {"loss": "dpo_norm", "beta": 5.0, "gamma": 0.0, "separate_forward": False}


class StopAfter:
    """A plugin that kills the stage when its checkpoint of a step was saved."""

    @hookimpl
    def olmes_after_checkpoint(self, checkpoint: Path) -> None:
        if checkpoint.name == "checkpoint-4":
            raise KeyboardInterrupt


@pytest.mark.parametrize(("kind", "own"), [("dpo", {}), ("rm", {"rm": {"fresh_head": True}})])
def test_a_killed_stage_ends_in_the_weights_of_an_unbroken_one(
    train_folder: Path, kind: str, own: dict[str, Any]
) -> None:
    trainer = {
        "num_train_epochs": 2,
        "save_steps": 2,
        "per_device_train_batch_size": 2,
        "gradient_checkpointing": False,
    }
    keys: dict[str, Any] = {**own, "trainer": trainer, "batch_size": 4}
    whole = train(train_folder, pair_rows(12), kind, output=str(train_folder / "whole"), **keys)
    data = write_rows(train_folder / "rows.jsonl", pair_rows(12))
    broken = {**keys, "output": str(train_folder / "broken")}
    with pytest.raises(KeyboardInterrupt):
        run(registry.find(kind), make_recipe(kind, train_folder, data, **broken), False, [StopAfter()])
    assert not (train_folder / "broken/config.json").exists()
    resumed = train(train_folder, pair_rows(12), kind, True, **broken)
    assert losses(resumed) == losses(whole) and len(losses(whole)) == 6
    one, other = weights(whole), weights(resumed)
    assert all(bool((one[name] == other[name]).all()) for name in one)


def test_pairs_over_the_limit_are_counted(train_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = [{"chosen": chat("blue " * 60, a), "rejected": chat("blue " * 60, b)} for a, b in (("x", "y"),)]
    out = train(train_folder, [*pair_rows(4), *long], trainer={"max_length": 90})
    assert "0 rows are cut, 1 of 5 left out" in capsys.readouterr().err
    assert lineage.read(out).rows["dropped"] == 1


def test_bad_pairs_are_one_line(train_folder: Path) -> None:
    def bad(match: str, row: dict[str, Any] | None = None, **keys: Any) -> None:
        refused(lambda: train(train_folder, [row] if row else pair_rows(4), **keys), match)
        assert not (train_folder / "out").exists()

    bad("chosen and rejected differ before the last turn", {"chosen": chat("a", "b"), "rejected": chat("c", "b")})
    bad("empty assistant turn", {"chosen": chat("a", "b"), "rejected": chat("a", "")})
    bad("wrong turn order", {"chosen": chat("a"), "rejected": chat("a", "b")})
    bad("no 'rejected'", {"chosen": chat("a", "b")})
    bad("beta must be above 0", dpo={"beta": 0})
    bad("gamma is SimPO's", dpo={"gamma": 0.5})
    bad("dpo.loss: 'ipo' is none of dpo_norm, dpo, simpo|loss: 'ipo'", dpo={"loss": "ipo"})


def test_a_reward_model_scores_at_the_last_token(train_folder: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    refused(lambda: train(train_folder, pair_rows(4), "rm"), "a language model, which has no reward head", UsageError)
    asked = {"rm": {"fresh_head": True}, "eval": {"tasks": ["gsm8k"]}}
    refused(lambda: train(train_folder, pair_rows(4), "rm", **asked), "generate no text to evaluate", UsageError)
    long = {"chosen": chat("a", "blue " * 60), "rejected": chat("a", "b")}
    settings = {"num_train_epochs": 8, "learning_rate": 2e-3, "max_length": 90}
    out = train(train_folder, [*pair_rows(8), long], "rm", rm={"fresh_head": True}, trainer=settings, batch_size=8)
    assert lineage.read(out).rows == {"read": 9, "trained": 8, "cut": 0, "dropped": 1}
    model, info = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True, dtype=torch.float32)
    assert model.config.num_labels == 1 and not info["missing_keys"]
    tokenizer = AutoTokenizer.from_pretrained(out)
    right = 0
    for row in pair_rows(8):
        ids = {side: torch.tensor([encoding.token_ids(tokenizer, row[side])]) for side in ("chosen", "rejected")}
        scores = {side: float(model(one).logits.detach()) for side, one in ids.items()}
        hidden = model.model(ids["chosen"]).last_hidden_state[0, -1]
        assert float(model.score(hidden).detach()) == pytest.approx(scores["chosen"], rel=LIMIT)
        right += scores["chosen"] > scores["rejected"]
    assert right >= 7
    refused(
        lambda: train(
            train_folder, pair_rows(4), "rm", model=str(out), rm={"fresh_head": True}, output=str(train_folder / "o")
        ),
        "has a reward head already",
        UsageError,
    )
    refused(
        lambda: train(train_folder, pair_rows(4), model=str(out), output=str(train_folder / "o")),
        "a sequence classifier",
        UsageError,
    )
    tiny = str(
        train(train_folder, pair_rows(4), "rm", model=str(out), output=str(train_folder / "more"))
    )  # its head is kept
    assert (Path(tiny) / lineage.FILE).is_file()
    refused(
        lambda: train(train_folder, [long], "rm", model=str(out), trainer={"max_length": 9}, output="x"),
        "longer",
        DataError,
    )


def test_checkpoints_are_evaluated_beside_the_training(
    train_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_gsm8k(train_folder / "data", rows=3)
    wanted = {
        "tasks": ["gsm8k"],
        "limit": 1,
        "every": 1,
        "data_dir": [str(train_folder / "data")],
        "runs": str(train_folder / "runs"),
    }
    out = train(train_folder, pair_rows(8), eval=wanted, trainer={"save_total_limit": 1, "save_steps": 1})
    results = evaluator.read_results(out / evaluator.FILE)
    assert [(result.step, result.error) for result in results] == [(1, None), (2, None)], capsys.readouterr().err
    assert all(set(result.tasks) == {"tulu3_gsm8k"} and result.average is not None for result in results)
    manifests = {json.loads((Path(result.run) / "manifest.json").read_text())["lineage"]["step"] for result in results}
    assert manifests == {1, 2}
    assert "| 2 | average |" in (out / "README.md").read_text()
    assert not (out / evaluator.LINKS).exists()
    assert (train_folder / "runs/out").exists() is False and len(list((train_folder / "runs").glob("out*"))) == 2
    assert "best checkpoint: step 1" in capsys.readouterr().err  # equal averages: the earlier one

    asked: list[int] = []
    monkeypatch.setattr(
        evaluator.Evaluator, "_evaluate", lambda self, folder, checkpoint, step, live=None: asked.append(step)
    )
    train(train_folder, pair_rows(8), go_on=True, eval=wanted, trainer={"save_total_limit": 1, "save_steps": 1})
    assert asked == []  # done already
    (out / evaluator.FILE).unlink()  # as if killed before it was
    train(train_folder, pair_rows(8), go_on=True, eval=wanted, trainer={"save_total_limit": 1, "save_steps": 1})
    assert asked[0] == 2 and len(asked) == len(set(asked))
    assert not (out / evaluator.LINKS).exists()


def test_an_evaluation_that_fails_does_not_stop_the_stage(
    train_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (train_folder / "taken").write_text("a file, where a folder should be")
    wanted = {"tasks": ["gsm8k"], "limit": 1, "data": "sample", "runs": str(train_folder / "taken")}
    out = train(train_folder, pair_rows(4), eval=wanted)
    (result,) = evaluator.read_results(out / evaluator.FILE)
    assert result.error and "taken" in result.error
    assert "evaluation of step 1: failed" in capsys.readouterr().err
    assert (out / lineage.FILE).is_file()
