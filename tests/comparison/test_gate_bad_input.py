"""Wrong scores, rules, baselines and damaged runs: one line, the right exit status, nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from gate_runs import Cli, imported, one_line, two_runs, write_scores

WRONG = {
    "suites": "x", "failed": [1], "run": 3, "tasks": {"maths": {"doc_ids": [[1]], "scores": [1], "n": 1}},
    "limit": "all", "groups": {"maths": {"flags": [1], "primary": None}}, "schema": None,
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
def test_a_wrong_baseline_file_is_one_line(cli: Cli, key: str) -> None:
    two_runs(cli, maths=(1, 1, 50))
    cli("baseline", "save", "a", "base.json")
    Path("wrong.json").write_text(json.dumps({**json.loads(Path("base.json").read_text()), key: WRONG[key]}))
    one_line(cli("gate", "--baseline", "wrong.json", "--candidate", "b"), 2 if key == "schema" else 5)
    one_line(cli("compare", "wrong.json", "b"), 2)


RULES = {
    "alhpa: 0.1": "did you mean 'alpha'",
    "margin: wide": "margin: expected a number from 0 to 100 (in points), not 'wide'",
    "tasks: {maths: {requird: true}}": "did you mean 'required'",
    "tasks: {mats: {margin: 1}}": "did you mean 'maths'",
    "tasks: [maths]": "expected a mapping",
    "skills: {mth: {margin: 2}}": "no task has the skill 'mth', did you mean 'math'?",
    "health: {empty: 5}": "from 0 to 1",
    "inconclusive: maybe": "'maybe' is none of pass, fail, exit3",
    "- 1": "expected a mapping",
    "a: [": "cannot be read",
}


@pytest.mark.parametrize("text", RULES)
def test_wrong_rules_are_one_line(cli: Cli, text: str) -> None:
    two_runs(cli, maths=(1, 1, 10))
    Path("gate.yaml").write_text(text)
    done = cli("gate", "--baseline", "a", "--candidate", "b", "--config", "gate.yaml")
    assert RULES[text] in one_line(done, 2)


LINES = {
    '{"task": "t", "doc_id": 1}': "expected an object",
    '{"task": "t", "doc_id": 1, "score": 85}': "fraction from 0 to 1",
    '{"task": "t", "doc_id": 1, "score": NaN}': "fraction from 0 to 1",
    '{"task": "t", "doc_id": 1.5, "score": 1}': "`doc_id` must be",
    '{"task": "", "doc_id": 1, "score": 1}': "`task` must be",
    '{"task": "t", "doc_id": 0, "score": 1}': "is given twice",
    "not json": "not JSON",
    "[" * 100_000: "not JSON",
}


@pytest.mark.parametrize("line", LINES)
def test_wrong_scores_are_one_line(cli: Cli, line: str) -> None:
    Path("f.jsonl").write_text('{"task": "t", "doc_id": 0, "score": 1}\n' + line + "\n")
    said = one_line(cli("import", "scores", "f.jsonl", "--name", "a"), 2)
    assert "line 2" in said
    assert LINES[line] in said
    assert not Path("runs/a").exists()


@pytest.mark.parametrize("name", ["", "a/b", "../a", ".hidden"])
def test_names_that_leave_the_run_store_are_refused(cli: Cli, name: str) -> None:
    write_scores(Path("f.jsonl"), {"t": [1.0]})
    one_line(cli("import", "scores", "f.jsonl", "--name", name), 2)


def test_a_hostile_task_name_stays_in_the_run(cli: Cli) -> None:
    imported(cli, "a", {"../../../escape": [1.0, 0.0], "ok": [1.0]})
    assert [path.name for path in Path("runs/a/instances").iterdir() if "escape" in path.name]
    assert not list(Path().glob("**/escape*"))
    assert cli("compare", "a", "a")[0] == 0


def test_an_existing_run_is_not_overwritten(cli: Cli) -> None:
    imported(cli, "a", {"t": [1.0]})
    assert "--again replaces it" in one_line(cli("import", "scores", "a.jsonl", "--name", "a"), 2)
    assert cli("import", "scores", "a.jsonl", "--name", "a", "--again")[0] == 0


def damage_parquet(run: Path) -> None:
    """Cut a file of instances in half."""
    file = next((run / "instances").iterdir())
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_manifest(run: Path) -> None:
    """A manifest of a future version."""
    text = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**text, "schema": "9.0"}))


def damage_results(run: Path) -> None:
    """No JSON."""
    (run / "results.json").write_text("{")


def damage_scores(run: Path) -> None:
    """A document without a score."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next((run / "instances").iterdir())
    found = pq.read_table(file)
    scores = [None, *found["score"].to_pylist()[1:]]
    pq.write_table(found.set_column(found.column_names.index("score"), "score", pa.array(scores, pa.float64())), file)


def damage_documents(run: Path) -> None:
    """A document twice."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = next((run / "instances").iterdir())
    found = pq.read_table(file)
    pq.write_table(pa.concat_tables([found, found.slice(0, 1)]), file)


@pytest.mark.parametrize(
    ("damage", "compare_status", "gate_status", "said"),
    [
        (damage_parquet, 2, 5, "cannot be read"),
        (damage_manifest, 2, 2, "newer olmes-suite"),
        (damage_results, 2, 5, "cannot be read"),
        (damage_scores, 2, 5, "without a score"),
        (damage_documents, 2, 5, "more than once"),
    ],
)
def test_damaged_runs_are_one_line(
    cli: Cli, damage: Callable[[Path], None], compare_status: int, gate_status: int, said: str
) -> None:
    two_runs(cli, maths=(1, 1, 50))
    damage(Path("runs/b"))
    assert said in one_line(cli("compare", "a", "b"), compare_status)
    assert said in one_line(cli("gate", "--baseline", "a", "--candidate", "b"), gate_status)


def test_unknown_runs_name_the_nearest(cli: Cli) -> None:
    imported(cli, "checkpoint-100", {"t": [1.0]})
    assert "did you mean 'checkpoint-100'" in one_line(cli("compare", "checkpont-100", "checkpoint-100"), 2)
    assert "two runs are needed" in one_line(cli("compare", "checkpoint-100"), 2)


def test_places_that_cannot_be_written_are_one_line(cli: Cli) -> None:
    two_runs(cli, maths=(1, 1, 50))
    Path("folder").mkdir()
    one_line(cli("baseline", "save", "a", "folder"), 2)
    for option in ("--junit", "--summary", "--report"):
        assert "cannot write" in one_line(cli("gate", "--baseline", "a", "--candidate", "b", option, "folder"), 2)
    assert "cannot write" in one_line(cli("gate", "--baseline", "a", "--candidate", "b", "--summary", "no/s.md"), 2)
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []
