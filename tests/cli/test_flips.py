"""olmes compare: what it says about the settings of two runs, and the documents that changed."""

from __future__ import annotations

import json

import pytest
from board_store import Made, make
from board_text import ONE

from olmes_suite.cli.compare import _choices, _field, _readable
from olmes_suite.cli.main import run as olmes
from olmes_suite.comparison.compare import Comparison

SCORES = {"baseline": {"score": 0.0}, "candidate": {"score": 1.0}}


def test_one_checkpoint_in_two_settings(tmp_path, capsys):
    runs = tmp_path / "runs"
    for name, limit in (("one", None), ("other", 20)):
        make(runs, Made(name, "a/model", ONE, limit=limit))
    compare = ["compare", "one", "other", "--runs", str(runs)]
    assert olmes(compare) == 0
    assert "one checkpoint; settings that differ: limit all → 20" in capsys.readouterr().out
    assert olmes([*compare, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["one_checkpoint"] is True and told["settings"] == {"limit": ["all", "20"]}
    assert olmes([*compare, "--markdown"]) == 0
    assert "limit all → 20" in capsys.readouterr().out


def test_two_checkpoints_in_one_setting_need_no_line(tmp_path, capsys):
    runs = tmp_path / "runs"
    for name in ("one", "other"):
        make(runs, Made(name, f"a/{name}", ONE))
    assert olmes(["compare", "one", "other", "--runs", str(runs)]) == 0
    assert "settings" not in capsys.readouterr().out


def test_a_flip_shows_the_question_and_both_answers(tmp_path, capsys):
    runs = ["--runs", str(tmp_path)]
    for backend in ("mock", "oracle"):
        assert olmes(["eval", "--backend", backend, "--task", "gsm8k", "--data", "sample", *runs]) == 0
    capsys.readouterr()
    assert olmes(["compare", "mock-gsm8k", "oracle-gsm8k", *runs, "--flips", "1"]) == 0
    said = capsys.readouterr().out.split("tulu3_gsm8k · document")[1]
    assert (
        said.index("question ")
        < said.index("reference ")
        < said.index("baseline mock")
        < said.index("candidate oracle")
    )
    assert said.count("Question:") == 1  # the eight examples are left out
    assert max(map(len, said.split("\n"))) <= 80


def test_choices_stand_whole_with_both_log_likelihoods():
    flip = {
        "choices": [" Paris", " a city whose name is so long that no terminal of eighty columns has room for it"],
        "baseline": {"score": 0.0, "loglikelihoods": [-1.25, -0.5]},
        "candidate": {"score": 1.0, "loglikelihoods": [-0.5, -12.75]},
    }
    first, second = _choices(flip)[1:]
    assert first.split() == ["-1.25", "-0.50", "Paris"] and second.split()[:2] == ["-0.50", "-12.75"]
    assert len(second) <= 80 and second.endswith("…")


@pytest.mark.parametrize("choices", [None, [], [None, None]])
def test_choices_without_texts_are_numbered(choices):
    values = {"score": 0.0, "loglikelihoods": [-1.0, -2.0]}
    lines = _choices({"choices": choices, "baseline": values, "candidate": {"score": 1.0}})
    assert lines[1].split() == ["-1.00", "–", "choice", "0"]


def test_long_texts_keep_their_end_and_no_control_characters():
    lines = _field("answer", "\x1b[31mword " * 200 + "the end")
    assert len(lines) == 6 and lines[-1].endswith("the end") and "\x1b" not in "".join(lines)
    assert all(len(line) <= 80 for line in lines)
    assert _readable({"task": "t", "doc_id": 1, **SCORES}, Comparison("a", "b", ()))[1].split() == ["reference", "–"]
