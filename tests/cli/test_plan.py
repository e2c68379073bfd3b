"""`olmes plan`: its table, its JSON, its file, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_runs import imported, one_line

from olmes_suite.comparison import plan_file

Cli = Callable[..., tuple[int, str, str]]


def test_the_table_fits_a_terminal_and_the_json_says_the_same(cli: Cli) -> None:
    status, out, err = cli("plan", "--precision", "1", "--out", "plan.yaml")
    assert status == 0, err
    lines = out.splitlines()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[1].split() == ["task", "documents", "of", "samples", "tokens", "±", "planned", "±", "all"]
    assert any(line.startswith("! alpaca_eval is asked in full") for line in lines)
    plan = json.loads(cli("plan", "--precision", "1", "--json")[1])
    assert plan["suite"]["ci95_half"] <= 0.01
    assert plan["suite"]["ci95_half"] == pytest.approx(1.96 * plan["suite"]["stderr"], rel=1e-4)
    assert plan["tokens"] == sum(task["tokens"] for task in plan["tasks"].values())
    assert all(task.keys() >= {"documents", "of", "samples", "tokens", "ci95_half"} for task in plan["tasks"].values())
    read = plan_file.read(Path("plan.yaml"))
    assert sum(read.counts.values()) == read.documents == plan["documents"]
    assert len(read.counts) > 90 and min(read.counts.values()) >= 2


def test_a_baseline_gives_sizes_and_variances(cli: Cli) -> None:
    imported(cli, "base", {"tulu3_gsm8k": [1] * 300 + [0] * 100, "tulu3_popqa": [1, 0] * 2000})
    Path("two.yaml").write_text("suite: two\ntasks: [gsm8k, popqa]\n")
    for purpose in (("--detect", "3"), ("--precision", "3"), ("--tokens", "100k")):
        status, out, err = cli("plan", "--suite", "two.yaml", "--baseline", "base", *purpose, "--json")
        assert status == 0, err
        plan = json.loads(out)
        assert {name: task["of"] for name, task in plan["tasks"].items()} == {"tulu3_gsm8k": 400, "tulu3_popqa": 4000}
        assert plan["documents"] < 4400
        assert plan["errors_of"] == ("difference" if purpose[0] == "--detect" else "score")
    Path("gate.yaml").write_text("margin: 4\ntasks:\n  gsm8k: {required: true, margin: 4}\n")
    status, out, _ = cli("plan", "--suite", "two.yaml", "--baseline", "base", "--gate", "gate.yaml")
    assert status == 0 and "of the difference from the baseline" in out
    assert "300 tokens per answer; the baseline does not count them (gsm8k, popqa)" in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "nothing to plan for: pass one of --precision"),
        (("--precision", "1", "--tokens", "1M"), "pass only one of --precision and --tokens"),
        (("--precision", "0.2"), "out of reach: all 57,595 documents"),
        (("--precision", "-1"), "--precision must be"),
        (("--detect", "1"), "--detect needs --baseline"),
        (("--gate", "gate.yaml"), "--gate needs --baseline"),
        (("--tokens", "1k"), "the smallest plan takes"),
        (("--tokens", "many"), "--tokens many: expected a number"),
        (("--hours", "2"), "--hours needs --baseline"),
        (("--dollars", "2"), "--dollars and --model-cost go together"),
        (("--dollars", "2", "--model-cost", "none.yaml"), "none.yaml cannot be read"),
        (("--dollars", "2", "--model-cost", "-3"), "prices must be numbers"),
        (("--precision", "1", "--baseline", "nobody"), "no run 'nobody'"),
        (("--precision", "1", "--suite", "devv"), "unknown suite 'devv'"),
        (("--precision", "2", "--flips", "3"), "--flips must be a share between 0 and 1, not 3"),
    ],
)
def test_what_is_refused_is_one_line(cli: Cli, options: tuple[str, ...], words: str) -> None:
    assert words in one_line(cli("plan", *options), 2)
