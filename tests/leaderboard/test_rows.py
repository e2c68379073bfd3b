"""Rows of the page: which are ranked, what tells them apart, which training made them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from board_store import Made, make
from board_text import ONE
from built_page import built

from leaderboard import apart, build, lineage
from leaderboard.page_data import Row
from olmes_suite.cli.main import run as olmes


def changed(folder: Path, **manifest: object) -> None:
    """Change keys of a made run's manifest; `engine` is merged."""
    file = folder / "manifest.json"
    found = json.loads(file.read_text())
    found["engine"] |= manifest.pop("engine", {})
    file.write_text(json.dumps(found | manifest))


def test_mock_and_sample_runs_are_marked(tmp_path):
    runs = tmp_path / "runs"
    make(runs, Made("real", "a/model", ONE, started=3.0))
    changed(make(runs, Made("posing", "a/model", ONE, started=2.0)), engine={"backend": "mock"})
    changed(make(runs, Made("gold", "a/model", ONE, started=1.5)), engine={"backend": "oracle"})
    changed(make(runs, Made("few", "a/model", ONE, started=1.0)), sample=True)
    shown = built(runs)
    rows = {run["run"]: run for run in shown.data["runs"]}
    assert [rows[name]["kind"] for name in ("real", "few", "posing", "gold")] == [
        "measured",
        "measured",
        "mock",
        "mock",
    ]
    assert [name for name, run in rows.items() if run.get("sample")] == ["few"]
    assert list(shown.rows)[:2] == ["real", "few"]  # answers without a model come after those of models
    tags = shown.text.split("<tbody>")[1]
    assert ">mock</span>" in tags and ">oracle</span>" in tags and ">sample</span>" in tags


@pytest.mark.parametrize(
    ("change", "texts"),
    [
        ({"limit": 20}, ["limit all", "limit 20"]),
        ({"seed": 7}, ["seed 1234", "seed 7"]),
        ({"engine": {"dtype": "bfloat16"}}, ["dtype none", "dtype bfloat16"]),
        ({"engine": {"chat_template": "abcdef0123456"}}, ["chat template the model's", "chat template abcdef01"]),
        ({"settings": {"gen_kwargs": {"temperature": 0.6}}}, ["temperature none", "temperature 0.6"]),
        ({"name": "other"}, ["a/model", "other"]),
        ({}, ["one", "other"]),
    ],
    ids=str,
)
def test_rows_of_one_name_show_what_differs(tmp_path, change, texts):
    runs = tmp_path / "runs"
    make(runs, Made("one", "a/model", ONE, started=2.0))
    changed(make(runs, Made("other", "a/model", ONE, started=1.0)), **change)
    rows = {row.id: row for row in build.load(runs).rows}
    made = {name: row.apart or row.name for name, row in rows.items()}
    assert [made["one"], made["other"]] == texts
    for text in made.values():
        assert text in built(runs).text.replace("&#39;", "'")


def test_rows_of_different_names_are_as_they_were():
    rows = [Row("a", "one", "measured"), Row("b", "other", "measured")]
    assert apart.told_apart(rows) == rows


def trained(tmp_path, name, path, step, recipe, started=1.0):
    about = {"parent": "base", "stage": "sft", "step": step, "recipe": recipe, "data": []}
    return make(tmp_path / "runs", Made(name, path, ONE, lineage=about, started=started))


def test_two_trainings_of_one_base_are_two(tmp_path):
    for training, rate in (("x", 1e-5), ("y", 1e-4)):
        recipe = {"output": f"out/{training}", "trainer": {"learning_rate": rate}}
        for step in (100, 200):
            trained(tmp_path, f"{training}-{step}", f"out/{training}/checkpoint-{step}", step, recipe, step)
    rows = {row.id: row.training for row in build.load(tmp_path / "runs").rows}
    assert rows["x-100"] == rows["x-200"] != rows["y-100"] == rows["y-200"]


@pytest.mark.parametrize(
    ("path", "step", "root"),
    [
        ("out/a/checkpoint-500", 500, "out/a"),
        ("out/a/final", 900, "out/a"),
        ("out/a-500", 500, "out/a"),
        ("out/a_step_0500", 500, "out/a"),
        ("out/a", 500, "out/a"),
        ("", None, ""),
    ],
)
def test_the_folder_of_a_training(path, step, root):
    assert lineage._without_step(path, step) == root


def test_intervals_show_their_ends(tmp_path):
    runs = tmp_path / "runs"
    folder = make(runs, Made("a", "m", ONE))
    file = folder / "results.json"
    found = json.loads(file.read_text())
    for ends, text in (([0.783, 1.0], "78–100"), ([0.981, 1.0], "98.1–100.0")):
        found["tasks"]["tulu3_gsm8k"]["metrics"]["exact_match"] |= {"value": 1.0, "ci95": ends}
        file.write_text(json.dumps(found))
        shown = built(runs).text.split("<tbody>")[1].split("</tbody>")[0]
        assert f"100.0 <i>{text}</i>" in shown and "±" not in shown


def test_an_imported_path_is_no_name(tmp_path):
    scores = tmp_path / "s.jsonl"
    scores.write_text('{"task": "t", "doc_id": 1, "score": 1}\n')
    runs = tmp_path / "runs"
    assert olmes(["import", "scores", str(scores), "--name", "x", "--runs", str(runs)]) == 0
    for file, key in (("results.json", "model"), ("manifest.json", "model")):
        found = json.loads((runs / "x" / file).read_text())
        found[key] = "/deep/down/in/folders/model-7b" if file == "results.json" else {"path": "/deep/down/model-7b"}
        (runs / "x" / file).write_text(json.dumps(found))
    assert [row.name for row in build.load(runs).rows] == ["model-7b"]
