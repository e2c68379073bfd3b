"""The best checkpoint: by the average of what `eval` names, whole, and there after a kill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import ROOT
from train_fixture import make_recipe, need_trl, sft_rows, weights, write_rows

from olmes_suite.files import write_json, write_text
from olmes_suite.models.local.checkpoint import check_folder
from train_plugins.checkpoints import adapters, evaluator, lineage
from train_plugins.config.evaluation import Evaluation
from train_plugins.running.train_stage import run
from train_plugins.stages import registry


def checkpoint(output: Path, step: int) -> Path:
    """A checkpoint's folder of which only the step can be told."""
    folder = output / f"checkpoint-{step}"
    write_text(folder / "model.safetensors", str(step))
    write_json(folder / lineage.FILE, {"step": step})
    return folder


class Told(evaluator.Evaluator):
    """Evaluates by a table of scores in place of a process."""

    def __init__(self, scores: dict[int, tuple[float | None, ...]], output: Path, **keys: Any) -> None:
        super().__init__(Evaluation(**{"tasks": ("a", "b"), "every": 1, "runs": "runs", **keys}), output)
        self.scores, self.called = scores, list[str]()

    def _call(self, line: list[str]) -> tuple[str, str, int]:
        folder = line[line.index("--model") + 1]
        self.called.append(folder)
        values = self.scores[int(folder.rpartition("step")[2])]
        tasks = {name: {"primary": "m", "metrics": {"m": {"value": v}}} for name, v in zip("ab", values, strict=True)}
        return json.dumps({"run": "x", "model": "m", "path": "runs/x", "tasks": tasks}), "", 0


SCORES: dict[int, tuple[float | None, ...]] = {1: (0.9, 0.0), 2: (0.4, 0.6), 3: (1.0, None), 4: (0.5, 0.5)}


def evaluated(output: Path, steps: tuple[int, ...] = (1, 2, 3, 4)) -> Told:
    """An evaluator that has seen the checkpoints of these steps."""
    told = Told(SCORES, output)
    for step in steps:
        told._periodic(checkpoint(output, step))
        told.wait()
    told.close()
    return told


def test_the_average_of_all_tasks_decides_and_the_earlier_of_equals(tmp_path: Path) -> None:
    told = evaluated(tmp_path)
    best = told.best()
    assert best is not None and (best.step, best.average) == (2, 0.5)  # 3 lacks a task's score, 4 is no better
    assert told.best_folder(best) == tmp_path / evaluator.BEST
    assert (tmp_path / evaluator.BEST / "model.safetensors").read_text() == "2"
    shutil.rmtree(tmp_path / "checkpoint-2")  # rotated away
    assert (told.best_folder(best) / "model.safetensors").read_text() == "2"


def test_a_group_counts_once_in_the_average() -> None:
    def entry(value: float, **more: Any) -> dict[str, Any]:
        metrics = {"exact_match": {"value": value, "stderr": 0.1, "ci95": None}}
        return {"n": 4, "primary": "exact_match", "metrics": metrics, "clean": None, "flags": {}, **more}

    parts = {f"tulu3_mmlu_{name}": entry(value) for name, value in (("a", 0.4), ("b", 0.5), ("c", 0.6))}
    tasks = {"tulu3_mmlu": entry(0.5, subtasks=list(parts)), **parts, "tulu3_gsm8k": entry(0.9)}
    printed = {"schema": "1.0", "run": "r", "model": "m", "tasks": tasks, "suites": {}, "path": "runs/r"}
    result = evaluator.judged(json.dumps(printed), "", 0, "checkpoint-1", 1)
    assert result.tasks == {"tulu3_mmlu": 0.5, "tulu3_gsm8k": 0.9}
    assert result.average == pytest.approx(0.7)


def test_a_resumed_stage_knows_its_best(tmp_path: Path) -> None:
    evaluated(tmp_path, (1, 2))
    shutil.rmtree(tmp_path / "checkpoint-2")
    again = Told(SCORES, tmp_path)
    again.catch_up()
    again._periodic(checkpoint(tmp_path, 4))
    again.wait()
    again.close()
    best = again.best()
    assert best is not None and best.step == 2 and len(again.called) == 1
    assert (again.best_folder(best) / "model.safetensors").read_text() == "2"


