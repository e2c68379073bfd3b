"""Pipelines: checked before anything is loaded; run, resumed and not repeated; what each stage gained."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import as_json, olmes, one_line_error, write_gsm8k
from models_fixture import make_tiny_model
from train_fixture import need_trl, pair_rows, refused, sft_rows, write_rows

from olmes_suite.errors import ModelError, UsageError
from train_plugins.checkpoints import evaluator, lineage
from train_plugins.running import pipeline_file, run_pipeline

TRAINER = {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "max_steps": 2, "logging_steps": 1,
           "max_length": 256, "gradient_checkpointing": False}  # fmt: skip


@pytest.fixture
def pipeline_folder(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a tiny checkpoint, rows for each kind of stage, and a mirror of six documents."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_checkpoint, tmp_path / "tiny")
    write_rows(tmp_path / "sft.jsonl", sft_rows(8))
    write_rows(tmp_path / "pairs.jsonl", pair_rows(8))
    write_gsm8k(tmp_path / "mirror", rows=6)
    return tmp_path


def stage(kind: str, **keys: Any) -> dict[str, Any]:
    data = "sft.jsonl" if kind == "sft" else "pairs.jsonl"
    return {"data": [{"path": data}], "chat_template": "tulu", "trainer": TRAINER, **keys}


def whole(**changes: Any) -> dict[str, Any]:
    """base → SFT → RM → DPO."""
    looked = {"tasks": ["gsm8k"], "limit": 4, "data_dir": ["mirror"]}
    first = stage("sft", model="tiny", eval=looked)
    listed = [
        {"name": "first", "kind": "sft", "recipe": first},
        {"name": "reward", "kind": "rm", "recipe": stage("rm", rm={"fresh_head": True})},
        {"name": "second", "kind": "dpo", "recipe": stage("dpo", eval=looked)},
    ]
    return {"runs": "runs", "output": "out", "stages": listed, **changes}


def load(data: dict[str, Any], *changes: str) -> pipeline_file.Pipeline:
    Path("pipeline.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return pipeline_file.load(Path("pipeline.yaml"), changes)


def test_each_stage_starts_where_the_last_model_ended(pipeline_folder: Path) -> None:
    found = load(whole(seed=7), "stages.2.recipe.dpo.beta=2")
    first, reward, second = found.stages
    assert (found.base, first.recipe.model, str(first.output)) == ("tiny", "tiny", "out/first")
    assert reward.recipe.model == second.recipe.model == "out/first"  # a reward model is nothing to go on from
    assert found.last.name == "second" and second.recipe.own.beta == 2.0
    assert all(one.recipe.seed == 7 for one in found.stages)
    assert first.recipe.eval is not None and first.recipe.eval.runs == "runs"
    data = whole()
    rlvr = stage("rlvr", data=[{"path": "sft.jsonl"}], rlvr={"value_model": "reward"})
    data["stages"].append({"name": "third", "kind": "rlvr", "recipe": rlvr})
    third = load(data).stages[-1]
    assert (third.recipe.model, third.recipe.own.value_model) == ("out/second", "out/reward")
    Path("own.yaml").write_text(yaml.safe_dump(stage("dpo", model="first")))
    data["stages"][2]["recipe"] = "own.yaml"
    assert load(data).stages[2].recipe.model == "out/first"


def bad(data: dict[str, Any], number: int = 0, **keys: Any) -> dict[str, Any]:
    data["stages"][number] = {**data["stages"][number], **keys}
    return data


def worse(number: int, **keys: Any) -> dict[str, Any]:
    data = whole()
    data["stages"][number]["recipe"] |= keys
    return data


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (lambda: whole(stagse=[]), "unknown key 'stagse', did you mean 'stages'"),
        (lambda: whole(stages=[]), "at least one"),
        (lambda: bad(whole(), kind="ppo"), "stage 'first': unknown stage 'ppo', did you mean 'dpo'"),
        (lambda: bad(whole(), nmae="x"), r"stages\[0\]: unknown key 'nmae', did you mean 'name'"),
        (lambda: bad(whole(), 1, name="first"), "a stage of that name"),
        (lambda: bad(whole(), recipe="none.yaml"), "none.yaml: no such file"),
        (lambda: worse(0, model=None), "no stage before it"),
        (lambda: worse(0, model="nowhere/at/all"), "no such folder"),
        (lambda: worse(2, dop={"beta": 1}), "stage 'second': unknown key 'dop', did you mean 'dpo'"),
        (lambda: worse(2, data=[{"path": "gone.jsonl"}]), "stage 'second': data gone.jsonl: no such file"),
        (lambda: worse(2, output="out/first"), "is also the output of a stage before it"),
        (lambda: worse(2, final=True), "the pipeline's own key"),
        (lambda: worse(2, eval={"suite": "unseen"}), "unseen suite"),
        (lambda: worse(2, gate={"margn": 1}), "unknown key 'margn', did you mean 'margin'"),
        (lambda: worse(1, gate={"margin": 1}), "gate: needs `eval`"),
        (lambda: worse(2, eval={"tasks": ["gsm8k"], "data_dir": ["gone"]}), "data_dir gone: no such folder"),
        (lambda: whole(final={"suite": "unsen"}), "unknown suite 'unsen', did you mean 'unseen'"),
        (lambda: whole(final={"suite": "unseen", "every": 2}), "final.every"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(pipeline_folder: Path, data: Any, said: str) -> None:
    refused(lambda: load(data()), said, (UsageError, ModelError))  # type: ignore[arg-type]
    assert not (pipeline_folder / "out").exists()


def test_the_line_is_that_of_the_file_that_holds_the_key(pipeline_folder: Path) -> None:
    Path("own.yaml").write_text("data: [{path: pairs.jsonl}]\ntrainer: {}\ndop: {beta: 1}\n")
    Path("pipeline.yaml").write_text(
        "stages:\n- name: first\n  kind: dpo\n  recipe: own.yaml\n"
        "- name: second\n  kind: dpo\n  recipe:\n    seed: x\n"
    )  # fmt: skip

    def read(*changes: str) -> None:
        pipeline_file.load(Path("pipeline.yaml"), ("stages.0.recipe.model=tiny", *changes))

    refused(read, "own.yaml, line 3: stage 'first': unknown key 'dop', did you mean 'dpo'", UsageError)
    Path("own.yaml").write_text("data: [{path: pairs.jsonl}]\ntrainer: {}\ndpo: {beta: 1}\n")
    refused(lambda: read("stages.0.recipe.dpo.beta=x"), "pipeline.yaml: stage 'first': dpo: beta: expected", UsageError)
    more = "stages.1.recipe.data=[{path: pairs.jsonl}]"
    refused(lambda: read(more), "pipeline.yaml, line 8: stage 'second': seed: expected a whole number", UsageError)


def test_a_value_model_is_a_stage_or_a_checkpoint(pipeline_folder: Path) -> None:
    data = whole()
    rlvr = stage("rlvr", data=[{"path": "sft.jsonl"}], rlvr={"value_model": "rewrad"})
    data["stages"].append({"name": "third", "kind": "rlvr", "recipe": rlvr})
    refused(lambda: load(data), "value_model 'rewrad'.*did you mean 'reward'", UsageError)


@pytest.mark.long
def test_the_trainers_arguments_are_checked_too(pipeline_folder: Path) -> None:
    need_trl()
    data = worse(2, trainer={**TRAINER, "learning_rat": 1})
    refused(lambda: run_pipeline.check(load(data)), "stage 'second': .*did you mean 'learning_rate'", UsageError)
    lines = "\n".join(run_pipeline.dry_run(load(whole(final={"suite": "unseen"}))))
    assert "# stage second: dpo from out/first to out/second" in lines
    assert "# at the end, once: unseen on out/second" in lines
    assert not (pipeline_folder / "out").exists()
    data = whole()
    prompts = {"data": [{"path": "sft.jsonl"}], "rlvr": {"value_model": "reward"}, "trainer": {}}
    data["stages"].append({"name": "third", "kind": "rlvr", "recipe": stage("rlvr", **prompts)})
    assert run_pipeline.check(load(data))[-1].recipe.own.value_model == "out/reward"


def stopped_before_training(
    found: pipeline_file.Pipeline, monkeypatch: pytest.MonkeyPatch, trained: int
) -> list[tuple[str, bool]]:
    """(model, whether it was there) of the evaluations of a pipeline that ends before so many stages are trained."""
    looks: list[tuple[str, bool]] = []

    def look(wanted: Any, model: str) -> evaluator.Result:
        looks.append((model, Path(model).exists()))
        return evaluator.Result(0, model, f"runs/{len(looks)}", {}, None)

    def train(one: Any, *_: Any) -> None:
        if len(list(Path("out").glob("*/trained"))) == trained:
            raise KeyboardInterrupt
        one.output.mkdir(parents=True)
        (one.output / "trained").touch()
        (one.output / lineage.FILE).write_text('{"step": 2}')

    monkeypatch.setattr(run_pipeline, "check", lambda found: list(found.stages))
    monkeypatch.setattr(run_pipeline, "evaluate", look)
    monkeypatch.setattr(run_pipeline, "_train", train)
    with pytest.raises(KeyboardInterrupt):
        run_pipeline.run(found)
    return looks


def test_the_base_is_evaluated_and_what_a_stage_with_eval_starts_from(
    pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = whole()
    data["stages"][2]["recipe"]["eval"] = data["stages"][0]["recipe"].pop("eval")
    found = load(data)
    assert stopped_before_training(found, monkeypatch, 2) == [("tiny", True), ("out/first", True)]
    shutil.rmtree("out")
    assert stopped_before_training(load(whole()), monkeypatch, 2) == [("tiny", True)]  # the first is its own stage's


def test_the_final_look_is_at_the_weights_that_are_there(
    pipeline_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []

    def look(wanted: Any, model: str) -> evaluator.Result:
        looks.append(model)
        return evaluator.Result(0, model, "runs/one", {"tulu3_gpqa": 0.5}, 0.5)

    monkeypatch.setattr(run_pipeline, "evaluate", look)
    found = load(whole(final={"tasks": ["gpqa"]}))
    shutil.copytree("tiny", "out/second")
    for _ in range(2):
        said = run_pipeline._final(found, ())
        assert said is not None and said.average == 0.5
    assert looks == ["out/second"]
    make_tiny_model(Path("out/second"), seed=3)  # the stage was trained anew
    refused(lambda: run_pipeline._final(found, ()), "taken at other weights", UsageError)
    Path("out/final.json").write_text(json.dumps({**asdict(said), "checkpoint": "out/second"}))
    refused(lambda: run_pipeline._final(found, ()), "taken at other weights", UsageError)
    assert looks == ["out/second"]


@pytest.mark.long
def test_a_pipeline_runs_once_and_says_what_each_stage_gained(pipeline_folder: Path) -> None:
    need_trl()
    make = "import sys, shutil; shutil.copy('pairs.jsonl', 'made.jsonl'); open('asked', 'a').write(sys.argv[1] + ' ')"
    data = whole(final={"tasks": ["mmlu_pro"], "limit": 1, "data": "sample"})
    data["stages"].pop(1)
    data["stages"][1]["recipe"]["data"] = [{"path": "made.jsonl"}]
    data["stages"][1]["prepare"] = {"command": ["{python}", "-c", make, "{model}"], "makes": ["made.jsonl"]}
    data["stages"][1]["recipe"]["gate"] = {"margin": 100, "inconclusive": "pass"}
    load(data)
    done = olmes("train", "run", "pipeline.yaml", tmp=pipeline_folder)
    assert done.returncode == 0, done.stderr
    assert "first      gsm8k   4" in done.stdout.replace("  ", " ").replace("  ", " ") or "gsm8k" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "gsm8k" in line)
    assert Path("asked").read_text() == "out/first "
    found = json.loads(Path("runs/gains.json").read_text())
    assert [(row["stage"], row["task"], row["n"]) for row in found["gains"]] == [
        ("first", "tulu3_gsm8k", 4), ("second", "tulu3_gsm8k", 4), ("all stages", "tulu3_gsm8k", 4)
    ]  # fmt: skip
    assert found["base"] == "tiny" and found["checkpoint"] == "out/second"
    assert all(row["p_holm"] >= row["p"] for row in found["gains"])
    assert lineage.read(Path("out/second")).ancestors[-1].stage == "sft"
    assert json.loads(Path("out/second/gate.json").read_text())["exit"] == 0
    assert "<table" in Path("runs/leaderboard.html").read_text()
    weights = Path("out/second/model.safetensors").stat().st_mtime_ns

    again = olmes("train", "run", "pipeline.yaml", tmp=pipeline_folder)
    assert again.returncode == 0 and again.stdout == done.stdout, again.stderr
    assert again.stderr.count("done already") == 2
    assert Path("out/second/model.safetensors").stat().st_mtime_ns == weights
    data["stages"][1]["recipe"]["dpo"] = {"beta": 1.0}
    load(data)
    assert "dpo.beta was 5.0 and is now 1.0" in one_line_error(
        olmes("train", "run", "pipeline.yaml", tmp=pipeline_folder)
    )
    listed = as_json(olmes("compare", "--json", "--runs", "runs", *_runs(found), tmp=pipeline_folder))
    assert listed["tasks"][0]["delta"] == found["gains"][0]["delta"]


def _runs(found: dict[str, Any]) -> list[str]:
    return [found["gains"][0]["baseline"], found["gains"][0]["candidate"]]
