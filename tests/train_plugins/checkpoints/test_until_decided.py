"""`eval.until_decided`: the parent comes first, on all documents, and checkpoints stop when their gate is decided."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from train_fixture import make_recipe, need_trl, sft_rows, write_rows

from olmes_suite.errors import UsageError
from olmes_suite.files import write_json, write_text
from train_plugins.checkpoints import evaluator, lineage
from train_plugins.checkpoints.rivals import RULES, Rivals, rivals
from train_plugins.config.evaluation import Evaluation, UntilDecided, check_evaluation
from train_plugins.config.recipe import DataEntry, Recipe
from train_plugins.running.train_stage import run
from train_plugins.stages import registry

PROJECTED = {"value": 0.62, "stderr": 0.03, "ci95": [0.56, 0.68], "n": 60, "of": 400, "baseline": "parent"}


def task(value: float, **more: Any) -> dict[str, Any]:
    return {"primary": "m", "metrics": {"m": {"value": value, "stderr": 0.04}}, **more}


class Told(evaluator.Evaluator):
    """Notes the commands in place of running them."""

    parent_fails = False

    def _call(self, line: list[str]) -> tuple[str, str, int]:
        self.__dict__.setdefault("called", []).append(line)
        if "--until-decided" not in line:
            if self.parent_fails:
                return "", "no such folder", 2
            return json.dumps({"run": "p", "model": "m", "path": "runs/parent", "tasks": {"a": task(0.6)}}), "", 0
        tasks = {"a": task(0.7, planned=True, projected=PROJECTED), "b": task(0.5)}
        return json.dumps({"run": "x", "model": "m", "path": "runs/x", "tasks": tasks}), "", 1


def told(tmp_path: Path, given: Rivals | None) -> Told:
    return Told(Evaluation(suite="smoke", every=1), tmp_path, given)


def ask(found: Told, *steps: int) -> None:
    for step in steps:
        folder = found.output / f"checkpoint-{step}"
        write_text(folder / "model.safetensors", "w")
        write_json(folder / lineage.FILE, {"step": step})
        found._periodic(folder)
    found.wait()
    found.close()


def test_the_parent_is_asked_once_and_first(tmp_path: Path) -> None:
    found = told(tmp_path, Rivals("base-model", None, {"margin": 3}, tmp_path))
    ask(found, 1, 2)
    models = [line[line.index("--model") + 1].rpartition("-")[2] for line in found.called]
    assert models == ["model", "step1", "step2"]
    first, *checkpoints = found.called
    assert "--until-decided" not in first and "--config" not in first
    for line in checkpoints:
        assert line[line.index("--baseline") + 1] == "runs/parent"
        assert Path(line[line.index("--config") + 1]).read_text() == "margin: 3\n"


def test_averages_are_projected_and_marked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(tmp_path, Rivals(None, "runs/other", None, tmp_path))
    ask(found, 1)
    (result,) = found.results()
    assert result.tasks == {"a": 0.62, "b": 0.5} and result.average == pytest.approx(0.56) and result.projected
    assert result.stderr == pytest.approx(0.025)  # half of (0.03, 0.04) in quadrature
    assert "average 56.0 (projected to all documents)" in capsys.readouterr().err
    assert [line[line.index("--baseline") + 1] for line in found.called] == ["runs/other"]
    assert not (tmp_path / RULES).exists()
    card = lineage._score_lines([{"step": 1, "tasks": result.tasks, "average": result.average, "projected": True}])
    assert "| 1 | a | 62.0 (projected to all documents) |" in card


def test_a_parent_without_scores_is_said(tmp_path: Path) -> None:
    found = told(tmp_path, Rivals("base-model", None, None, tmp_path))
    found.parent_fails = True
    ask(found, 1)
    assert found.results()[0].error == "the parent base-model has no scores: no such folder"


def test_only_averages_of_the_same_looks_are_compared(tmp_path: Path) -> None:
    ask(told(tmp_path, Rivals("base-model", None, None, tmp_path)), 1)
    assert told(tmp_path, None).best() is None
    assert told(tmp_path, Rivals("base-model", None, {"margin": 3}, tmp_path)).best() is None
    assert told(tmp_path, Rivals("base-model", None, None, tmp_path)).best() is not None


def recipe(**keys: Any) -> Recipe:
    return Recipe("base-model", (DataEntry(path="rows.jsonl"),), **keys)


def test_the_recipe_names_the_baseline(tmp_path: Path) -> None:
    parent = Evaluation(suite="smoke", until_decided=UntilDecided())
    assert rivals(recipe(eval=parent, gate="gate.yaml"), tmp_path) == Rivals("base-model", None, "gate.yaml", tmp_path)
    other = Evaluation(suite="smoke", until_decided=UntilDecided("runs/r"))
    assert rivals(recipe(eval=other), tmp_path) == Rivals(None, "runs/r", None, tmp_path)
    assert rivals(recipe(eval=Evaluation(suite="smoke")), tmp_path) is None and rivals(recipe(), tmp_path) is None
    assert "until_decided" not in recipe(eval=Evaluation(suite="smoke")).as_data()["eval"]
    assert recipe(eval=parent).as_data()["eval"]["until_decided"] == {"baseline": "parent"}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"tasks": ("gsm8k",)}, "takes a `suite`"),
        ({"suite": "dev", "limit": 100}, "without `tasks` and `limit`"),
        ({"suite": "unseen"}, "final numbers come from all documents"),
    ],
)
def test_keys_that_exclude_it(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        check_evaluation(Evaluation(until_decided=UntilDecided(), **keys), True, "recipe.yaml")


@pytest.mark.slow
def test_a_real_stage_stops_its_looks(train_folder: Path) -> None:
    """Two checkpoints of a tiny model against their parent, on copies of TruthfulQA's sample documents."""
    need_trl()
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = train_folder / "data/truthfulqa/truthful_qa/multiple_choice/validation.parquet"
    file.parent.mkdir(parents=True)
    lines = (ROOT / "tasks/truthfulqa/sample.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{k: v for k, v in json.loads(line).items() if k not in ("config", "split")} for line in lines]
    rows = [{**row, "question": f"{row['question']} {copy}"} for copy in range(120 // len(rows) + 1) for row in rows]
    pq.write_table(pa.Table.from_pylist(rows[:120]), file)
    suite = train_folder / "truth.yaml"
    write_text(suite, "suite: truth\ntasks:\n  - {task: truthfulqa, skill: knowledge}\n")
    asked = {"suite": str(suite), "every": 2, "data_dir": [str(train_folder / "data")],
             "runs": str(train_folder / "runs"), "until_decided": {"baseline": "parent"}}  # fmt: skip
    data = write_rows(train_folder / "rows.jsonl", sft_rows(16))
    out = run(registry.find("sft"), make_recipe("sft", train_folder, data, eval=asked, trainer={"save_steps": 2}))
    results = evaluator.read_results(out / evaluator.FILE)
    assert [one.step for one in results] == [2, 4] and all(one.error is None for one in results)
    runs = {path.name: json.loads((path / "results.json").read_text()) for path in (train_folder / "runs").iterdir()
            if (path / "results.json").is_file()}  # fmt: skip
    (parent,) = (name for name, found in runs.items() if "stopped" not in found)
    assert runs[parent]["tasks"]["tulu3_truthfulqa"]["n"] == 120
    for one in results:
        stopped = runs[Path(str(one.run)).name]["stopped"]
        assert stopped["baseline"] == parent and stopped["looks"] and stopped["of"] == 120
        assert one.projected == (stopped["documents"] < 120)
