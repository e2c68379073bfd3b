"""HumanEval, HumanEval+ and BigCodeBench: the reference's prompts and verdicts, canonical solutions, commands."""

from __future__ import annotations

import json
import math
import sys
from contextlib import closing
from dataclasses import replace

import pytest
from helpers import as_json, olmes_here

from olmes_suite.errors import MissingData
from olmes_suite.evaluation.canonical_solutions import rehearse
from olmes_suite.evaluation.gold_check import Checked
from olmes_suite.evaluation.plan import Leaf, TaskPlan
from olmes_suite.sandbox import Verdict
from olmes_suite.sandbox.scores import scored, verdicts
from olmes_suite.scoring.scorers import pass_at
from olmes_suite.scoring.tools import Tools
from olmes_suite.tasks import index
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task

CODE = ("tulu3_humaneval", "tulu3_humaneval_plus", "tulu3_bigcodebench", "tulu3_bigcodebench_hard")
OURS_IS_STRICTER = "variant: equal to everything"
"""The one kind of row where the reference's grader is fooled and ours is not."""


@pytest.fixture(scope="module")
def tools():
    with closing(Tools()) as made:
        try:
            made.get("sandbox")
        except MissingData as error:
            pytest.skip(str(error))
        yield made


def loaded(name, source=None):
    return load_task(index.task_file(index.index()[name]), source or DataSource(sample=True))


def test_pass_at_k_is_the_unbiased_estimator():
    for n, c, k in ((20, 3, 10), (20, 0, 10), (20, 11, 10), (20, 20, 1), (12, 1, 10), (1, 1, 1)):
        product = 1.0 if n - c < k else 1 - math.prod(1 - k / i for i in range(n - c + 1, n + 1))
        assert pass_at(k, n, c) == pytest.approx(product, abs=1e-12)
    assert pass_at(10, 9, 9) is None


def test_equal_programs_are_run_once_unless_the_sandbox_failed():
    run = []

    def check(program: str) -> Verdict:
        run.append(program)
        return Verdict("error" if program == "b" and run.count("b") == 1 else "pass", program)

    found = verdicts(["a", "b", "a", "b", "b", "c"], check)
    assert run == ["a", "b", "b", "c"]
    assert [verdict.outcome for verdict in found] == ["pass", "error", "pass", "pass", "pass", "pass"]


def test_slow_golds_may_pass_or_fail():
    expected = {"pass_at_1": {"count": 1, "slow": 1, "reason": "it is slow"}}
    for rejected, lines in (([], 1), ([2], 0), ([2, 5], 0), ([2, 5, 7], 1)):
        checked = Checked("x", "pass_at_1", 9, True, {"pass_at_1": rejected} if rejected else {}, expected=expected)
        assert len(checked.problems) == lines


def test_errors_of_the_sandbox_are_no_failures():
    whole, samples = scored([Verdict("pass"), Verdict("error", "gone"), Verdict("fail", "AssertionError")], ks=(1, 10))
    assert whole.scores == {"pass_at_1": 0.5, "pass_at_10": None}
    assert [sample.scores["pass_at_1"] for sample in samples] == [1.0, None, 0.0]
    assert samples[1].verdict == "error: gone"
    assert scored([Verdict("error")])[0].scores == {"pass_at_1": None}


@pytest.mark.parametrize("name", CODE)
def test_sample_documents_accept_their_gold(name, tools):
    task = loaded(name)
    for doc in task.task_docs:
        answers = [task.keys.gold(doc), task.keys.corrupt(doc), "    raise SystemExit(0)\n", ""]
        _, samples = task.scorer.document(doc, answers, tools.get("sandbox"))
        assert [sample.scores["pass_at_1"] for sample in samples] == [1.0, 0.0, 0.0, 0.0]


def test_twenty_samples_at_temperature():
    request = loaded("tulu3_humaneval").requests(loaded("tulu3_humaneval").task_docs[0], 0, chat=True)[0]
    assert (request.samples, request.temperature, request.top_p, request.max_tokens) == (20, 0.8, 0.95, 999999)
    greedy = loaded("tulu3_bigcodebench_hard").requests(loaded("tulu3_bigcodebench_hard").task_docs[0], 0, chat=True)[0]
    assert (greedy.samples, greedy.temperature, greedy.top_p, greedy.max_tokens) == (1, 0.0, None, 1280)


def rows(folder, file):
    for line in (folder / "examples" / file).read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["task"] in CODE:
            yield row


def test_prompts_equal_the_reference(protocol_dir, data_dir):
    tasks = {name: loaded(name, DataSource((data_dir,))) for name in CODE}
    for row in rows(protocol_dir, "prompts.jsonl"):
        task = tasks[row["task"]]
        found = task.requests(task.task_docs[row["doc_id"]], row["doc_id"], chat=True)[0]
        assert found.chat == row["messages"] and found.prefix == row["prefix"] and list(found.stop) == row["stop"]
        assert [found.max_tokens, found.temperature, found.top_p, found.samples] == [
            row["max_tokens"], row["temperature"], row["top_p"], row["samples"],
        ]  # fmt: skip


