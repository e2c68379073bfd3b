"""Comparing and gating runs that the evaluator recorded: fingerprints, answers, health, contamination."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from gate_runs import Cli, one_line, write_scores

from olmes_suite.cli.main import run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real runs of the evaluator on sample documents: mock and oracle."""
    store = tmp_path_factory.mktemp("recorded")
    os.environ.pop("GITHUB_ACTIONS", None)
    for backend in ("mock", "oracle"):
        args = ["eval", "--backend", backend, "--task", "gsm8k", "--task", "agieval", "--data", "sample"]
        assert run([*args, "--runs", str(store)]) == 0
    return store


@pytest.fixture
def store(recorded: Path, tmp_path: Path) -> tuple[Path, str, str]:
    """A copy of the two runs, and their names."""
    copy = tmp_path / "store"
    shutil.copytree(recorded, copy)
    names = sorted(path.name for path in copy.iterdir() if (path / "results.json").is_file())
    return copy, next(n for n in names if "mock" in n), next(n for n in names if "oracle" in n)


@pytest.mark.parametrize("part", ["prompt", "data", "scorer", "settings"])
def test_a_changed_fingerprint_is_not_comparable(cli: Cli, store: tuple[Path, str, str], part: str) -> None:
    runs, a, b = store
    manifest = runs / b / "manifest.json"
    content = json.loads(manifest.read_text())
    content["tasks"]["tulu3_gsm8k"][part] = "0" * 64
    manifest.write_text(json.dumps(content))
    status, out, err = cli("compare", a, b, "--runs", runs)
    assert status == 4
    assert f"tulu3_gsm8k: {part} differ" in err
    assert "agieval" in out
    status, out, _ = cli("compare", a, b, "--runs", runs, "--force")
    assert status == 0
    assert "gsm8k !" in out
    marked = json.loads(cli("compare", a, b, "--runs", runs, "--force", "--json")[1])["tasks"]
    assert [task["comparable"] for task in marked if task["task"] == "tulu3_gsm8k"] == [False]
    assert cli("gate", "--baseline", a, "--candidate", b, "--runs", runs)[0] in (1, 4)
    only = cli("gate", "--baseline", a, "--candidate", b, "--runs", runs, "--task", "gsm8k", "--json")
    assert (only[0], json.loads(only[1])["verdict"]) == (4, "not comparable")
    shown = cli("gate", "--baseline", a, "--candidate", b, "--runs", runs, "--task", "gsm8k")[1]
    assert shown.count(f"{part} differ") == 1


def test_flipped_documents_are_shown_with_both_answers(cli: Cli, store: tuple[Path, str, str]) -> None:
    runs, a, b = store
    found = json.loads(cli("compare", a, b, "--runs", runs, "--flips", "3", "--json")[1])
    changed = sum(task["wins"] + task["losses"] for task in found["tasks"])
    assert len(found["flips"]) == min(changed, 6) > 0
    flip = found["flips"][0]
    assert {"score", "extracted", "reference", "response"} <= set(flip["candidate"])
    assert cli("compare", a, b, "--runs", runs, "--flips", "3")[0] == 0


def test_subtasks_have_rows_of_their_own(cli: Cli, store: tuple[Path, str, str]) -> None:
    runs, a, b = store
    found = json.loads(
        cli("compare", a, b, "--runs", runs, "--task", "agieval", "--subtasks", "--flips", "1", "--json")[1]
    )
    assert len(found["tasks"]) == 8
    assert {task["task"] for task in found["tasks"]} >= {"tulu3_agieval_lsat-ar", "tulu3_agieval_sat-en"}
    assert found["flips"][0]["candidate"]["response"]


def test_a_failed_task_is_infrastructure(cli: Cli, store: tuple[Path, str, str]) -> None:
    runs, a, _ = store
    shutil.copytree(runs / a, runs / "broken")
    results = json.loads((runs / "broken/results.json").read_text())
    results["tasks"]["tulu3_gsm8k"] = {
        "n": 0, "primary": "exact_match", "metrics": {}, "clean": None, "flags": {"request_errors": 1}, "error": "gone",
    }  # fmt: skip
    (runs / "broken/results.json").write_text(json.dumps(results))
    status, out, _ = cli("gate", "--baseline", a, "--candidate", "broken", "--runs", runs, "--json")
    report = json.loads(out)
    assert (status, report["verdict"]) == (5, "infrastructure")
    assert any(f["check"] == "missing_task" and "gone" in f["text"] for f in report["health"])


def test_a_task_that_the_baseline_lacks_is_named(cli: Cli, store: tuple[Path, str, str]) -> None:
    runs, a, b = store
    results = json.loads((runs / a / "results.json").read_text())
    results["tasks"]["tulu3_gsm8k"] = {"n": 0, "primary": "exact_match", "metrics": {}, "flags": {}, "error": "gone"}
    (runs / a / "results.json").write_text(json.dumps(results))
    report = json.loads(cli("gate", "--baseline", a, "--candidate", b, "--runs", runs, "--json")[1])
    assert [task["task"] for task in report["tasks"]] == ["tulu3_agieval"]
    assert any(f["task"] == "tulu3_gsm8k" and f["kind"] == "note" for f in report["health"])


