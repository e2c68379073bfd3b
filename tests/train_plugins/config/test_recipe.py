"""Recipes: typed, named where they are wrong, and checked before anything heavy is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import environment, olmes_here, one_line_error
from train_fixture import chat, need_trl, refused, write_rows

from olmes_suite.errors import DataError, UsageError
from olmes_suite.tasks import catalog, index
from olmes_suite.yaml_files import Place
from train_plugins.checkpoints import changes as resumed
from train_plugins.config import recipe, trainer_fields
from train_plugins.data.messages import conversation, preference
from train_plugins.stages import plan, registry

MINIMAL: dict[str, Any] = {"model": "tiny", "output": "out", "data": [{"path": "a.jsonl"}]}


PLACE = Place("r")


def load(folder: Path, kind: str = "sft", changes: tuple[str, ...] = (), **keys: Any) -> recipe.Recipe:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump({**MINIMAL, **keys}))
    return load_file(file, kind, changes)


def load_file(file: Path, kind: str = "sft", changes: tuple[str, ...] = ()) -> recipe.Recipe:
    return recipe.load(file, kind, registry.find(kind).own, registry.names(), changes=changes)


GOLDEN = Path(__file__).with_name("shipped_recipes.jsonl")
"""What each shipped recipe holds, byte for byte; a recipe that is changed on purpose changes its line."""


@pytest.mark.parametrize("line", GOLDEN.read_text(encoding="utf-8").splitlines(), ids=lambda line: line[12:40])
def test_shipped_recipes_are_read_to_the_byte(line: str) -> None:
    name = json.loads(line)["recipe"]
    stage = registry.find({"grpo": "rlvr"}.get(kind := name.split("_")[-2], kind))
    found = recipe.load(Path(name), stage.name, stage.own, registry.names())
    assert json.dumps({"recipe": name, "data": found.as_data()}, ensure_ascii=False) == line


def test_the_golden_recipes_are_all_that_ship() -> None:
    names = [json.loads(line)["recipe"] for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
    assert names == sorted(path.stem for path in recipe.SHIPPED.glob("*.yaml"))


@pytest.mark.parametrize("name", sorted(path.stem for path in recipe.SHIPPED.glob("tulu3*.yaml")))
def test_shipped_recipes_are_whole(name: str) -> None:
    kind = name.split("_")[1]
    stage = "rlvr" if kind == "grpo" else kind
    found = recipe.load(Path(name), stage, registry.find(stage).own, registry.names())
    assert found.chat_template == "tulu" and found.decontam is not None and found.eval is None
    if kind in ("rlvr", "grpo"):
        return
    large = name.endswith("405b") or kind == "rm"
    assert found.batch_size == (256 if large else 128)
    assert found.trainer["max_length"] == (4096 if kind == "sft" else 2048)


@pytest.mark.parametrize(
    ("name", "rate"),
    [
        ("sft_8b", 5e-6), ("sft_70b", 2e-6), ("sft_405b", 2e-6),
        ("dpo_8b", 5e-7), ("dpo_70b", 2e-7), ("dpo_405b", 2e-7), ("rm_8b", 3e-6),
    ],
)  # fmt: skip
def test_shipped_recipes_have_the_papers_learning_rates(name: str, rate: float) -> None:
    kind = name.split("_")[0]
    found = recipe.load(Path(f"tulu3_{name}"), kind, registry.find(kind).own, registry.names())
    assert found.trainer["learning_rate"] == rate
    if kind == "dpo":
        assert (found.own.loss, found.own.beta) == ("dpo_norm", 5.0)
    if kind == "sft":
        assert found.own.loss == "sum" and found.trainer["num_train_epochs"] == 2


@pytest.mark.parametrize(
    ("name", "rate", "beta", "batch", "algorithm", "unended"),
    [
        ("tulu3_rlvr_8b", 3e-7, 0.05, 224, "ppo", -10.0), ("tulu3_rlvr_70b", 1e-7, 0.07, 640, "ppo", -10.0),
        ("tulu3_rlvr_405b", 1e-7, 0.05, 1856, "ppo", -10.0), ("tulu31_grpo_8b", 5e-7, 0.01, 48 * 16 // 2, "grpo", 0.0),
    ],
)  # fmt: skip
def test_shipped_recipes_of_rlvr_have_the_published_numbers(
    name: str, rate: float, beta: float, batch: int, algorithm: str, unended: float | None
) -> None:
    found = recipe.load(Path(name), "rlvr", registry.find("rlvr").own, registry.names())
    assert (found.trainer["learning_rate"], found.own.beta, found.batch_size) == (rate, beta, batch)
    assert (found.own.algorithm, found.own.no_eos_penalty, found.own.reward) == (algorithm, unended, 10.0)
    assert found.trainer["num_iterations"] == (4 if algorithm == "ppo" else 1)
    assert (found.own.gamma, found.own.lam, found.own.value_coef) == (1.0, 0.95, 0.1)


@pytest.mark.parametrize(
    ("name", "seed", "updates", "rollout", "each", "last"),
    [
        ("tulu3_rlvr_8b", 3, 4, 224, 100, None), ("tulu3_rlvr_70b", 8, 4, 640, 40, None),
        ("tulu3_rlvr_405b", 3, 4, 1856, 25, 75), ("tulu31_grpo_8b", 1, 2, 768, 40, None),
    ],
)  # fmt: skip
def test_what_the_paper_counts_in_rollouts_is_so_many_steps(
    name: str, seed: int, updates: int, rollout: int, each: int, last: int | None
) -> None:
    """`updates` of the weights for a rollout of `rollout` responses, a checkpoint after `each` rollouts."""
    from train_plugins.stages.rlvr import plan_rollouts

    found = recipe.load(Path(name), "rlvr", registry.find("rlvr").own, registry.names())
    given = {**found.trainer, "gradient_accumulation_steps": found.batch_size}
    assert (found.seed, int(given["save_steps"])) == (seed, each * updates)
    one = plan_rollouts(30_000, 30_000, {**given, "max_steps": updates, "max_completion_length": 1}, 1)
    assert one.tokens == 2 * rollout  # a token for the prompt, one for the response: it is a single rollout
    if last is not None:
        assert given["max_steps"] == last * updates


def test_the_learning_rate_of_405b_falls_as_the_commands(tmp_path: Path) -> None:
    """Linear over the 860 steps of 400,000 episodes, of which 300 are trained."""
    need_trl()
    import torch
    from transformers import get_scheduler

    found = recipe.load(Path("tulu3_rlvr_405b"), "rlvr", registry.find("rlvr").own, registry.names())
    given = recipe.check_trainer(found.trainer, registry.find("rlvr").config(found), found.place)
    assert 400_000 // 1856 * 4 == 860
    rates = []
    for kind, steps, more in (
        (given["lr_scheduler_type"], given["max_steps"], given["lr_scheduler_kwargs"]),
        ("linear", 860, None),
    ):
        optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=given["learning_rate"])
        schedule = get_scheduler(kind, optimiser, 0, steps, scheduler_specific_kwargs=more)
        rates.append([schedule.lr_lambdas[0](step) for step in range(301)])
    assert rates[0] == pytest.approx(rates[1], rel=1e-6) and rates[0][300] < 0.66


def test_keys_are_set_from_the_command_line(tmp_path: Path) -> None:
    changes = ("trainer.learning_rate=5e-6", "data.0.limit=10", "sft.loss=mean", "eval.tasks=[gsm8k]", "final=true")
    found = load(tmp_path, changes=changes)
    assert found.trainer == {"learning_rate": "5e-6"}  # typed when the trainer's class is known
    assert (found.data[0].limit, found.own.loss, found.final) == (10, "mean", True)
    assert found.eval is not None and found.eval.tasks == ("gsm8k",)
    assert recipe.load(tmp_path / "recipe.yaml", "sft", registry.find("sft").own, (), output=Path("b")).output == "b"
    for change, said in (
        ("seed", "expected key=value"),
        ("data.3.limit=1", "'3' is not an entry of a list of 1"),
        ("seed.a=1", "unknown key|expected a whole number"),
        ("model.a=1", "'model' is not a mapping"),
        ("sft.los=sum", "unknown key 'los', did you mean 'loss'"),
    ):
        refused(lambda change=change: load(tmp_path, changes=(change,)), said, UsageError)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"sftt": {"loss": "sum"}}, "did you mean 'sft'"),
        ({"modle": "x"}, "unknown key 'modle', did you mean 'model'"),
        ({"seed": "7a"}, "seed: expected a whole number, not '7a'"),
        ({"final": "maybe"}, "final: expected true or false"),
        ({"sft": {"loss": "median"}}, "sft: loss: 'median' is none of sum, mean"),
        ({"dpo": {"beta": 5}}, "the key 'dpo' belongs to the stage dpo, this is sft"),
        ({"loss": "sum"}, "line [0-9]+: the key 'loss' stands under 'sft', not beside it"),
        ({"learning_rate": 1e-5}, "line [0-9]+: the key 'learning_rate' stands under 'trainer', not beside it"),
        ({"alpha": 16}, "the key 'alpha' stands under 'lora', not beside it"),
        ({"trainer": {"loss": "sum"}}, "the key 'loss' stands under 'sft', not under 'trainer'"),
        ({"trainer": {"chat_template": "tulu"}}, "the key 'chat_template' stands beside 'trainer', not under it"),
        ({"sft": {"max_steps": 3}}, "the key 'max_steps' stands under 'trainer', not under 'sft'"),
        ({"eval": {"suite": "dev", "data_dir": ["nowhere"]}}, "eval.data_dir nowhere: no such folder"),
        ({"data": []}, "at least one entry"),
        ({"data": [{"path": "a", "hub": "b"}]}, r"data\[0\]: give either `path` or `hub`"),
        ({"data": [{"file": "a"}]}, r"data\[0\]: unknown key 'file'"),
        ({"data": [{"path": "a", "limit": 0}]}, "limit must be at least 1"),
        ({"output": None}, "the key `output`, or --output"),
        ({"batch_size": 8, "trainer": {"gradient_accumulation_steps": 2}}, "give either `batch_size`"),
        ({"decontam": {"on_contamination": "shrug"}}, "'shrug' is none of stop, filter, warn"),
        ({"eval": {"limit": 3}}, "name a `suite` or `tasks`"),
        pytest.param({"eval": {"tasks": ["gsm8"]}}, "did you mean 'gsm8k'", marks=pytest.mark.long),
        ({"eval": {"suite": "dev", "every": 0}}, "eval.every must be at least 1"),
        ({"eval": {"suite": "dev", "profile": "olmo4"}}, "eval: unknown profile 'olmo4', did you mean 'olmo3'"),
        ({"eval": {"suite": "dev", "gen_kwargs": {"temp": 1}}}, "eval: --gen-kwargs: unknown setting 'temp'"),
        ({"own": {"loss": "sum"}}, "unknown key 'own'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    refused(lambda: load(tmp_path, **keys), said, UsageError)


def test_the_line_of_a_mistake_is_named(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    start, own = "model: a\noutput: b\ndata: [{path: c}]\n", registry.find("sft").own
    for text, changes, said in (
        ("sft:\n  loss: median\n", (), "recipe.yaml, line 5: sft: loss: 'median' is none of sum, mean"),
        ("dpo: {beta: 5}\n", (), "line 4: the key 'dpo' belongs to the stage dpo"),
        (
            "eval: {suite: dev}\ngate:\n  margin: 1\n  tasks:\n    gsm8k: {flor: 1}\n",
            (),
            "line 8: gate: tasks: gsm8k: unknown",
        ),
        ("seed: 1\n", ("seed=x",), "recipe.yaml: seed: expected a whole number, not 'x'"),
        ("trainer: {}\nseed: 1\ntrainer: {}\n", (), "the key 'trainer' stands twice, on lines 4 and 6"),
    ):
        file.write_text(start + text)
        refused(lambda c=changes: recipe.load(file, "sft", own, registry.names(), changes=c), said, UsageError)


def test_the_unseen_suite_is_for_the_last_checkpoint_of_a_final_stage(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("suite: own\ntasks: [gsm8k, gpqa]\n")
    for wanted in ({"suite": "unseen"}, {"tasks": ["gpqa"]}, {"tasks": ["tulu3_mmlu_pro"]}, {"suite": str(own)}):
        refused(lambda wanted=wanted: load(tmp_path, eval=wanted), "which is for the end", UsageError)
        assert load(tmp_path, eval=wanted, final=True).final
        every = {**wanted, "every": 10}
        refused(lambda every=every: load(tmp_path, eval=every, final=True), "only the last may see it", UsageError)
    assert load(tmp_path, eval={"suite": "dev", "every": 10}).eval is not None


@pytest.mark.parametrize(
    "name", ["ifeval_ood_repaired", "ifbench", "bigcodebench", "gpqa_llama31", "mmlu_pro_llama31", "deepmind_math_v0"]
)
def test_variants_and_siblings_of_the_unseen_suite_choose_no_checkpoint(tmp_path: Path, name: str) -> None:
    refused(lambda: load(tmp_path, eval={"tasks": [name], "every": 10}), "which is for the end", UsageError)
    every = {"tasks": ["gsm8k", name], "every": 10}
    refused(lambda: load(tmp_path, eval=every, final=True), "only the last may see it", UsageError)


def test_a_gate_would_show_the_unseen_suite_to_the_parent(tmp_path: Path) -> None:
    for wanted in ({"suite": "unseen"}, {"tasks": ["gsm8k", "gpqa"]}):
        keys = {"eval": wanted, "gate": {"margin": 5}, "final": True}
        refused(lambda keys=keys: load(tmp_path, **keys), "gate on dev", UsageError)
    assert load(tmp_path, eval={"suite": "dev"}, gate={"margin": 5}, final=True).gate


def test_trainer_arguments_are_the_trainers_own(tmp_path: Path) -> None:
    need_trl()
    config = registry.find("sft").config()
    checked = recipe.check_trainer({"learning_rate": "5e-6", "max_length": None, "bf16": True}, config, PLACE)
    assert checked == {"learning_rate": 5e-6, "max_length": None, "bf16": True}
    for arguments, said in (
        ({"learning_rat": 1}, "unknown key 'learning_rat', did you mean 'learning_rate'"),
        ({"learning_rate": "fast"}, "r: trainer.learning_rate: expected a number"),
        ({"num_train_epochs": True}, "expected a number"),
        ({"output_dir": "x"}, "trainer.output_dir is not accepted; use output"),
        ({"loss_type": "nll"}, "use sft.loss"),
    ):
        refused(lambda a=arguments: recipe.check_trainer(a, config, PLACE, trainer_fields.SFT), said, UsageError)


def test_the_line_of_a_trainer_argument_is_named(tmp_path: Path) -> None:
    need_trl()
    for trainer, said in (
        (
            {"max_length": 1, "learning_rat": 1},
            "recipe.yaml, line 7: trainer: unknown key 'learning_rat', did you mean",
        ),
        ({"learning_rate": "fast"}, "recipe.yaml, line 6: trainer.learning_rate: expected a number, not 'fast'"),
        ({"fsdp_config": {}, "seed": 1}, "recipe.yaml, line 7: trainer.seed is not accepted; use seed"),
    ):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**MINIMAL, "trainer": trainer}, sort_keys=False))
        found = load_file(tmp_path / "recipe.yaml")
        refused(
            lambda f=found: recipe.check_trainer(f.trainer, registry.find("sft").config(), f.place), said, UsageError
        )


def test_rows_are_brought_to_one_form() -> None:
    pair = {"chosen": chat("q", "a"), "rejected": chat("q", "b")}
    for row in (
        pair,
        {**pair, "prompt": "q", "source": "x"},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": chat("q"), "chosen": chat("q", "a")[1:], "rejected": chat("q", "b")[1:]},
    ):
        assert preference(row) == pair
    assert conversation({"messages": chat("q", "a", system="s"), "id": 1}) == {"messages": chat("q", "a", system="s")}
    for messages in (
        [],
        None,
        "text",
        [{"role": "user"}],
        chat("q"),
        chat("q", "a")[1:],
        [*chat("q", "a")] * 2 + chat("q"),
    ):
        with pytest.raises(ValueError):
            conversation({"messages": messages})


def test_steps_are_counted_as_the_trainer_counts_them() -> None:
    arguments = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 3}
    found = plan.plan(41, 1000, arguments, processes=2)
    assert (found.batch, found.steps, found.tokens) == (16, 9, 3000)  # 6 passes a process, 3 steps an epoch
    assert plan.plan(41, 1000, {**arguments, "max_steps": 5}, 2).steps == 5
    refused(lambda: plan.plan(15, 1000, arguments, 2), "15 rows to train on are fewer than one batch of 16", DataError)
    assert plan.accumulation(128, {"per_device_train_batch_size": 2}, 8) == 8


def test_what_may_change_between_the_starts_of_a_stage() -> None:
    assert resumed.flatten({"a": {"b": 1}, "c": [2]}) == {"a.b": 1, "c": [2]}
    before = {"sft": {"loss": "sum"}, "trainer": {"learning_rate": 1.0}}
    for now in ({"eval": {"limit": 1}}, {"trainer": {"learning_rate": 1.0, "logging_steps": 3}}):
        assert resumed.check(before, {**before, **now}, 1) == []
    for now, said in (
        ({"sft": {"loss": "mean"}}, "sft.loss was 'sum' and is now 'mean'; earlier steps"),
        ({"trainer": {"learning_rate": 2.0}}, "saved state of optimiser and schedule would override it"),
        ({"model": "other"}, "its reference and lineage are of it"),
    ):
        refused(lambda now=now: resumed.check(before, {**before, **now}, 1), said, UsageError)


def test_the_command_line_is_one_line_for_every_mistake(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**MINIMAL, "modle": 1}))
    for arguments, said in (
        (["rlhf", "r.yaml"], "unknown stage 'rlhf', did you mean 'rlvr'?; known: sft, rm, dpo, rlvr"),
        (["sft", "nowhere.yaml"], "no such file; shipped recipes: olmo3_instruct_dpo_32b, "),
        (["sft", tmp_path / "r.yaml"], "unknown key 'modle', did you mean 'model'"),
    ):
        assert said in one_line_error(olmes_here("train", *arguments, tmp=tmp_path))


def test_a_recipe_is_refused_before_anything_heavy_is_imported(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**MINIMAL, "modle": 1}))
    program = (
        f"import sys; from olmes_suite.cli.main import run; run(['train', 'sft', {str(tmp_path / 'r.yaml')!r}]); "
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'lm_eval', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment(tmp_path))
    assert done.stdout.strip() == "[]" and "modle" in done.stderr


def test_without_trl_the_extra_is_named(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.jsonl", [{"messages": chat("q", "a")}])
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**MINIMAL, "trainer": {"learning_rate": 1e-5}}))
    program = (
        "import sys; sys.modules['trl'] = None\nfrom olmes_suite.cli.main import run\n"
        f"sys.exit(run(['train', 'sft', {str(tmp_path / 'r.yaml')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment(tmp_path))
    assert "pip install 'olmes-suite[train]'" in one_line_error(done)


@pytest.mark.long
def test_a_check_changes_nothing_in_the_process(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "sums.yaml").write_text("task: my_sums\ndataset_path: mine/sums\noutput_type: generate_until\n")
    paths, known, variables = list(catalog.include_paths), set(index.index()), dict(os.environ)
    wanted: dict[str, Any] = {"tasks": ["my_sums"], "include_path": [str(mine)]}
    assert load(tmp_path, eval=wanted, gate={"margin": 5}).eval is not None
    refused(lambda: load(tmp_path, eval={**wanted, "tasks": ["my_sum"]}), "unknown task 'my_sum'", UsageError)
    assert (list(catalog.include_paths), set(index.index()), dict(os.environ)) == (paths, known, variables)
    refused(lambda: load(tmp_path, eval={"tasks": ["my_sums"]}), "unknown task 'my_sums'", UsageError)
    with catalog.including([mine]):
        assert catalog.find("my_sums").name == "my_sums"