@pytest.mark.long
def test_verdicts_equal_the_reference(protocol_dir, data_dir, tools):
    tasks = {name: loaded(name, DataSource((data_dir,))) for name in CODE[:2]}
    seen = 0
    for row in rows(protocol_dir, "scores.jsonl"):
        if row["task"] not in tasks or (row["source"].startswith("variant: sleeps") or "loop" in row["source"]):
            continue
        task = tasks[row["task"]]
        answers = row.get("responses") or [row["response"]]
        found, _ = task.scorer.document(task.task_docs[row["doc_id"]], answers, tools.get("sandbox"))
        expected = {"pass_at_1": 0.0} if row["source"] == OURS_IS_STRICTER else row["expected"]
        for metric, value in expected.items():
            assert found.scores[metric] == pytest.approx(value), (row["task"], row["doc_id"], row["source"])
        seen += 1
    assert seen > 100


def test_sanitised_programs_equal_the_reference(protocol_dir):
    pytest.importorskip("tree_sitter_python")
    from olmes_suite.sandbox.sanitize import sanitize

    found = [row for row in rows(protocol_dir, "scores.jsonl") if row["task"] in CODE[2:]]
    assert len(found) > 20
    for row in found:
        assert sanitize(row["response"], "task_func") == row["extracted"], row["doc_id"]


def test_sanitised_programs():
    pytest.importorskip("tree_sitter_python")
    from olmes_suite.sandbox.sanitize import sanitize

    text = (
        "Here you are:\nimport os\nLIMIT = 3\nUNUSED = 4\ndef helper(x):\n    return x + LIMIT\n"
        "def task_func(x):\n    return helper(x)\nprint(task_func(1))\n```\nIt adds three."
    )
    assert sanitize(text, "task_func") == (
        "import os\nLIMIT = 3\ndef helper(x):\n    return x + LIMIT\ndef task_func(x):\n    return helper(x)"
    )
    assert sanitize("no code at all, only words", "task_func") == ""
    assert sanitize("", "task_func") == ""


@pytest.mark.long
def test_all_canonical_solutions_of_humaneval_pass(data_dir, tools):
    task = loaded("tulu3_humaneval", DataSource((data_dir,)))
    plan = TaskPlan("tulu3_humaneval", "pass_at_10", "mean", leaves=[Leaf(task.config.task, task, range(164))])
    said: list[str] = []
    rehearse(plan, tools, said.append)
    assert plan.error is None and "164 canonical" in said[0]
    rehearse(plan, tools, said.append)
    assert len(said) == 1, "the second time the verdicts come from the cache"


@pytest.mark.long
def test_a_failing_canonical_solution_stops_the_task(tools, monkeypatch):
    task = loaded("tulu3_humaneval")
    task.keys = replace(task.keys, gold=lambda doc: "    return 0\n")
    monkeypatch.setattr("olmes_suite.evaluation.canonical_solutions._read", lambda path: {})
    monkeypatch.setattr("olmes_suite.evaluation.canonical_solutions.write_json", lambda path, data: None)
    plan = TaskPlan("tulu3_humaneval", "pass_at_10", "mean", leaves=[Leaf(task.config.task, task, range(4))])
    rehearse(plan, tools, lambda line: None)
    assert plan.error is not None and "canonical solutions do not pass" in plan.error and plan.leaves == []


@pytest.mark.long
def test_eval_and_score_on_the_command_line(tmp_path, tools):
    asked = ("--backend", "oracle", "--task", "humaneval", "--data", "sample", "--runs", tmp_path / "runs", "--json")
    done = olmes_here("eval", *asked, tmp=tmp_path)
    found = as_json(done)
    assert found["tasks"]["tulu3_humaneval"]["metrics"]["pass_at_10"]["value"] == 1.0
    manifest = json.loads((tmp_path / "runs" / found["run"] / "manifest.json").read_text())
    assert manifest["sandbox"]["rung"] in ("bubblewrap", "landlock")
    gold = loaded("tulu3_humaneval").task_docs[0]["canonical_solution"]
    file = tmp_path / "answers.jsonl"
    file.write_text(json.dumps({"doc_id": 0, "responses": [gold]}) + "\n")
    out = tmp_path / "out.jsonl"
    scores = as_json(
        olmes_here(
            "score",
            "--task",
            "humaneval",
            "--responses",
            file,
            "--data",
            "sample",
            "--instances",
            out,
            "--json",
            tmp=tmp_path,
        )
    )
    assert scores["primary"] == "pass_at_1" and "pass_at_1" in scores["note"]
    assert scores["metrics"]["pass_at_10"] is None and scores["metrics"]["pass_at_1"]["value"] == 1.0
    assert json.loads(out.read_text())["samples"] == [
        {"scores": {"pass_at_1": 1.0}, "extracted": None, "verdict": "pass"}
    ]


@pytest.mark.long
def test_bigcodebench_names_its_environment(tools, monkeypatch):
    pytest.importorskip("tree_sitter_python")
    task = loaded("tulu3_bigcodebench")
    doc = {**task.task_docs[0], "libs": "['pandas']"}
    monkeypatch.delenv("OLMES_BIGCODEBENCH_PYTHON", raising=False)
    with pytest.raises(MissingData, match="OLMES_BIGCODEBENCH_PYTHON"):
        task.scorer.document(doc, ["x = 1"], tools.get("sandbox"))
    monkeypatch.setenv("OLMES_BIGCODEBENCH_PYTHON", sys.executable)
    answers = [task.keys.gold(doc)]
    assert task.scorer.document(doc, answers, tools.get("sandbox"))[0].scores == {"pass_at_1": 1.0}
    monkeypatch.setenv("OLMES_BIGCODEBENCH_PYTHON", "/no/such/python")
    with pytest.raises(MissingData, match="does not run as a Python interpreter"):
        task.scorer.document(doc, answers, tools.get("sandbox"))