@pytest.mark.parametrize("flag", ["truncated", "length", "empty", "extraction_failed"])
def test_broken_answers_fail_the_gate(cli: Cli, store: tuple[Path, str, str], flag: str) -> None:
    runs, a, _ = store
    shutil.copytree(runs / a, runs / "ill")
    results = json.loads((runs / "ill/results.json").read_text())
    before = results["tasks"]["tulu3_gsm8k"]["flags"][flag]
    results["tasks"]["tulu3_gsm8k"]["flags"][flag] = results["tasks"]["tulu3_gsm8k"]["n"]
    (runs / "ill/results.json").write_text(json.dumps(results))
    if before == results["tasks"]["tulu3_gsm8k"]["n"]:
        pytest.skip("the baseline is as ill")
    args = ("gate", "--baseline", a, "--candidate", "ill", "--runs", runs, "--task", "gsm8k", "--json")
    status, out, _ = cli(*args)
    assert status == 1
    assert [f["check"] for f in json.loads(out)["health"]] == [flag]
    Path("gate.yaml").write_text(f"health: {{{flag}: 1.0}}\n")
    assert cli(*args, "--config", "gate.yaml")[0] in (0, 3)


def test_training_on_the_test_fails_the_gate(cli: Cli, store: tuple[Path, str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    runs, a, _ = store
    shutil.copytree(runs / a, runs / "tainted")
    file = runs / "tainted/instances/tulu3_gsm8k.parquet"
    found = pq.read_table(file)
    column = found.column_names.index("contaminated")
    pq.write_table(found.set_column(column, "contaminated", pa.array([True] + [False] * (found.num_rows - 1))), file)
    args = ("gate", "--baseline", a, "--candidate", "tainted", "--runs", runs, "--task", "gsm8k", "--json")
    status, out, _ = cli(*args)
    assert status == 1
    assert [f["check"] for f in json.loads(out)["health"]] == ["contaminated"]
    # A short match alone is flagged, and no part of the share that the rule judges.
    found = pq.read_table(file)
    pq.write_table(found.append_column("contaminated_short", found["contaminated"]), file)
    (finding,) = json.loads(cli(*args)[1])["health"]
    assert (finding["kind"], finding["share"]) == ("note", 0.0) and "1 too short to count" in finding["text"]
    assert cli("baseline", "save", "tainted", "kept.json", "--runs", runs)[0] == 0
    kept = ("gate", "--baseline", a, "--candidate", "kept.json", "--runs", runs, "--task", "gsm8k", "--json")
    assert json.loads(cli(*kept)[1])["health"] == [finding]


def test_compare_shows_the_difference_without_contaminated_documents(cli: Cli, store: tuple[Path, str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    runs, a, b = store
    file = runs / b / "instances/tulu3_gsm8k.parquet"
    found = pq.read_table(file)
    column = found.column_names.index("contaminated")
    pq.write_table(found.set_column(column, "contaminated", pa.array([True] + [False] * (found.num_rows - 1))), file)
    task = json.loads(cli("compare", a, b, "--runs", runs, "--task", "gsm8k", "--json")[1])["tasks"][0]
    before, after = (pq.read_table(runs / run / "instances/tulu3_gsm8k.parquet")["score"].to_pylist() for run in (a, b))
    moved = [y - x for x, y in zip(before[1:], after[1:], strict=True)]
    assert (task["flagged"], task["clean"]["n"]) == (1, found.num_rows - 1)
    assert task["clean"]["delta"] == pytest.approx(sum(moved) / len(moved))
    assert "in a checkpoint's training data; without them" in cli("compare", a, b, "--runs", runs)[1]
    cli("baseline", "save", b, "b.json", "--runs", runs)
    again = json.loads(cli("compare", a, "b.json", "--runs", runs, "--task", "gsm8k", "--json")[1])["tasks"][0]
    assert again["clean"] == task["clean"]


def test_measured_and_imported_scores_do_not_compare(cli: Cli, store: tuple[Path, str, str]) -> None:
    runs, a, _ = store
    write_scores(Path("f.jsonl"), {"tulu3_gsm8k": [1.0, 0.0]})
    assert cli("import", "scores", "f.jsonl", "--name", "mine", "--runs", runs)[0] == 0
    assert cli("compare", a, "mine", "--runs", runs)[0] == 4


def test_an_unfinished_run_is_named_as_such(cli: Cli, store: tuple[Path, str, str]) -> None:
    runs, a, _ = store
    (runs / ".unfinished/half").mkdir(parents=True)
    assert "is not finished" in one_line(cli("compare", a, "half", "--runs", runs), 2)
