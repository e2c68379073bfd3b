"""`olmes runs` and `olmes show`, and the names by which runs are found."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import olmes_here, one_line_error

from olmes_suite.cli.runs import folded
from olmes_suite.errors import UsageError
from olmes_suite.runs.run import Run

RUNS = {"oracle": ("--backend", "oracle", "--suite", "smoke"), "mock": ("--backend", "mock", "--task", "gsm8k")}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of an oracle (suite smoke) and of noise (GSM8K), on the sample documents."""
    folder = tmp_path_factory.mktemp("recorded")
    for arguments in RUNS.values():
        assert olmes_here("eval", *arguments, "--data", "sample", "--runs", folder / "runs", tmp=folder).returncode == 0
    return folder / "runs"


def listed(runs: Path, *more: str) -> list[dict]:
    done = olmes_here("runs", "--runs", runs, "--json", *more, tmp=runs.parent)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_list_is_newest_first_and_can_be_filtered(recorded: Path) -> None:
    names = [run["run"] for run in listed(recorded)]
    assert [name.split("-")[0] for name in names] == ["mock", "oracle"]
    assert [run["run"] for run in listed(recorded, "--suite", "smoke")] == names[1:]
    assert [run["run"] for run in listed(recorded, "--model", "ora")] == names[1:]
    by_score = listed(recorded, "--task", "gsm8k", "--sort", "score")
    assert [run["run"] for run in by_score] == names[::-1]
    assert by_score[0]["tasks"]["tulu3_gsm8k"]["value"] == 1.0 and by_score[0]["marks"] == ["sample"]
    assert listed(recorded, "--task", "drop") == []


def test_the_table_fits_a_terminal(recorded: Path) -> None:
    done = olmes_here("runs", "--runs", recorded, tmp=recorded.parent, COLUMNS="80")
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    assert "smoke; sample" in done.stdout and "74.9 – 100.0" in done.stdout


LONG = "checkpoints-my-experiment-dpo-lr5e-7-step_20000-gsm8k-popqa-1234abcd"


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_long_names_fold_between_their_parts(recorded: Path, tmp_path: Path, columns: int) -> None:
    run = next(recorded.glob("mock-*"))
    shutil.copytree(run, tmp_path / "runs" / LONG)
    done = olmes_here("runs", "--runs", tmp_path / "runs", tmp=tmp_path, COLUMNS=str(columns))
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert all(len(line) <= columns for line in lines)
    first = [line.split(" ")[0] for line in lines[1:]]
    assert "".join(first) == LONG and all(piece.endswith(("-", "_")) for piece in first[:-1])
    assert first[-1].endswith("1234abcd")


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("short", ["short"]),
        ("model-step_20000-gsm8k", ["model-step_", "20000-gsm8k"]),
        ("org/model", ["org/model"]),
        ("model-lr5e-7--b", ["model-", "lr5e-7--b"]),
        ("gsm8k; a; limit 200", ["gsm8k; a;", "limit 200"]),
        ("q; at most 2000", ["q;", "at most", "2000"]),
        ("anexperimentwithoutmarks", ["anexperimen", "twithoutmar", "ks"]),
        ("", [""]),
    ],
)
def test_text_folds_after_spaces_and_marks(text: str, lines: list[str]) -> None:
    assert folded(text, 11) == lines


def test_a_damaged_run_is_left_out_and_named(recorded: Path, tmp_path: Path) -> None:
    (tmp_path / "runs/torn").mkdir(parents=True)
    (tmp_path / "runs/torn/results.json").write_text("{")
    done = olmes_here("runs", "--runs", tmp_path / "runs", tmp=tmp_path)
    assert done.returncode == 0 and "torn" in done.stderr and "no runs in" in done.stdout
    missing = olmes_here("runs", "--runs", tmp_path / "none", tmp=tmp_path)
    assert missing.returncode == 2 and "no such folder" in missing.stderr


def test_a_run_is_shown_as_at_its_end(recorded: Path) -> None:
    done = olmes_here("show", "oracle", "--runs", recorded, tmp=recorded.parent)
    assert done.returncode == 0, done.stderr
    assert "smoke average" in done.stdout and "repeat  olmes" in done.stdout
    as_json = json.loads(olmes_here("show", "oracle", "--runs", recorded, "--json", tmp=recorded.parent).stdout)
    assert as_json["tasks"]["tulu3_gsm8k"]["metrics"]["exact_match"]["value"] == 1.0
    one = olmes_here("show", "mock", "gsm8k", "--runs", recorded, tmp=recorded.parent).stdout
    assert "exact_match (primary)" in one and "4 documents" in one


def test_wrong_documents_have_question_reference_and_answer(recorded: Path) -> None:
    done = olmes_here("show", "mock", "gsm8k", "--wrong", "2", "--runs", recorded, "--json", tmp=recorded.parent)
    documents = json.loads(done.stdout)["documents"]
    assert [one["doc_id"] for one in documents] == [0, 1]
    assert documents[0]["question"].startswith("Question: A baker") and documents[0]["reference"] == "7"
    assert documents[0]["run"]["score"] == 0.0 and documents[0]["run"]["response"]
    text = olmes_here("show", "mock", "gsm8k", "--wrong", "2", "--runs", recorded, tmp=recorded.parent).stdout
    assert text.index("question:") < text.index("reference:") < text.index("answer:")
    none = olmes_here("show", "oracle", "gsm8k", "--wrong", "2", "--runs", recorded, tmp=recorded.parent)
    assert none.returncode == 0 and "no document lost points" in none.stdout