def test_a_kill_before_the_best_was_put_away(tmp_path: Path) -> None:
    evaluated(tmp_path, (1, 2))
    shutil.rmtree(tmp_path / evaluator.BEST)
    (tmp_path / "checkpoint-1").rename(tmp_path / evaluator.BEST)  # what was best before
    write_text(tmp_path / evaluator.LINKS / f"{tmp_path.name}-step2/model.safetensors", "torn")
    again = Told(SCORES, tmp_path)
    best = again.best()
    assert best is not None and again.best_folder(best) == tmp_path / "checkpoint-2"
    again.catch_up()
    again.wait()
    again.close()
    assert (tmp_path / evaluator.BEST / "model.safetensors").read_text() == "2"
    assert not again.called and not list((tmp_path / evaluator.LINKS).iterdir())


def test_a_checkpoint_that_was_rotated_away_before_its_turn(tmp_path: Path) -> None:
    evaluated(tmp_path, (1,))
    evaluator.link(checkpoint(tmp_path, 2), tmp_path / evaluator.LINKS / f"{tmp_path.name}-step2")
    shutil.rmtree(tmp_path / "checkpoint-2")
    again = Told(SCORES, tmp_path)
    again.catch_up()
    again.wait()
    again.close()
    best = again.best()
    assert best is not None and best.step == 2 and again.best_folder(best) == tmp_path / evaluator.BEST


def test_scores_of_another_question_are_not_compared(tmp_path: Path) -> None:
    evaluated(tmp_path, (1, 2))
    other = Told({1: (0.2, 0.2), 2: (0.1, 0.1)}, tmp_path, limit=7)
    assert other.best() is None
    other.catch_up()
    other.wait()
    other.close()
    best = other.best()
    assert best is not None and (best.step, best.average) == (1, 0.2)
    assert [one.step for one in evaluator.read_results(tmp_path / evaluator.FILE)] == [1, 2]
    assert (tmp_path / evaluator.BEST / "model.safetensors").read_text() == "1"


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [{}, {"lora": {"r": 4}}])
def test_the_best_of_a_real_stage(
    train_folder: Path, adapter: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """mc2 is a probability, so that every checkpoint has a score of its own."""
    need_trl()
    import pyarrow as pa
    import pyarrow.parquet as pq
    from stop_after import StopAfter

    file = train_folder / "data/truthfulqa/truthful_qa/multiple_choice/validation.parquet"
    file.parent.mkdir(parents=True)
    lines = (ROOT / "tasks/truthfulqa/sample.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    rows = [{k: v for k, v in json.loads(line).items() if k not in ("config", "split")} for line in lines]
    pq.write_table(pa.Table.from_pylist(rows), file)
    asked = {"tasks": ["tulu3_truthfulqa"], "limit": 3, "every": 1, "data_dir": [str(train_folder / "data")],
             "runs": str(train_folder / "runs")}  # fmt: skip
    trainer = {"learning_rate": 2e-2, "lr_scheduler_type": "constant", "save_steps": 1, "save_total_limit": 1}
    data = write_rows(train_folder / "rows.jsonl", sft_rows(16))
    made = make_recipe("sft", train_folder, data, eval=asked, trainer=trainer, **adapter)
    with pytest.raises(KeyboardInterrupt):
        run(registry.find("sft"), made, False, [StopAfter(3)])
    out = run(registry.find("sft"), made, True)
    results = {one.step: one for one in evaluator.read_results(out / evaluator.FILE)}
    assert sorted(results) == [1, 2, 3, 4] and all(one.error is None for one in results.values())
    scores = {}
    for step, one in results.items():
        found = json.loads((Path(str(one.run)) / "results.json").read_text(encoding="utf-8"))
        scores[step] = found["tasks"]["tulu3_truthfulqa"]["metrics"]["mc2"]["value"]
    assert len(set(scores.values())) == 4, scores
    wanted = max(scores, key=lambda step: scores[step])
    assert wanted < 4, scores  # or the output itself were the best
    best = out / evaluator.BEST
    assert f"best checkpoint: step {wanted}, {best}" in capsys.readouterr().err
    check_folder(best)
    assert not adapters.is_adapter(best) and not list(best.glob("adapter_*")) and lineage.read(best).step == wanted
    moved, base = weights(best), weights(train_folder / "tiny")
    assert moved.keys() == base.keys() and any(bool((moved[name] != base[name]).any()) for name in base)
    if not adapter:
        return
    adapters.merge(out / "checkpoint-4", train_folder / "last")
    assert any(bool((moved[name] != value).any()) for name, value in weights(train_folder / "last").items())
