"""Tokens beside scores: in comparisons, and as health limits of the gate."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from olmes_suite.cli.tables import print_comparison
from olmes_suite.comparison.compare import as_json, compare_runs
from olmes_suite.comparison.gate import GateReport, gate
from olmes_suite.comparison.gate_rules import parse_rules
from olmes_suite.comparison.reports import compare_markdown, ratio, score_for_tokens
from olmes_suite.errors import UsageError
from olmes_suite.runs.baseline import read_baseline, save
from olmes_suite.runs.schema import Answers, Completed, Cost, Tokens
from olmes_suite.runs.scores import LeafScores, RunScores, TaskScores, by_subtask

N = 200


def run(name: str, mean: float | None, right: int = 100, **parts: object) -> RunScores:
    """A run of one task; `parts` are those of its cost."""
    ids = np.arange(N)
    counts = None if mean is None else np.full(N, mean)
    scores = (ids < right).astype(float)
    known = {} if mean is None else {"tokens": Tokens(thinking=0.75 * mean, answer=0.25 * mean)}
    cost = Cost(**(known | parts))  # type: ignore[arg-type]
    leaf = LeafScores(ids, scores, ids, np.zeros(N, dtype=np.int64), None, tokens=counts, cost=cost)
    task = TaskScores("tulu3_gsm8k", {"tulu3_gsm8k": leaf}, value=right / N, cost=cost)
    return RunScores(name, name, {"tulu3_gsm8k": task})


def test_compare_sets_the_score_against_the_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = compare_runs(run("a", 400), run("b", 920, 103))
    line = "+1.5 points for 2.3 × the tokens (400 → 920 per answer)"
    assert score_for_tokens(comparison.tasks[0]) == line
    print_comparison(comparison)
    out = capsys.readouterr().out
    assert f"gsm8k: {line}" in out and max(map(len, out.splitlines())) <= 80
    assert f"* gsm8k: {line}" in compare_markdown(comparison)
    assert as_json(comparison)["tasks"][0]["tokens"] == {"baseline": 400, "candidate": 920, "ratio": 2.3}


def test_tokens_are_those_of_the_shared_documents() -> None:
    whole, half = run("a", 100), run("b", 100)
    leaf = half.tasks["tulu3_gsm8k"].leaves["tulu3_gsm8k"]
    kept = replace(
        leaf, doc_ids=leaf.doc_ids[:50], scores=leaf.scores[:50], clusters=leaf.clusters[:50], strata=leaf.strata[:50],
        tokens=np.full(50, 300.0),
    )  # fmt: skip
    longer = whole.tasks["tulu3_gsm8k"].leaves["tulu3_gsm8k"]
    assert longer.tokens is not None
    longer.tokens[50:] = 9_999
    half = replace(half, tasks={"tulu3_gsm8k": replace(half.tasks["tulu3_gsm8k"], leaves={"tulu3_gsm8k": kept})})
    assert compare_runs(whole, half).tasks[0].tokens == (100.0, 300.0)


def test_runs_without_counts_compare_as_before() -> None:
    comparison = compare_runs(run("a", None), run("b", 900))
    assert score_for_tokens(comparison.tasks[0]) is None and as_json(comparison)["tasks"][0]["tokens"] is None
    assert "tokens" not in compare_markdown(comparison)


@pytest.mark.parametrize(("value", "text"), [(2.31, "2.3"), (0.42, "0.4"), (0.031, "0.03"), (12.3, "12"), (1, "1.0")])
def test_ratios_are_short(value: float, text: str) -> None:
    assert ratio(value) == text


def health(baseline: RunScores, candidate: RunScores, **limits: float) -> GateReport:
    return gate(baseline, candidate, parse_rules({"margin": 5, "health": limits}, "gate.yaml"))


def checks(report: GateReport) -> dict[str, str]:
    return {finding.check: finding.kind for finding in report.health}


def test_many_more_tokens_are_noted_and_fail_with_a_limit() -> None:
    long = health(run("a", 400), run("b", 920))
    assert checks(long) == {"tokens": "note"} and long.verdict == "pass"
    assert long.health[0].text == "920 tokens per answer (baseline 400, 2.3 ×)"
    assert checks(health(run("a", 400), run("b", 500))) == {}
    assert health(run("a", 5.4), run("b", 15)).health[0].text == "15 tokens per answer (baseline 5.4, 2.8 ×)"
    limited = health(run("a", 400), run("b", 920), tokens=2)
    assert checks(limited) == {"tokens": "fail"} and limited.verdict == "fail"
    assert limited.health[0].text.endswith("(baseline 400, 2.3 ×, limit 2 ×)")
    assert checks(health(run("a", 400), run("b", 920), thinking_tokens=2, answer_tokens=3, tokens=3)) == {
        "thinking_tokens": "fail"
    }


def test_thoughts_of_a_baseline_without_any_have_no_multiple() -> None:
    plain = run("a", 400, tokens=Tokens(answer=400.0))
    report = health(plain, run("b", 500), thinking_tokens=10)
    assert report.health[0].text == "375 tokens of thought per answer (baseline 0, limit 10 ×)"
    json.dumps(report.health[0].as_json(), allow_nan=False)


@pytest.mark.parametrize("ending", ["length", "unclosed", "empty"])
def test_shares_are_of_answers_where_documents_have_several(ending: str) -> None:
    """One of eight samples that is cut marks the document, but not the share."""
    few = Answers(n=8 * N, **{ending: N})
    candidate = run("b", 400, answers=few)
    flagged = replace(candidate.tasks["tulu3_gsm8k"], flags={ending: N})
    report = health(run("a", 400), replace(candidate, tasks={"tulu3_gsm8k": flagged}))
    assert [f.share for f in report.health] == [0.125] and report.verdict == "fail"
    assert checks(health(run("a", 400), replace(candidate, tasks={"tulu3_gsm8k": flagged}), **{ending: 0.2})) == {}


def test_a_drop_over_completed_answers_fails() -> None:
    before, after = (Completed(value=value, n=100) for value in (0.8, 0.7))
    one, other = run("a", 400, completed=before), run("b", 400, completed=after)
    assert checks(health(one, other)) == {} and checks(health(one, other, completed=11)) == {}
    report = health(one, other, completed=9)
    assert checks(report) == {"completed": "fail"}
    assert "70.0 over the answers that ended by themselves (baseline 80.0, largest drop 9.0)" in report.health[0].text


def test_a_lower_rate_of_correct_answers_fails() -> None:
    one, other = (run(name, 400, correct_per_million_tokens=rate) for name, rate in (("a", 1200.0), ("b", 500.0)))
    assert checks(health(one, other, correct_per_million_tokens=0.5)) == {"correct_per_million_tokens": "fail"}
    assert checks(health(one, other, correct_per_million_tokens=0.4)) == {}


def test_limits_of_what_a_run_does_not_tell_are_noted() -> None:
    report = health(run("a", None), run("b", None), tokens=2, completed=1, correct_per_million_tokens=0.5)
    assert checks(report) == dict.fromkeys(("tokens", "completed", "correct_per_million_tokens"), "note")
    assert report.verdict == "pass"


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"tokens": -1}, "health: tokens: expected a number from 0.01 to 1000 (a multiple of the baseline's), not -1"),
        ({"unclosed": 5}, "health: unclosed: expected a number from 0 to 1, not 5"),
        ({"completed": "much"}, "health: completed: expected a number from 0 to 100 (in points), not 'much'"),
        ({"token": 2}, "unknown key 'token'"),
    ],
)
def test_wrong_limits_are_named(limits: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=r"gate\.yaml") as raised:
        parse_rules({"health": limits}, "gate.yaml")
    assert words in str(raised.value)


def test_a_baseline_file_keeps_tokens_and_costs(tmp_path: Path) -> None:
    before = run("a", 400.5, completed=Completed(value=0.5, n=7), answers=Answers(n=N, length=3))
    save(before, tmp_path / "base.json")
    read = read_baseline(tmp_path / "base.json")
    assert read.tasks["tulu3_gsm8k"].cost.as_json() == before.tasks["tulu3_gsm8k"].cost.as_json()
    assert compare_runs(read, run("b", 801)).tasks[0].token_ratio == 2.0
    save(run("a", None), tmp_path / "old.json")
    assert "cost" not in (tmp_path / "old.json").read_text() and "tokens" not in (tmp_path / "old.json").read_text()


def test_subtasks_keep_their_costs() -> None:
    assert by_subtask(run("a", 400)).tasks["tulu3_gsm8k"].cost.tokens == Tokens(thinking=300.0, answer=100.0)
