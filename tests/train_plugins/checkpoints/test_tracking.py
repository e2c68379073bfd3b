"""Reports of a stage to trackers: a curve of its checkpoints, the verdict, rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gate_runs import table, write_scores
from kept_tracker import Kept, tables, use
from rlvr_fixture import make_rlvr, prompt_rows
from train_fixture import make_recipe, refused, sft_rows, write_rows

from olmes_suite import api, extras
from olmes_suite.errors import UsageError
from olmes_suite.runs.imports import import_scores
from olmes_suite.trackers.factory import BUILT_IN
from olmes_suite.trackers.session import FILE
from train_plugins.checkpoints import evaluator, gate
from train_plugins.checkpoints.evaluator import Evaluator, Result
from train_plugins.checkpoints.tracking import Tracking
from train_plugins.config.evaluation import Evaluation
from train_plugins.config.recipe import Recipe
from train_plugins.running.dry_run import dry_run
from train_plugins.running.train_stage import run
from train_plugins.stages import registry


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> type[Kept]:
    """The tracker `kept`, which is reported to."""
    return use(monkeypatch)


@pytest.fixture
def stage(tmp_path: Path) -> tuple[Recipe, Path]:
    """A recipe and its output folder."""
    output = tmp_path / "my-sft"
    output.mkdir()
    return Recipe("base", (), str(output), kind="sft"), output


def result(output: Path, step: int, wins: int, last: bool = False) -> Result:
    """The evaluation of a checkpoint, with a run of imported scores."""
    scores = table(wins, 0, 100)[1] if last else table(0, 100 - wins, 100)[1]
    file = write_scores(output.parent / f"{step}.jsonl", {"x": scores})
    run = import_scores(file, f"step-{step}", output.parent / "runs", ["olmes"])
    checkpoint = output if last else output / f"checkpoint-{step}"
    return Result(step, str(checkpoint), str(run), {"x": 0.5}, wins / 100)


def test_the_checkpoints_draw_a_curve_and_the_last_one_shows_its_answers(
    kept: type[Kept], stage: tuple[Recipe, Path]
) -> None:
    recipe, output = stage
    first = Tracking(("kept",), recipe, output)
    for step in (10, 20):
        first.evaluated(result(output, step, step))
    first.close()
    again = Tracking(("kept",), recipe, output)  # a resumed stage
    again.evaluated(Result(25, "c", None, {}, None, "failed"))
    again.evaluated(result(output, 30, 100, last=True))
    report = api.gate("step-10", "step-30", runs=output.parent / "runs").report
    again.judged(report, 30)
    again.close()
    assert list(kept.runs) == ["my-sft#0"] and (output / FILE).is_file()
    curve = [(step, scores["average/all_tasks"]) for scores, step in kept.received("my-sft#0", "scores")[:3]]
    assert curve == [(10, 0.1), (20, 0.2), (30, 1.0)]
    steps = {name: [s for one, s in kept.received("my-sft#0", "table") if one.name == name] for name in
             ("scores", "wrong_answers", "gate")}  # fmt: skip
    assert steps == {"scores": [10, 20, 30], "wrong_answers": [30], "gate": [30]}
    assert kept.received("my-sft#0", "facts")[-1][0]["gate"] == "pass"


def test_a_tracker_that_is_named_later_gets_what_was_found_before(kept: type[Kept], stage: tuple[Recipe, Path]) -> None:
    recipe, output = stage
    judge = Evaluator(Evaluation(tasks=("x",)), output)
    judge.done = [
        Result(one.step, one.checkpoint, one.run, one.tasks, one.average, asked=judge.asked)
        for one in (result(output, 10, 10), result(output, 20, 20))
    ]
    for _ in range(2):
        tracking = Tracking(("kept",), recipe, output)
        tracking.follow(judge)
        tracking.close()
    assert [step for _, step in kept.received("my-sft#0", "scores")] == [10, 20]


@pytest.mark.parametrize("broken", ["start", "scores", "finish"])
def test_a_tracker_that_fails_costs_nothing(
    kept: type[Kept], stage: tuple[Recipe, Path], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], broken: str,
) -> None:  # fmt: skip
    recipe, output = stage
    monkeypatch.setattr(kept, "broken", broken)
    tracking = Tracking(("kept",), recipe, output)
    tracking.evaluated(result(output, 10, 10))
    tracking.evaluated(Result(20, "c", str(output / "gone"), {}, None))
    tracking.close()
    lines = capsys.readouterr().err.splitlines()
    assert sum("kept: warning: the report was not sent: ConnectionError" in line for line in lines) == 1
    assert sum(line.startswith("warning: step 20 is not reported: ") for line in lines) == 1


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_missing_client_of_the_recipe_is_one_line_with_its_extra(
    train_folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    rows = write_rows(train_folder / "rows.jsonl", sft_rows(4))
    one = make_recipe("sft", train_folder, rows, trainer={"report_to": name})
    monkeypatch.setattr(extras, "installed", lambda module: module not in BUILT_IN)
    monkeypatch.setattr("train_plugins.trainers.trial.find_spec", lambda name: None)
    said = rf"trainer.report_to {name} needs packages .* \({name}\): pip install 'olmes-suite\[{name}\]'"
    refused(lambda: run(registry.find("sft"), one), said, UsageError)
    refused(lambda: dry_run(registry.find("sft"), one), said, UsageError)


def test_the_command_checks_the_trackers_before_the_recipe(cli: Any) -> None:
    for more in ((), ("--dry-run",), ("--launcher", "accelerate", "--num-processes", "2")):
        status, out, err = cli("train", "sft", "recipe.yaml", "--report-to", "wndb", *more)
        assert (status, out, len(err.splitlines())) == (2, "", 1) and "unknown tracker 'wndb'" in err


@pytest.mark.long
def test_a_stage_reports_its_scores_and_verdict(
    train_folder: Path, kept: type[Kept], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = {step: result(train_folder / "out", step, step, last=step == 2) for step in (1, 2)}

    def ask(self: Evaluator, folder: Path, checkpoint: Path, step: int, live: str | None = None) -> None:
        self.done = [*self.done, Result(step, str(checkpoint), runs[step].run, {"x": 0.5}, 0.5, asked=self.asked)]
        assert self.told is not None
        self.told(self.done[-1])

    monkeypatch.setattr(Evaluator, "_evaluate", ask)
    monkeypatch.setattr(evaluator, "evaluate", lambda *_: runs[1])
    rows = write_rows(train_folder / "rows.jsonl", sft_rows(8))
    wanted = make_recipe(
        "sft", train_folder, rows, trainer={"max_steps": 2, "save_steps": 1}, gate={"margin": 5},
        eval={"tasks": ["gsm8k"], "every": 1, "data": "sample"},
    )  # fmt: skip
    run(registry.find("sft"), wanted, report_to=("kept",))
    assert list(kept.runs) == ["out#0"] and "a client prints" not in capsys.readouterr().out
    assert [step for _, step in kept.received("out#0", "scores")][:2] == [1, 2]
    assert (train_folder / "out" / gate.FILE).is_file() and "gate" in tables(kept, "out#0")


@pytest.mark.long
def test_rlvr_reports_rollouts_at_each_checkpoint(rlvr_folder: Path, kept: type[Kept]) -> None:
    wanted = make_rlvr(rlvr_folder, "grpo", prompt_rows(8), trainer={"max_steps": 2, "save_steps": 1})
    run(registry.find("rlvr"), wanted, report_to=("kept",))
    (name,) = kept.runs
    found = [(one, step) for one, step in kept.received(name, "table") if one.name == "rollouts"]
    assert [step for _, step in found] == [1, 2]
    columns = found[-1][0].columns
    assert columns[:3] == ("prompt", "response", "advantage") and len(columns) > 3
    assert all("Name the number" in str(row[0]) and isinstance(row[2], float) for row in found[-1][0].rows)
