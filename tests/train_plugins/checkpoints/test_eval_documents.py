"""Documents of a stage's evaluation: their lack is said before a model is loaded, and samples stand in for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import olmes, one_line_error, write_gsm8k
from train_fixture import make_recipe, need_trl, refused, sft_rows, write_rows

from olmes_suite.errors import UsageError
from train_plugins.checkpoints import eval_command, eval_documents, lineage
from train_plugins.config.evaluation import Evaluation
from train_plugins.config.recipe import Recipe
from train_plugins.running.dry_run import dry_run, shown
from train_plugins.running.train_stage import run
from train_plugins.stages import registry

LACK = "eval: gsm8k cannot be evaluated: data set openai/gsm8k .* not found as .*olmes data pull --task tulu3_gsm8k"


def wanted(folder: Path, **evaluation: Any) -> Recipe:
    rows = write_rows(folder / "rows.jsonl", sft_rows(8))
    return make_recipe("sft", folder, rows, eval={"tasks": ["gsm8k"], "runs": str(folder / "runs"), **evaluation})


def test_their_lack_is_said_before_the_model_is_loaded(train_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_trl()
    monkeypatch.setattr("train_plugins.running.train_stage._trainer", lambda *_: pytest.fail("the model is loaded"))
    recipe, stage = wanted(train_folder), registry.find("sft")
    refused(lambda: run(stage, recipe), f"sft.yaml: {LACK}.*`data: sample` under eval", UsageError)
    assert not (train_folder / "out").exists()
    said = "note: not on this machine: .*" + LACK
    assert re.search(said, "\n".join(dry_run(stage, recipe)))
    notes, _ = shown(stage, recipe, 1, colour=False)
    assert any("gsm8k cannot be evaluated" in note for note in notes)


@pytest.mark.long
def test_the_command_ends_with_status_2_and_one_line(train_folder: Path) -> None:
    need_trl()
    wanted(train_folder)
    done = olmes("train", "sft", str(train_folder / "sft.yaml"), tmp=train_folder)
    assert done.returncode == 2 and "gsm8k cannot be evaluated" in one_line_error(done)


def test_all_tasks_are_asked_and_those_without_are_named(tmp_path: Path) -> None:
    asked = Evaluation(tasks=("gsm8k", "popqa", "truthfulqa"), data_dir=(str(write_gsm8k(tmp_path)),))
    lacking, number = eval_documents.lacks(asked, "m")
    assert list(lacking) == ["popqa", "truthfulqa"] and number == 3
    refused(lambda: eval_documents.check(asked, "m", "x"), "x: popqa cannot .*also without documents: truthfulqa.*skip")
    eval_documents.check(Evaluation(tasks=("gsm8k",), data_dir=asked.data_dir), "m", "x")


def test_tasks_without_may_be_left_out_but_not_all(tmp_path: Path) -> None:
    asked = Evaluation(tasks=("gsm8k", "popqa"), data_dir=(str(write_gsm8k(tmp_path)),), missing="skip")
    (said,) = eval_documents.check(asked, "m", "x")
    assert said.startswith("x: popqa cannot be evaluated: ") and said.endswith(
        "the other tasks are evaluated (`missing: skip`)"
    )
    assert eval_documents.notes(asked, "m", "x") == [f"note: {said}"]
    none = Evaluation(tasks=("popqa",), data_dir=asked.data_dir, missing="skip")
    refused(lambda: eval_documents.check(none, "m", "x"), "x: popqa cannot be evaluated: .*`data: sample`")
    assert "missing" not in eval_command.asked(Evaluation(tasks=("popqa",)))


def test_sample_documents_ship_with_the_tasks() -> None:
    asked = Evaluation(suite="quick", data="sample")
    assert eval_documents.lacks(asked, "m")[0] == {}
    line = eval_command.command(asked, "m")
    assert line[line.index("--data") + 1] == "sample" and "--data" not in eval_command.command(Evaluation(), "m")
    scores = {"step": 1, "tasks": {}, "average": 1.0, "asked": eval_command.asked(asked)}
    assert "| 1 | average | 100.0 (sample documents) |" in lineage._score_lines([scores])
    assert eval_command.asked(asked) != eval_command.asked(Evaluation(suite="quick"))  # never averaged together


def test_a_recipe_names_them(train_folder: Path) -> None:
    recipe = wanted(train_folder, data="sample")
    assert recipe.eval is not None and recipe.as_data()["eval"]["data"] == "sample"
    assert "data" not in wanted(train_folder).as_data()["eval"]
    refused(lambda: wanted(train_folder, data="samples"), "eval: data: expected sample, not 'samples'", UsageError)


@pytest.mark.long
def test_a_pipeline_asks_for_those_of_all_its_evaluations(train_folder: Path) -> None:
    need_trl()
    rows = str(write_rows(train_folder / "rows.jsonl", sft_rows(8)))
    mirror = str(write_gsm8k(train_folder / "mirror"))
    first = {"model": str(train_folder / "tiny"), "data": [{"path": rows}], "chat_template": "tulu"}
    first["eval"] = {"tasks": ["gsm8k"], "data_dir": [mirror]}
    pipeline = {"stages": [{"name": "first", "kind": "sft", "recipe": first}], "final": {"tasks": ["popqa"]}}
    file = train_folder / "pipeline.yaml"
    file.write_text(yaml.safe_dump({**pipeline, "output": str(train_folder / "out")}), encoding="utf-8")
    planned = olmes("train", "run", str(file), "--dry-run", tmp=train_folder)
    assert planned.returncode == 0 and "# note: not on this machine: " in planned.stdout, planned.stderr
    done = olmes("train", "run", str(file), tmp=train_folder)
    assert done.returncode == 2 and "pipeline.yaml: final: popqa cannot be evaluated" in one_line_error(done)
    assert not (train_folder / "out").exists()
