"""Rows of a sweep: checkpoints of equal names, and recipes that differ in a few keys."""

from __future__ import annotations

from pathlib import Path

import pytest
from board_store import Made, make
from board_text import ONE

from leaderboard import board, reading, sweeps
from olmes_suite.cli.main import run as olmes
from olmes_suite.runs.names import distinct


@pytest.mark.parametrize(
    ("names", "paths", "shown"),
    [
        (["run", "run"], ["sweep/lr1e-4/run", "sweep/lr1e-3/run"], ["lr1e-4/run", "lr1e-3/run"]),
        (["run", "run"], ["/a/s1/run", "/b/s1/run"], ["a/s1/run", "b/s1/run"]),
        (["run", "run", "x"], ["a/run", "a/run", "b/x"], ["run", "run", "x"]),
        (["run", "run", "run"], ["a/run", "a/run", "b/run"], ["a/run", "a/run", "b/run"]),
        (["run", "run"], ["run", "b/run"], ["run", "b/run"]),
        (["run", "run", "b/run"], ["a/run", "b/run", "c/b/run"], ["a/run", "b/run", "c/b/run"]),
        (["step-5", "step-5"], ["/x/a/step-5", "/x/b/step-5"], ["a/step-5", "b/step-5"]),
        (["a/step-5", "a/step-5"], ["/x/a/step-5", "/y/a/step-5"], ["x/a/step-5", "y/a/step-5"]),
        (["mine", "mine"], ["/x/a", "/x/b"], ["mine (a)", "mine (b)"]),
        (["m", "m"], ["one/m", "two/m"], ["one/m", "two/m"]),
        (["run", "run"], ["", ""], ["run", "run"]),
    ],
)
def test_equal_names_are_lengthened_until_they_differ(names: list[str], paths: list[str], shown: list[str]) -> None:
    assert distinct(names, paths) == shown


def sweep(runs: Path, *rates: float) -> None:
    for number, rate in enumerate(rates):
        out = f"sweep/lr{rate}/run"
        recipe = {"model": "base", "output": out, "seed": 42, "trainer": {"learning_rate": rate}}
        lineage = {"parent": "base", "stage": "sft", "step": 10, "recipe": recipe}
        make(runs, Made(f"run-{number}", out, ONE, started=number + 1.0, lineage=lineage))


def test_rows_of_a_sweep_have_names_and_keys_of_their_own(tmp_path: Path) -> None:
    sweep(tmp_path, 0.0001, 0.001)
    made = board.make(*reading.read_store(tmp_path), [])
    assert [(row.name, row.recipe) for row in made.rows] == [
        ("lr0.001/run", "learning_rate 0.001"), ("lr0.0001/run", "learning_rate 0.0001"),
    ]  # fmt: skip
    out = tmp_path / "board.html"
    assert olmes(["leaderboard", "--runs", str(tmp_path), "--out", str(out)]) == 0
    text = out.read_text(encoding="utf-8")
    assert "<bdi>lr0.001/run</bdi>" in text and "step 10 · learning_rate 0.001" in text


def test_recipes_of_one_row_or_of_equal_keys_show_nothing(tmp_path: Path) -> None:
    sweep(tmp_path, 0.001)
    assert board.make(*reading.read_store(tmp_path), []).rows[0].recipe == ""


def test_many_keys_are_cut() -> None:
    assert sweeps._text({"a.x": "1", "a.y": "2", "z": "3"}, ["a.x", "a.y", "z", "w"]) == "x 1, y 2, z 3, …"


def test_a_comparison_of_runs_of_equal_names_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("one", "two"):
        make(tmp_path / folder, Made("run-dev", "m", ONE))
    assert olmes(["compare", str(tmp_path / "one/run-dev"), str(tmp_path / "two/run-dev"), "--markdown"]) == 0
    assert "**two/run-dev** against **one/run-dev**" in capsys.readouterr().out