def test_flips_show_both_answers(recorded: Path) -> None:
    arguments = ("show", "mock", "gsm8k", "--flips", "oracle", "--runs", recorded)
    documents = json.loads(olmes_here(*arguments, "--json", tmp=recorded.parent).stdout)["documents"]
    assert len(documents) == 4 and {one["run"]["score"] for one in documents} == {0.0}
    assert all(one["other"]["score"] == 1.0 and one["other"]["response"] for one in documents)


def test_documents_without_a_score_are_no_flips(recorded: Path, tmp_path: Path) -> None:
    for run in recorded.iterdir():
        shutil.copytree(run, tmp_path / "runs" / run.name)
    path = next(tmp_path.glob("runs/mock-*")) / "instances/tulu3_gsm8k.parquet"
    table = pq.read_table(path)
    scores = pa.array([None, *table["score"].to_pylist()[1:]], pa.float64())
    pq.write_table(table.set_column(table.schema.get_field_index("score"), "score", scores), path)
    for run, other in (("mock", "oracle"), ("oracle", "mock")):
        done = olmes_here("show", run, "gsm8k", "--flips", other, "--runs", tmp_path / "runs", tmp=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("· document") == 3 and "document 0" not in done.stdout


def test_a_failed_task_has_no_documents_to_show(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    command = ("eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", mirror, "--runs", tmp_path / "runs")
    assert olmes_here(*command, tmp=tmp_path).returncode != 0
    done = olmes_here("show", "mock", "gsm8k", "--wrong", "1", "--runs", tmp_path / "runs", tmp=tmp_path)
    assert "has no scored documents of tulu3_gsm8k: data set openai/gsm8k" in one_line_error(done)
    run = Run(next((tmp_path / "runs").glob("mock-*")))
    with pytest.raises(UsageError, match="has no scored documents of tulu3_gsm8k: data set"):
        run.documents("gsm8k")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("oracle", "--wrong", "1"), "need a task"),
        (("oracle", "drop"), "no task 'drop'"),
        (("oracle", "ifeval", "--flips", "mock"), "no task 'tulu3_ifeval'"),
        (("nothing",), "no run 'nothing'"),
        (("o",), "ambiguous: 2 runs"),
    ],
)
def test_wrong_usage_is_one_line(recorded: Path, arguments: tuple[str, ...], message: str) -> None:
    done = olmes_here("show", *arguments, "--runs", recorded, tmp=recorded.parent)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1


def test_a_checkpoint_stands_for_its_run(tmp_path: Path) -> None:
    from olmes_suite.errors import UsageError
    from olmes_suite.runs.locate import locate

    (tmp_path / "checkpoints/step_9").mkdir(parents=True)
    for name, model in (("a-1", "checkpoints/step_9"), ("b-1", "org/step_9"), ("b-2", "org/other")):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "results.json").write_text("{}")
        manifest = {
            "schema": "1.0",
            "run": name,
            "folder": str(tmp_path),
            "model": {"path": model},
            "tasks": {},
            "plan": [],
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
    runs = tmp_path / "runs"
    assert locate(str(tmp_path / "checkpoints/step_9"), runs).name == "a-1"
    assert locate("other", runs).name == "b-2"
    assert locate("a", runs).name == "a-1"
    with pytest.raises(UsageError, match="ambiguous: 2 runs"):
        locate("step_9", runs)


def test_spellings_of_lm_eval(recorded: Path, tmp_path: Path) -> None:
    several = ("eval", "--backend", "mock", "--data", "sample", "--runs", tmp_path / "runs", "--json")
    done = olmes_here(*several, "--tasks", "gsm8k,popqa", tmp=tmp_path)
    assert {"tulu3_gsm8k", "tulu3_popqa"} == set(json.loads(done.stdout)["tasks"])
    same = olmes_here(*several, "--task", "gsm8k", "--task", "popqa", tmp=tmp_path)
    assert json.loads(same.stdout)["run"] == json.loads(done.stdout)["run"]
    done = olmes_here("eval", "--model", "hf", "--model_args", "pretrained=org/m,dtype=float32", tmp=tmp_path)
    assert done.returncode == 2 and "olmes eval --model org/m --backend hf" in done.stderr


@pytest.mark.parametrize("word", ["list", "help"])
def test_the_list_of_tasks_needs_no_model(tmp_path: Path, word: str) -> None:
    done = olmes_here("eval", "--tasks", word, tmp=tmp_path)
    assert done.returncode == 0 and done.stdout == olmes_here("tasks", tmp=tmp_path).stdout
    assert "olmes tasks" in done.stderr and not (tmp_path / "runs").exists()
    as_json = olmes_here("eval", "--tasks", word, "--json", tmp=tmp_path)
    assert json.loads(as_json.stdout)[0]["available"] is True


def test_a_model_that_was_not_evaluated_is_no_run(tmp_path: Path) -> None:
    from olmes_suite.errors import UsageError
    from olmes_suite.runs.locate import locate

    (tmp_path / "model").mkdir()
    (tmp_path / "runs").mkdir()
    with pytest.raises(UsageError, match="is not a run: it has no results"):
        locate(str(tmp_path / "model"), tmp_path / "runs")
    (tmp_path / "model/config.json").write_text("{}")
    with pytest.raises(UsageError, match=r"model is a model, and .*runs has no finished run of it: evaluate it first"):
        locate(str(tmp_path / "model"), tmp_path / "runs")
