"""The floor: measured by degenerate answers, kept, shown beside other runs; rows left out; data that is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import as_json, olmes, olmes_here, one_line_error, write_gsm8k

from olmes_suite.evaluation.evaluate import Finished
from olmes_suite.evaluation.floor import ANSWERS, beside, combined, keep
from olmes_suite.evaluation.plan import Options
from olmes_suite.runs.floors import floors
from olmes_suite.runs.schema import FloorScore, Manifest, Results
from olmes_suite.tasks.suites import Suite, SuiteEntry


def outcome(**tasks: float | None) -> Results:
    """A results.json; a task without a score failed. `group` has the sub-tasks `part_*`."""
    made: dict[str, Any] = {}
    for name, value in tasks.items():
        made[name] = {"primary": "acc", "metrics": {}, "error": "no"} if value is None else entry(value, name)
    if "group" in made:
        made["group"]["subtasks"] = [name for name in tasks if name.startswith("part_")]
    return Results.from_json({"run": "r", "model": "m", "tasks": made})


def entry(value: float, name: str) -> dict[str, Any]:
    metric = {"value": value, "stderr": 0.0, "ci95": [value, value]}
    return {"primary": "acc", "metrics": {"acc": metric}, "fingerprint": {"prompt": name, "data": "d", "scorer": "s"}}


def test_the_best_answer_makes_the_floor() -> None:
    found = combined("r", {"empty": outcome(one=0.0, two=None), "word": outcome(one=0.4, two=None)}).tasks
    assert found["one"].floor == FloorScore(answer="word", value=0.4, scores={"empty": 0.0, "word": 0.4})
    assert found["one"].score.value == 0.4
    assert found["two"].floor.value is None and found["two"].error == "no"


def test_a_group_decides_for_its_sub_tasks() -> None:
    found = combined(
        "r", {"empty": outcome(group=0.3, part_a=0.6, part_b=0.0), "word": outcome(group=0.2, part_a=0.0, part_b=0.4)}
    ).tasks
    assert {name: found[name].floor.answer for name in found} == dict.fromkeys(found, "empty")
    assert found["part_b"].score.value == 0.0
    assert found["part_b"].floor.scores == {"empty": 0.0, "word": 0.4}


def test_the_average_of_a_users_suite() -> None:
    """A suite of a file is not known by its name."""
    chosen = Suite("mine", (SuiteEntry("one"), SuiteEntry("two")))
    found = combined("r", {"empty": outcome(one=0.0, two=0.5), "word": outcome(one=0.4, two=0.1)}, [chosen])
    assert found.suites["mine"].value == pytest.approx(0.45)


def taken(limit: int | None, seed: int) -> Manifest:
    return Manifest(tasks={}, plan=(), limit=limit, seed=seed)


def measured(runs: Path, limit: int | None, value: float) -> None:
    keep(runs, combined("r", {"word": outcome(one=value)}), Options("", runs=runs, limit=limit))


def test_a_floor_counts_for_the_same_data_only(tmp_path: Path) -> None:
    run = Finished(tmp_path / "mine", outcome(one=0.7), taken(None, 1234))
    assert beside(run) == {}
    measured(tmp_path, 10, 0.9)
    assert beside(run) == {}, "the floor of ten documents is not that of all"
    measured(tmp_path, None, 0.4)
    assert beside(run) == {"one": {"answer": "word", "value": 0.4}}
    limited = Finished(tmp_path / "mine", outcome(one=0.7), taken(10, 1234))
    assert beside(limited)["one"]["value"] == 0.9, "the same documents go first"
    limited.manifest = taken(10, 2)
    assert beside(limited)["one"]["value"] == 0.4, "else all documents"
    one = run.results.tasks["one"]
    changed = one.but(fingerprint={**(one.fingerprint or {}), "scorer": "another"})
    run.results = run.results.but(tasks={"one": changed})
    assert beside(run) == {}
    measured(tmp_path, None, 0.5)
    assert [floor["value"] for floor in floors(tmp_path)["one"]] == [0.9, 0.5], "one entry for one measurement"


@pytest.mark.long
def test_floor_on_the_command_line(tmp_path: Path) -> None:
    mirror = write_gsm8k(tmp_path / "mirror", rows=6)
    asked = ("--task", "gsm8k", "--data-dir", mirror, "--runs", tmp_path / "runs", "--json")
    done = as_json(olmes_here("eval", "--backend", "floor", *asked, tmp=tmp_path))
    task = done["tasks"]["tulu3_gsm8k"]
    assert set(task["floor"]["scores"]) == set(ANSWERS) and task["n"] == 6
    assert task["floor"]["value"] == task["metrics"]["exact_match"]["value"] == max(task["floor"]["scores"].values())
    folder = Path(done["path"])
    assert (folder / "instances/tulu3_gsm8k.parquet").is_file()
    parts = json.loads((folder / "manifest.json").read_text())["floor"]
    for answer in ANSWERS:
        lines = (tmp_path / "runs" / parts[answer] / "responses/tulu3_gsm8k.jsonl").read_text().splitlines()
        assert len(lines) == 6
    again = as_json(olmes_here("eval", "--backend", "floor", *asked, tmp=tmp_path))
    assert again == done
    mock = as_json(olmes_here("eval", "--backend", "mock", *asked, tmp=tmp_path))
    assert mock["floors"]["tulu3_gsm8k"]["value"] == task["floor"]["value"]
    shown = olmes_here("eval", "--backend", "mock", *asked[:-1], tmp=tmp_path).stdout
    assert "floor" in shown.splitlines()[1]
    assert not (tmp_path / "runs/unseen-ledger.jsonl").exists()


@pytest.mark.long
def test_floor_of_log_likelihoods(tmp_path: Path) -> None:
    done = as_json(
        olmes_here(
            "eval", "--backend", "floor", "--task", "truthfulqa", "--data", "sample", "--runs", tmp_path / "runs",
            "--json", tmp=tmp_path,
        )
    )  # fmt: skip
    scores = done["tasks"]["tulu3_truthfulqa"]["floor"]["scores"]
    assert len(set(scores.values())) == 1 and 0 < scores["word"] < 1, "all choices equally likely, whatever is said"


@pytest.mark.long
def test_left_out_rows_are_named_and_missing_data_is_one_line(tmp_path: Path) -> None:
    if not (nltk := nltk_folder()):
        pytest.skip("NLTK's data is not on this machine (set NLTK_DATA)")
    asked = ("eval", "--backend", "mock", "--task", "ifeval_ood", "--data", "sample", "--runs", tmp_path / "runs")
    done = olmes(*asked, "--json", tmp=tmp_path, NLTK_DATA=nltk)
    task = as_json(done)["tasks"]["tulu3_ifeval_ood"]
    assert task["left_out"] == {"count:words_french": 1} and "checker_error" in task["flags"]

    answers = tmp_path / "answers.jsonl"
    answers.write_text("".join(json.dumps({"doc_id": row, "responses": ["ok"]}) + "\n" for row in range(51)))
    scored = as_json(
        olmes(
            "score", "--task", "ifeval_ood", "--responses", answers, "--data", "sample", "--json", tmp=tmp_path,
            NLTK_DATA=nltk,
        )
    )  # fmt: skip
    assert (scored["n"], scored["left_out"], scored["left_out_names"]) == (50, 1, {"count:words_french": 1})
    assert scored["errors"] == scored["flags"]["checker_error"] > 0

    bare = olmes(*asked, "--again", tmp=tmp_path, NLTK_DATA=str(tmp_path / "none"))
    assert bare.returncode == 1 and "olmes data pull --task tulu3_ifeval_ood" in " ".join(bare.stdout.split())
    assert "Traceback" not in bare.stderr
    line = one_line_error(
        olmes("score", "--task", "ifeval_ood", "--responses", answers, "--data", "sample", tmp=tmp_path,
              NLTK_DATA=str(tmp_path / "none")), code=1,
    )  # fmt: skip
    assert "NLTK_DATA" in line


def nltk_folder() -> str | None:
    """The folder that holds NLTK's data, where the machine has one."""
    from olmes_suite.scoring import language_resources

    found = language_resources.nltk_folder("punkt_tab")
    return None if found is None or language_resources.missing("stopwords") else str(found.parents[2])
