"""Comparing and gating through the command line: verdicts, exit statuses, reports, planning."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from statistics import NormalDist
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from gate_runs import Cli, gated, imported, one_line, table, two_runs

from olmes_suite.comparison import reports
from olmes_suite.comparison.power import power_of


def test_compare_shows_scores_tests_and_counts(cli: Cli) -> None:
    two_runs(cli, maths=(40, 12, 500), code=(3, 3, 100))
    status, out, _ = cli("compare", "a", "b", "--json")
    found = {task["task"]: task for task in json.loads(out)["tasks"]}
    assert status == 0
    maths = found["maths"]
    assert (maths["wins"], maths["losses"], maths["ties"], maths["n"]) == (40, 12, 448, 500)
    assert maths["delta"] == pytest.approx(0.056)
    assert maths["p"] < maths["p_exact"] < 0.001
    assert maths["p_adjusted"] == pytest.approx(2 * maths["p"])
    assert maths["ci95"][0] < 0.056 < maths["ci95"][1]
    assert found["code"]["p"] == 1.0
    assert found["code"]["detectable"] > found["maths"]["detectable"]


def test_compare_prints_tables_that_fit_a_terminal(cli: Cli) -> None:
    two_runs(cli, a_task_with_a_long_name_that_is_cut=(40, 12, 10_000), code=(3, 3, 100))
    status, out, _ = cli("compare", "a", "b", "a")
    assert status == 0
    assert max(map(len, out.splitlines())) <= 80
    assert out.count(" against a") == 2
    status, out, _ = cli("compare", "a", "b", "--markdown")
    assert "| code | 100 | 97.0 | 97.0 | +0.0 |" in out


def test_documents_are_aligned_by_id_never_by_position(cli: Cli) -> None:
    scores = [1.0, 0.0, 0.0, 1.0, 1.0] * 20
    imported(cli, "a", {"t": scores})
    lines = Path("a.jsonl").read_text().splitlines()
    Path("shuffled.jsonl").write_text("\n".join(reversed(lines)))
    assert cli("import", "scores", "shuffled.jsonl", "--name", "b")[0] == 0
    task = json.loads(cli("compare", "a", "b", "--json")[1])["tasks"][0]
    assert (task["wins"], task["losses"]) == (0, 0)


def test_missing_and_extra_documents_are_said(cli: Cli) -> None:
    imported(cli, "a", {"t": [1.0] * 60})
    imported(cli, "b", {"t": [1.0] * 50}, start=20)
    status, out, _ = cli("compare", "a", "b")
    assert status == 0
    assert "40 documents in common; 20 only in the first run, 10 only in the second" in " ".join(out.split())
    _, report = gated(cli)
    assert {finding["check"] for finding in report["health"]} == {"documents"}


def test_gate_passes_an_improvement_and_exits_0(cli: Cli) -> None:
    two_runs(cli, maths=(60, 10, 1000))
    status, report = gated(cli)
    assert (status, report["verdict"], report["tasks"][0]["verdict"]) == (0, "pass", "pass")
    assert report["suite"]["lower"] > -report["suite"]["margin"] == -0.01


def test_gate_fails_a_significant_drop_and_exits_1(cli: Cli) -> None:
    two_runs(cli, maths=(10, 60, 1000), code=(5, 5, 1000))
    status, report = gated(cli)
    found = {task["task"]: task for task in report["tasks"]}
    assert (status, report["verdict"], found["maths"]["verdict"]) == (1, "fail", "fail")
    assert found["maths"]["p_adjusted"] == pytest.approx(3 * found["maths"]["p"])
    assert found["code"]["verdict"] != "fail"


def test_a_small_sample_is_inconclusive_and_says_what_it_takes(cli: Cli) -> None:
    two_runs(cli, maths=(8, 9, 164))
    status, report = gated(cli)
    task = report["tasks"][0]
    assert (status, report["verdict"], task["verdict"]) == (3, "inconclusive", "inconclusive")
    assert task["more"] > 164
    assert cli("gate", "--baseline", "a", "--candidate", "b", "--inconclusive", "pass")[0] == 0
    assert cli("gate", "--baseline", "a", "--candidate", "b", "--inconclusive", "fail")[0] == 1


def test_what_a_drop_needs_to_fail_counts_the_correction_for_the_tasks(cli: Cli) -> None:
    two_runs(cli, maths=(4, 12, 60), code=(3, 3, 60))
    task = gated(cli)[1]["tasks"][0]
    assert task["verdict"] == "inconclusive" and task["p"] < 0.05 < task["p_adjusted"]
    factor = task["p_adjusted"] / task["p"]
    ratio = NormalDist().inv_cdf(0.05 / factor) / NormalDist().inv_cdf(task["p"])
    assert task["more"] == math.ceil(60 * ratio**2 - 60) > 1


def test_a_significant_drop_within_the_margin_passes_with_a_note(cli: Cli) -> None:
    two_runs(cli, maths=(10, 60, 14_000))
    status, report = gated(cli)
    assert status == 0
    assert "significant on its own but within the margin" in " ".join(report["tasks"][0]["notes"])


def test_holm_keeps_one_of_many_from_failing_by_chance(cli: Cli) -> None:
    """A drop of p 0.02 fails alone and not among twelve tasks."""
    drop = (20, 36, 200)
    two_runs(cli, maths=drop)
    assert gated(cli)[0] == 1
    quiet = {f"t{i}": (20, 20, 200) for i in range(11)}
    both = {"maths": drop, **quiet}
    shutil.rmtree("runs")
    two_runs(cli, **both)
    report = gated(cli)[1]
    assert next(t for t in report["tasks"] if t["task"] == "maths")["verdict"] == "inconclusive"


def test_gate_yaml_sets_margins_required_tasks_and_floors(cli: Cli) -> None:
    two_runs(cli, maths=(12, 12, 400), code=(80, 10, 4000))
    assert gated(cli)[0] == 0
    rules = Path("gate.yaml")
    rules.write_text("tasks: {maths: {required: true}}\n")
    status, report = gated(cli, "--config", "gate.yaml")
    assert (status, report["verdict"]) == (3, "inconclusive")
    out = cli("gate", "--baseline", "a", "--candidate", "b", "--config", "gate.yaml")[1]
    assert "maths *" in out and "*: required" in out
    rules.write_text("tasks: {maths: {required: true, margin: 5}}\n")
    assert gated(cli, "--config", "gate.yaml")[0] == 0
    rules.write_text("tasks: {code: {floor: 99.9}}\n")
    status, report = gated(cli, "--config", "gate.yaml")
    assert status == 1
    assert "below its floor" in " ".join(report["tasks"][1]["notes"])
    rules.write_text("suite: {margin: 0.01}\nalpha: 0.01\n")
    report = gated(cli, "--config", "gate.yaml")[1]
    assert (report["suite"]["margin"], report["alpha"]) == (0.0001, 0.01)


def test_graded_and_clustered_scores(cli: Cli) -> None:
    rng = np.random.default_rng(0)
    before = rng.random(400).round(3)
    clusters = {"t": [i // 4 for i in range(400)]}
    imported(cli, "a", {"t": before}, clusters=clusters)
    imported(cli, "b", {"t": (before - 0.2 * rng.random(400)).clip(0, 1)}, clusters=clusters)
    status, report = gated(cli)
    assert status == 1
    assert report["tasks"][0]["method"] == "t"
    assert report["tasks"][0]["ci95"][1] < 0


def test_the_noise_of_a_rerun_widens_the_margin(cli: Cli) -> None:
    two_runs(cli, maths=(28, 30, 400))
    before, noisy = table(40, 60, 400)
    imported(cli, "noisy", {"maths": [y if x != y else x for x, y in zip(before, noisy, strict=True)]})
    plain, widened = gated(cli)[1], gated(cli, "--noise", "noisy")[1]
    assert widened["tasks"][0]["margin"] > plain["tasks"][0]["margin"]
    assert "noise of a re-run" in " ".join(widened["tasks"][0]["notes"])


def test_baselines_by_name_and_by_file(cli: Cli) -> None:
    two_runs(cli, maths=(60, 10, 1000))
    assert cli("baseline", "set", "main", "a")[0] == 0
    assert cli("baseline", "list")[1] == "main\ta\n"
    for file in ("base.json", "base.json.gz"):
        assert cli("baseline", "save", "a", file)[0] == 0
    reports = [
        json.loads(cli("gate", "--baseline", name, "--candidate", "b", "--json")[1])
        for name in ("a", "main", "base.json", "base.json.gz", "runs/a")
    ]
    assert all(report == reports[0] for report in reports)
    content = json.loads(Path("base.json").read_text())
    assert set(content["tasks"]["maths"]) >= {"fingerprint", "n", "doc_ids", "scores", "clusters"}
    assert Path("base.json").stat().st_size < 12_000
    assert "or the name of a run" in one_line(cli("baseline", "set", "b", "a"), 2)


def test_reports_for_ci(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    two_runs(cli, **{"maths|<b>": (10, 60, 1000), "code": (3, 3, 60)})
    Path("s.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    status, out, _ = cli("gate", "--baseline", "a", "--candidate", "b", "--junit", "j.xml", "--summary", "s.md")
    assert status == 1
    assert "::error title=olmes gate%3A maths|<b>::fail" in out
    tree = ET.parse("j.xml").getroot()
    suite = tree.find("testsuite")
    assert suite is not None
    cases = {case.get("name"): case for case in suite.findall("testcase")}
    assert cases["maths|<b>"].find("failure") is not None
    assert cases["code"].find("skipped") is not None
    assert suite.get("tests") == str(len(cases))
    text = Path("s.md").read_text()
    assert text.startswith("before\n## olmes gate: fail")
    assert "maths\\|&lt;b>" in text


@pytest.mark.long
def test_a_summary_of_very_many_tasks_stays_under_its_limit(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reports.SUMMARY_BYTES == 1024 * 1024  # GitHub's
    monkeypatch.setattr(reports, "SUMMARY_BYTES", 64 * 1024)
    two_runs(cli, **{f"{'x' * 180}{i}": (1, 1, 3) for i in range(250)})
    cli("gate", "--baseline", "a", "--candidate", "b", "--summary", "s.md")
    assert 16 * 1024 < Path("s.md").stat().st_size < 64 * 1024
    assert "more tasks are in the JSON report" in Path("s.md").read_text()


@pytest.mark.long
def test_at_most_ten_annotations_of_a_kind(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    two_runs(cli, **{f"t{i}": (0, 60, 400) for i in range(30)})
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    _, out, err = cli("gate", "--baseline", "a", "--candidate", "b", "--json")
    json.loads(out)
    assert err.count("::error ") == 10


def test_one_document_and_all_ties(cli: Cli) -> None:
    imported(cli, "a", {"one": [1.0], "ties": [1.0] * 5000})
    imported(cli, "b", {"one": [0.0], "ties": [1.0] * 5000})
    found = {task["task"]: task for task in gated(cli)[1]["tasks"]}
    assert found["one"]["verdict"] == "inconclusive"
    assert found["one"]["p"] is None
    assert found["ties"]["verdict"] == "pass"


def test_an_imported_candidate_that_lost_a_task_is_an_error(cli: Cli) -> None:
    """As with runs of our own; `--task` says which tasks to judge all the same."""
    imported(cli, "a", {"t": [1.0, 0.0] * 100, "u": [1.0] * 50})
    imported(cli, "b", {"t": [1.0, 0.0] * 100})
    status, report = gated(cli)
    assert status == 5 and any(finding["task"] == "u" for finding in report["health"])
    status, out, _ = cli("gate", "--baseline", "a", "--candidate", "b", "--task", "t", "--json")
    assert {task["task"] for task in json.loads(out)["tasks"]} == {"t"} and status != 5


def test_runs_that_share_nothing(cli: Cli) -> None:
    imported(cli, "a", {"x": [1.0]})
    imported(cli, "b", {"y": [1.0]})
    assert "share no task" in one_line(cli("compare", "a", "b"), 4)
    status, report = gated(cli)
    assert (status, report["verdict"]) == (4, "not comparable")


def test_markdown_has_what_the_table_says_beside_its_numbers(cli: Cli) -> None:
    imported(cli, "a", {"maths": [0.0, 1.0], "code": [1.0, 0.0]})
    imported(cli, "b", {"maths": [1.0]})
    table, markdown = cli("compare", "a", "b")[1], cli("compare", "a", "b", "--markdown")[1]
    said = [line.removeprefix("! ") for line in table.splitlines() if line.startswith("! ")]
    assert [line.removeprefix("* ") for line in markdown.splitlines() if line.startswith("* ")] == said
    assert [line.split(";")[0].split(": ")[-1] for line in said[1:]] == [
        "1 document in common",
        "the second run has no score of code",
    ]


@pytest.mark.long
def test_power_on_the_command_line(cli: Cli) -> None:
    status, out, _ = cli("power", "--task", "gsm8k", "--delta", "1.0")
    assert status == 0
    assert "7,847 documents" in out
    assert "has 1,319" in out
    found = json.loads(cli("power", "--gate", "--suite", "dev", "--json")[1])
    assert found["average_passes"] == pytest.approx(0.878, abs=0.01)
    assert found["average_passes"] - found["red"] < found["green"] < found["average_passes"]
    wide = json.loads(cli("power", "--gate", "--flips", "0.3", "--json")[1])
    assert wide["average_passes"] == pytest.approx(0.49, abs=0.01)
    assert "nothing to plan" in one_line(cli("power"), 2)
    assert "smaller --delta" in one_line(cli("power", "--task", "gsm8k", "--delta", "30"), 2)
    assert "above 0, not -1" in one_line(cli("power", "--task", "gsm8k", "--delta", "-1"), 2)
    assert "above 0, not -1" in one_line(cli("power", "--gate", "--delta", "-1"), 2)
    assert "above 0, not 0" in one_line(cli("power", "--task", "gsm8k", "--delta", "0"), 2)


@pytest.mark.parametrize("samples", [2, 8, 32])
def test_samples_divide_the_documents_that_are_needed(cli: Cli, samples: int) -> None:
    def plan(*more: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(cli("power", "--task", "gsm8k", "--delta", "1", "--json", *more)[1])
        return found

    one, many = plan(), plan("--samples", str(samples))
    assert many["items"] == math.ceil(one["items"] / samples)  # 0.1 / 32 of the documents is less than the difference
    assert many["power_of_task"] == pytest.approx(power_of(samples * one["have"], 0.01, 0.1))
    assert many["samples"] == one["samples"] == 6
    out = cli("power", "--task", "gsm8k", "--delta", "1", "--samples", str(samples))[1]
    assert f"documents of {samples} samples each find a difference of 1 point with" in out
    assert "where flips are chance in sampling alone" in out
    assert ("or 6 samples of each document" in out) == (samples < 6)


def test_flips_are_measured_between_runs(cli: Cli) -> None:
    two_runs(cli, gsm8k=(30, 20, 1000))
    out = json.loads(cli("power", "--task", "gsm8k", "--delta", "1", "--between", "a,b", "--json")[1])
    assert out["flips"] == pytest.approx(0.05)


def test_runs_without_a_difference_are_told_how_many_documents_decide(cli: Cli) -> None:
    two_runs(cli, maths=(0, 0, 100))
    status, report = gated(cli)
    assert status == 3 and report["tasks"][0]["more"] == 168
    assert (
        "maths: about 168 more documents like these decide it" in cli("gate", "--baseline", "a", "--candidate", "b")[1]
    )
    imported(cli, "c", {"maths": [1.0] * 268})
    imported(cli, "d", {"maths": [1.0] * 268})
    assert cli("gate", "--baseline", "c", "--candidate", "d")[0] == 0
