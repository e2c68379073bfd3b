"""Runs in other tools' forms: what comes back by `olmes import` is what was written, and schemas hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import olmes_here

from olmes_suite import api
from olmes_suite.errors import UsageError
from olmes_suite.evaluation.exports import exporter
from olmes_suite.runs.importers import reader, write
from olmes_suite.runs.run import Run

pytestmark = pytest.mark.xdist_group("exports")  # one run for all

TASKS = ("--task", "gsm8k", "--task", "mmlu_mc_abstract_algebra", "--task", "ifeval", "--task", "olmo3_aime_2024")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of noise on sample documents: generated answers, choices, several metrics, several samples."""
    folder = tmp_path_factory.mktemp("exports")
    arguments = ("eval", "--backend", "mock", *TASKS, "--data", "sample", "--runs", folder / "runs", "--json")
    done = olmes_here(*arguments, tmp=folder)
    assert done.returncode == 0, done.stderr
    return api.load(json.loads(done.stdout)["run"], folder / "runs")


def back(kind: str, folder: Path, runs: Path) -> list[write.Imported]:
    logs = write.gather(reader(kind)(folder))
    return [write.write(log, name, runs, ["olmes"]) for log, name in zip(logs, write.names(logs, None), strict=True)]


@pytest.mark.parametrize("kind", ["lm-eval", "inspect", "every-eval-ever"])
def test_what_is_written_can_be_imported(run: Run, tmp_path: Path, kind: str) -> None:
    exporter(kind)(run, tmp_path / "out")
    (one,) = back(kind, tmp_path / "out", tmp_path / "runs")
    assert one.left_out == {}
    assert one.tasks.keys() == run.results.top_tasks.keys()
    again = api.load(one.path)
    for task, figure in one.tasks.items():
        score = run.results.tasks[task].score
        assert score is not None and figure.value == pytest.approx(score.value) and figure.note == ""
        mine, theirs = run.documents(task), again.documents(task)
        assert len(mine) == len(theirs)
        if kind == "lm-eval":
            assert list(mine["doc_id"]) == list(theirs["doc_id"]) and list(mine["score"]) == list(theirs["score"])
    assert set(run.responses("gsm8k")["text"]) == set(again.responses("tulu3_gsm8k")["text"])


@pytest.mark.data
def test_records_are_valid_by_the_schema(run: Run, tmp_path: Path, data_dir: Path) -> None:
    import jsonschema

    schema = data_dir.parent / "logs/every_eval_ever/schemas/eval.schema.json"
    if not schema.is_file():
        pytest.skip("no schema of Every Eval Ever beside the mirror")
    validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
    files = exporter("every-eval-ever")(run, tmp_path)
    for file in files[::2]:
        assert [error.message for error in validator.iter_errors(json.loads(file.read_text()))] == []
    rows = [json.loads(line) for line in files[1].read_text().splitlines()]
    assert len(rows) == 4 and rows[0]["output"]["raw"] and rows[0]["input"]["raw"].startswith("Question: A baker")


def test_tables(run: Run, tmp_path: Path) -> None:
    import pandas as pd

    exporter("csv")(run, tmp_path / "t.csv")
    frame = pd.read_csv(tmp_path / "t.csv")
    primary = frame[frame["primary"]].set_index("name")
    for task, entry in run.results.top_tasks.items():
        assert entry.score is not None and primary.loc[task, "value"] == pytest.approx(entry.score.value)
    assert {"prompt_level_strict_acc", "inst_level_loose_acc"} <= set(frame["metric"])
    exporter("markdown")(run, tmp_path / "t.md")
    assert "| gsm8k | exact_match | 4 | 0.0 | 0.0–49.0 |" in (tmp_path / "t.md").read_text()
    exporter("latex")(run, tmp_path / "t.tex")
    assert r"gsm8k & exact\_match & 4 & 0.0 & 0.0--49.0 \\" in (tmp_path / "t.tex").read_text()


def real(run: Run, folder: Path) -> Run:
    """The run as if a checkpoint had answered real documents."""
    path = folder / run.name
    shutil.copytree(run.path, path)
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    manifest["engine"]["backend"], manifest["sample"], manifest["model"]["path"] = "hf", False, "org/model"
    (path / "manifest.json").write_text(json.dumps(manifest))
    return Run(path)


def test_a_model_card_keeps_its_text(run: Run, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# My model\n\nText.\n")
    files = exporter("hub")(real(run, tmp_path / "runs"), tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.license == "apache-2.0" and "# My model\n\nText." in card.text
    by_name = {result.dataset_name: result for result in card.data.eval_results}
    assert by_name["gsm8k"].metric_value == 0.0 and by_name["gsm8k"].dataset_type == "openai/gsm8k"
    assert "id: openai/gsm8k" in files[1].read_text()
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(UsageError, match="metadata cannot be read"):
        exporter("hub")(real(run, tmp_path / "more"), tmp_path)


def test_bad_usage_is_one_line(run: Run, tmp_path: Path) -> None:
    cases = [
        (("--to", "inspekt", "--out", tmp_path / "x"), "did you mean 'inspect'"),
        (("--to", "csv", "--out", tmp_path), "is a folder"),
        (("--to", "hub", "--out", tmp_path / "x"), "sample documents"),
    ]
    for arguments, message in cases:
        done = olmes_here("export", run.name, "--runs", run.path.parent, *arguments, tmp=tmp_path)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    done = olmes_here(
        "export", run.name, "--runs", run.path.parent, "--to", "csv", "--out", tmp_path / "a/b.csv", tmp=tmp_path
    )
    assert done.returncode == 0 and (tmp_path / "a/b.csv").is_file()
