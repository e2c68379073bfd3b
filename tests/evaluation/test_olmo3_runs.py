"""The development suite of OLMo 3 as a whole, on sample documents: a model that thinks, and backends without one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge_server import Reply, chat, judge_server
from thinking_model import make_thinking_model

from olmes_suite.tasks import suites

Cli = Callable[..., tuple[int, str, str]]
TASKS = [entry.task for entry in suites.load("olmo3_dev").tasks]
JUDGED = "olmo3_alpaca_eval"


def recorded(runs: Path) -> tuple[Path, dict[str, Any]]:
    """The only run, and its results."""
    (run,) = [path.parent for path in runs.glob("*/results.json")]
    return run, json.loads((run / "results.json").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_thinking_model_answers_the_whole_suite(cli: Cli, tmp_path: Path, nltk_data: None) -> None:
    model = make_thinking_model(tmp_path / "thinker", max_position_embeddings=8192)
    given = ("--backend", "hf", "--model", model, "--data", "sample", "--gen-kwargs", "max_tokens=40")
    with judge_server(lambda body, before: Reply(chat("m", {"m": -0.7, "M": -0.7}))) as served:
        judge = ("--judge", "gpt-4.1-2025-04-14", "--judge-base-url", served.url)
        status, out, err = cli("eval", "--suite", "olmo3_dev", *given, *judge)
    assert status == 0, err
    assert "the answer is read after the thought" in err
    run, results = recorded(tmp_path / "runs")
    assert all(results["tasks"][name]["n"] for name in TASKS)
    columns = re.search(r"^task +tokens thought +limit unclosed", out, re.M)
    assert columns, out
    for name in TASKS:  # the table abbreviates long names
        assert re.search(rf"^  {re.escape(name[:19])}\S* +[\d.,]+ +[\d.,]+ +[\d.]+ %", out[columns.start() :], re.M), (
            name
        )
    counted = [results["tasks"][name]["answers"] for name in TASKS]
    assert sum(one["n"] for one in counted) > 400
    assert sum(one["unclosed"] for one in counted) > 0
    sampling = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["sampling"]
    assert {one["max_tokens"] for one in sampling.values()} == {40}
    assert sampling["olmo3_aime_2024"]["samples"] == 32
    lines = [json.loads(line) for path in (run / "responses").glob("*.jsonl") for line in path.open(encoding="utf-8")]
    thoughts = [line for line in lines if line.get("thinking")]
    assert thoughts and all(line["thinking_tokens"] <= line["completion_tokens"] <= 40 for line in thoughts)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["oracle", "mock", "floor"])
def test_backends_without_a_model_are_recorded(cli: Cli, tmp_path: Path, nltk_data: None, backend: str) -> None:
    status, _, err = cli("eval", "--suite", "olmo3_dev", "--backend", backend, "--data", "sample")
    assert status == 1, err  # without a judge one task has no score, and the others have theirs
    _, results = recorded(tmp_path / "runs")
    assert "needs a judge" in results["tasks"][JUDGED]["error"]
    for name in TASKS:
        if name != JUDGED:
            task = results["tasks"][name]
            value = task["metrics"][task["primary"]]["value"]
            assert task["n"] > 0 and not task.get("error")
            assert value == 1.0 if backend == "oracle" else value < 0.5, (name, value)
