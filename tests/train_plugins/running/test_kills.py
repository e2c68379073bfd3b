"""Killed outright and started again: stages in two processes, pipelines in a stage."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import killer
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from helpers import olmes, one_line_error
from models_fixture import make_tiny_model
from rlvr_fixture import prompt_rows
from train_fixture import need_trl, pair_rows, sft_rows, weights, write_rows

from train_plugins.checkpoints import lineage, resume
from train_plugins.checkpoints.evaluator import FILE as EVALUATIONS

need_trl()

TRAINER = {"learning_rate": 1e-3, "per_device_train_batch_size": 2, "num_train_epochs": 2, "logging_steps": 1,
           "save_steps": 1, "gradient_checkpointing": False}  # fmt: skip


@pytest.fixture(scope="module")
def kills_folder(tmp_path_factory: pytest.TempPathFactory, rlvr_checkpoints: Path) -> Path:
    """The policy and the reward model, in a folder for the recipes and outputs of all stages."""
    return Path(shutil.copytree(rlvr_checkpoints, tmp_path_factory.mktemp("kills"), dirs_exist_ok=True))


def write_recipe(folder: Path, name: str) -> tuple[Path, str]:
    """The recipe of a stage in two processes, and its kind. RLVR: two rollouts, four passes over each."""
    kind = name if name in ("sft", "dpo") else "rlvr"
    rows = {"sft": sft_rows(12), "dpo": pair_rows(12), "ppo": prompt_rows(8), "grpo": prompt_rows(2)}[name]
    data = write_rows(folder / f"{name}.jsonl", rows)
    whole: dict[str, Any] = {"model": str(folder / "tiny"), "chat_template": "tulu", "batch_size": 4,
                             "data": [{"path": str(data)}], "trainer": {**TRAINER, "max_length": 256}}  # fmt: skip
    if kind == "rlvr":
        value = {"value_model": str(folder / "reward")} if name == "ppo" else {}
        group = {} if name == "ppo" else {"num_generations": 4}
        own = {"per_device_train_batch_size": 4, "num_iterations": 4, "max_completion_length": 12}
        whole |= {"batch_size": 8, "trainer": {**TRAINER, **own, **group},
                  "rlvr": {"algorithm": name, "workers": 1, **value}}  # fmt: skip
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(whole))
    return file, kind


def together(folder: Path, name: str, output: Path, *rest: str, **env: str) -> Any:
    """Run a stage in two processes."""
    file, kind = write_recipe(folder, name)
    two = ("--output", str(output), "--launcher", "accelerate", "--num-processes", "2")
    return olmes("train", kind, file, *two, *rest, tmp=folder, **env)


def same_weights(one: Path, other: Path) -> bool:
    """The checkpoints hold the same tensors, bit for bit."""
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    return all(bool((first[name] == second[name]).all()) for name in first)


@pytest.mark.parametrize(
    ("name", "kill"),
    [
        pytest.param("sft", 4, marks=pytest.mark.slow),
        pytest.param("dpo", 2, marks=pytest.mark.slow),
        pytest.param("grpo", 6, marks=pytest.mark.slow),
        pytest.param("ppo", 6, marks=pytest.mark.slow),
    ],
)
def test_two_processes_killed_end_as_unbroken_ones(kills_folder: Path, name: str, kill: int) -> None:
    whole, broken = kills_folder / f"{name}-whole", kills_folder / f"{name}-broken"
    done = together(kills_folder, name, whole)
    assert done.returncode == 0, done.stderr
    kind = name if name in ("sft", "dpo") else "rlvr"
    env = {"PYTHONPATH": killer.install(kills_folder / "plugin"), "KILL": f"{kind}:checkpoint-{kill}",
           "KILL_COMMAND": f"train {kind}"}  # fmt: skip
    assert together(kills_folder, name, broken, **env).returncode == -9
    assert not (broken / "config.json").exists()
    assert lineage.whole_checkpoints(broken)[-1].name == f"checkpoint-{kill}"
    if name == "dpo":
        with resume.lock(broken):
            assert "is being written by process" in one_line_error(together(kills_folder, name, broken, "--resume"))
    done = together(kills_folder, name, broken, "--resume")
    assert done.returncode == 0, done.stderr
    assert same_weights(whole, broken) and not same_weights(whole, kills_folder / "tiny")
    if name == "ppo":
        assert same_weights(whole / "value_model", broken / "value_model")
    assert lineage.read(broken).tokens == lineage.read(whole).tokens > 0
    assert not (broken / resume.LOCK).exists()


# Pipelines ------------------------------------------------------------------------------------------------------------

SUMS = """\
task: sums
class: !function olmes_suite.tasks.task.SuiteTask
dataset_path: mine/sums
columns: {q: string}
hub: false
test_split: test
output_type: generate_until
doc_to_text: "{{q}}="
doc_to_target: ""
generation_kwargs: {until: [], max_gen_toks: 6, temperature: 0.0, do_sample: false}
process_results: !function task.score
metric_list: [{metric: length, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.0, primary: length, shots: 0, texts: [q]}
"""
SCORE = """\
import killer
from olmes_suite.records import Scored
from olmes_suite.scoring import scorer

@scorer()
def score(doc, response):
    killer.at("eval")
    return Scored({"length": len(response) % 8 / 8})
"""
PREPARE = "import killer, shutil; killer.at('prepare'); shutil.copy('pairs.jsonl', 'made.jsonl')"
LOOK = {"tasks": ["sums"], "include_path": ["mine"], "data_dir": ["mirror"]}
PLACES = ("dpo:checkpoint-1",)
"""In stage 2."""


def write_pipeline(folder: Path) -> None:
    """base → SFT → DPO, each evaluated on a task of its own; data of the second stage are made between the two."""
    folder.mkdir()
    make_tiny_model(folder / "tiny")
    write_rows(folder / "sft.jsonl", sft_rows(12))
    write_rows(folder / "pairs.jsonl", pair_rows(12))
    (folder / "mine").mkdir()
    (folder / "mirror/mine/sums/default").mkdir(parents=True)
    rows = pa.table({"q": [f"{n}+{n}" for n in range(6)]})
    pq.write_table(rows, folder / "mirror/mine/sums/default/test.parquet")
    (folder / "mine/sums.yaml").write_text(SUMS)
    (folder / "mine/task.py").write_text(SCORE)
    common = {"chat_template": "tulu", "trainer": {**TRAINER, "per_device_train_batch_size": 4, "max_length": 256},
              "eval": LOOK}  # fmt: skip
    stages = [
        {"name": "first", "kind": "sft", "recipe": {"model": "tiny", "data": [{"path": "sft.jsonl"}], **common}},
        {"name": "second", "kind": "dpo", "recipe": {"data": [{"path": "made.jsonl"}], **common},
         "prepare": {"command": ["{python}", "-c", PREPARE], "makes": ["made.jsonl"]}},
    ]  # fmt: skip
    whole = {"runs": "runs", "output": "out", "stages": stages, "final": LOOK}
    (folder / "pipeline.yaml").write_text(yaml.safe_dump(whole))


def pipeline(folder: Path, monkeypatch: pytest.MonkeyPatch, kill: str = "") -> Any:
    """Run it, to its end or to the place where it is killed."""
    monkeypatch.chdir(folder)
    env = {"PYTHONPATH": killer.install(folder / "plugin"), "KILL": kill, "KILL_COMMAND": "train run",
           "HF_HOME": str(folder / "hf")}  # fmt: skip
    return olmes("train", "run", "pipeline.yaml", tmp=folder, **env)


def scores(folder: Path) -> dict[str, Any]:
    """What the pipeline found, without the names of runs, which hold hashes of paths, and without times."""
    gains = json.loads((folder / "runs/gains.json").read_text())
    rows = [{k: v for k, v in row.items() if k not in ("baseline", "candidate")} for row in gains["gains"]]
    runs = [path for path in (folder / "runs").iterdir() if (path / "results.json").is_file()]
    found = {}
    for run in runs:
        results = json.loads((run / "results.json").read_text())
        found[str(results["model"])] = {name: task["metrics"] for name, task in results["tasks"].items()}
    return {"gains": rows, "runs": found, "count": len(runs)}


def evaluations(folder: Path) -> dict[str, int]:
    """When each run's results were written."""
    return {path.parent.name: path.stat().st_mtime_ns for path in (folder / "runs").glob("*/results.json")}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines") / "whole"
    write_pipeline(folder)
    before = os.getcwd()
    with pytest.MonkeyPatch.context() as patch:
        done = pipeline(folder, patch)
    assert os.getcwd() == before and done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_killed_pipeline_ends_as_an_unbroken_one(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "whole"
    write_pipeline(broken)
    before: dict[str, int] = {}
    for place in PLACES:
        done = pipeline(broken, monkeypatch, place)
        assert done.returncode == -9, (place, done.stderr)
        now = evaluations(broken)
        assert before.items() <= now.items(), "an evaluation was repeated"
        before = now
    assert len(before) == 2  # of the base and of stage 1
    first = (broken / "out/first/model.safetensors").stat().st_mtime_ns
    done = pipeline(broken, monkeypatch)
    assert done.returncode == 0, done.stderr
    assert "stage first: done already" in done.stderr and before.items() <= evaluations(broken).items()
    assert (broken / "out/first/model.safetensors").stat().st_mtime_ns == first
    for stage in ("first", "second"):
        assert same_weights(unbroken / "out" / stage, broken / "out" / stage)
        assert len((broken / "out" / stage / EVALUATIONS).read_text().splitlines()) == 1
    assert scores(broken) == scores(unbroken) and scores(broken)["count"] == 3
    assert (broken / "runs/leaderboard.html").is_file()
