"""Tasks that are a file of questions and answers: columns, metrics, and errors about files that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from olmes_suite.errors import OlmesError, UsageError
from olmes_suite.evaluation.gold_check import check
from olmes_suite.evaluation.prompts import requests
from olmes_suite.scoring.answer_metrics import contains, exact_match, f1, number, stated_letter
from olmes_suite.tasks import catalog, external
from olmes_suite.tasks.documents import DataSource
from olmes_suite.tasks.load import load_task

ROWS = [{"question": "What is 2+2?", "answer": "4"}, {"question": "What is 3+5?", "answer": "So it is #### 8"}]


def task(folder: Path, text: str, rows: list[dict[str, Any]] | None = None, name: str = "rows.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in (ROWS if rows is None else rows)))
    path = folder / "mine.yaml"
    path.write_text("task: mine\ndata: " + name + "\n" + text)
    return path


def asked(folder: Path) -> list[dict[str, Any]]:
    with catalog.including([folder]):
        return list(requests("mine", DataSource()))


def test_three_lines_are_a_task(tmp_path: Path) -> None:
    task(tmp_path, "metric: number\n")
    lines = asked(tmp_path)
    assert [line["messages"] for line in lines] == [[{"role": "user", "content": row["question"]}] for row in ROWS]
    assert (lines[0]["reference"], lines[0]["temperature"], lines[0]["max_tokens"]) == ("4", 0.0, 512)
    with catalog.including([tmp_path]):
        assert catalog.find("mine").primary == "number"
        assert [one.problems for one in check(["mine"], DataSource(), None, lambda _: None)] == [[]]


def test_a_column_that_names_rows_does_not_number_the_documents(tmp_path: Path) -> None:
    task(tmp_path, "", [{**row, "_row": 7} for row in ROWS])
    assert [line["doc_id"] for line in asked(tmp_path)] == [0, 1]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".json", ".parquet"])
def test_other_kinds_of_files(tmp_path: Path, suffix: str) -> None:
    task(tmp_path, "metric: number\n", name=f"rows{suffix}")
    if suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "rows.parquet")
    elif suffix == ".json":
        (tmp_path / "rows.json").write_text(json.dumps(ROWS, indent=1))
    else:
        mark = "," if suffix == ".csv" else "\t"
        (tmp_path / f"rows{suffix}").write_text(
            "".join(f"{mark.join(row.values())}\n" for row in [dict(q="question", a="answer"), *ROWS])
        )
    assert [line["reference"] for line in asked(tmp_path)] == ["4", "So it is #### 8"]


@pytest.mark.parametrize(
    ("row", "right"),
    [
        ({"question": "?", "choices": ["red", "blue"], "answer": 1}, "B"),
        ({"question": "?", "choices": ["red", "blue"], "answer": "blue"}, "B"),
        ({"question": "?", "options": ["red", "blue"], "label": "(A)"}, "A"),
        ({"question": "?", "options": {"text": ["red", "blue"], "label": ["1", "2"]}, "answer": 0}, "A"),
        ({"problem": "?", "A": "red", "B": "blue", "C": "", "answer": "b"}, "B"),
        ({"question": "?", "choices": "['red', 'blue']", "answer": "1"}, "B"),
        ({"question": "?", "choices": ["1", "2", "3"], "answer": "1"}, "A"),
    ],
)
def test_choices_in_the_forms_of_data_sets(tmp_path: Path, row: dict[str, Any], right: str) -> None:
    task(tmp_path, "", [row])
    lines = asked(tmp_path)
    assert {line["kind"] for line in lines} == {"loglikelihood"}
    assert [line["continuation"].strip() for line in lines][:2] == ["A", "B"] and len(lines) in (2, 3)
    assert "ABC"[lines[0]["reference"]] == right
    task(tmp_path, "metric: exact_match\n", [row])
    (generated,) = asked(tmp_path)
    assert generated["reference"] == right and " B. " in generated["messages"][0]["content"]


def test_prompt_system_and_examples(tmp_path: Path) -> None:
    (tmp_path / "shots.jsonl").write_text(json.dumps({"question": "1+1?", "answer": ["2", "two"]}) + "\n")
    task(tmp_path, 'prompt: "Q: {{question}}{{unit}}"\ndescription: Be brief.\nexamples: shots.jsonl\nstop: ["\\n"]\n')
    with pytest.raises(OlmesError, match="prompt: 'unit' is undefined; columns are question, answer"):
        asked(tmp_path)
    task(tmp_path, 'prompt: "Q: {{question}}"\ndescription: Be brief.\nexamples: shots.jsonl\nstop: ["\\n"]\n')
    first = asked(tmp_path)[0]
    turns = [(turn["role"], turn["content"]) for turn in first["messages"]]
    assert turns == [("system", "Be brief."), ("user", "Q: 1+1?"), ("assistant", "2"), ("user", "Q: What is 2+2?")]
    assert first["stop"] == ["\n"]


@pytest.mark.parametrize(
    ("text", "rows", "said"),
    [
        ("metric: exactmatch\n", None, "metric: unknown 'exactmatch', did you mean 'exact_match'?"),
        ("metrik: f1\n", None, "metrik"),
        ("question: questoin\n", None, r"no column 'questoin', did you mean 'question'\?; it has question, answer"),
        ("", [{"q": "?", "answer": "4"}], r"no column for the question \(such as question, .*`question: COLUMN`"),
        ("", [{"question": "?", "a": "4"}], "no column for the answer"),
        ("choices: options\n", None, "no column 'options'"),
        ("metric: acc\n", None, "acc needs choices"),
        ("metric: f1\n", [{"question": "?", "choices": ["a", "b"], "answer": "a"}], "with choices it is acc"),
        ("", [{"question": "?", "choices": ["a", "b"], "answer": 2}], "row 0: answer: 2 is not the index of a choice"),
        ("", [{"question": "?", "choices": ["a", "b"], "answer": "c"}], "row 0: answer: 'c' is none of the choices"),
        ("", [*ROWS, {"question": "?", "answer": ""}], "row 2: answer: has no answer"),
        ("", [*ROWS, {"question": " ", "answer": "4"}], "row 2: question: is empty"),
        ("", [{"question": "?", "answer": {"value": "4"}}], "row 0: answer: expected a text, a number or a list"),
        ("metric: number\n", [{"question": "?", "answer": "four"}], "'four' has no number"),
        ("doc_to_text: x\n", None, "line 3: doc_to_text does not go with `data`"),
        ("num_fewshot: 2\n", None, "num_fewshot needs `examples`"),
        ("examples: none.jsonl\n", None, "there is no file"),
        ("max_tokens: 0\n", None, "max_tokens: must be at least 1"),
        ("", [], "has no rows"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, rows: list[dict[str, Any]] | None, said: str) -> None:
    path = task(tmp_path, text, rows)
    with pytest.raises(OlmesError, match=said) as found:
        load_task(path, DataSource())
    assert "\n" not in str(found.value) and str(tmp_path) in str(found.value)


def test_a_file_that_is_not_there_or_has_no_rows_by_its_kind(tmp_path: Path) -> None:
    path = task(tmp_path, "")
    path.write_text("task: mine\ndata: absent.jsonl\n")
    with pytest.raises(UsageError, match="there is no file"):
        load_task(path, DataSource())
    (tmp_path / "rows.txt").write_text("x")
    path.write_text("task: mine\ndata: rows.txt\n")
    with pytest.raises(UsageError, match=r"rows\.txt: not a file of rows; known are \.parquet"):
        load_task(path, DataSource())


def test_names_with_comments_and_the_other_ending_are_found(tmp_path: Path) -> None:
    task(tmp_path, "").rename(tmp_path / "other.yml")
    (tmp_path / "other.yml").write_text("task: mine   # sums\ndata: rows.jsonl\n")
    with catalog.including([tmp_path]):
        assert [entry.name for entry in catalog.own([tmp_path])] == ["mine"]


def test_the_name_of_a_shipped_task_is_refused(tmp_path: Path) -> None:
    task(tmp_path, "").write_text("task: gsm8k\ndata: rows.jsonl\n")
    with catalog.including([tmp_path]), pytest.raises(UsageError, match="'gsm8k', which is that of a shipped task"):
        catalog.find("gsm8k")


def test_a_group_of_tasks_with_different_metrics_has_no_average(tmp_path: Path) -> None:
    task(tmp_path, "metric: number\n")
    (tmp_path / "b.yaml").write_text("task: other\ndata: rows.jsonl\n")
    (tmp_path / "g.yaml").write_text("group: both\ntask: [mine, other]\n")
    with pytest.raises(UsageError, match="the metric of mine is number, that of other is exact_match"):
        external.find("both", (tmp_path,))


@pytest.mark.parametrize(
    ("metric", "response", "answer", "score"),
    [
        (exact_match, " Paris.\n", "paris", 1), (exact_match, "**4**", "4", 1), (exact_match, "35", "3.5", 0),
        (exact_match, "It is Paris", "Paris", 0), (exact_match, "-4", "4", 0),
        (contains, "It is  new\nYork City.", "New York", 1), (contains, "repainters", "Painter", 0),
        (number, "so 1,000 apples.", "1000.0", 1), (number, "3, no, -4", "#### -4", 1), (number, "none", "4", 0),
        (number, "5 + 4", "9", 0), (number, "$.50", "0.5", 1), (number, "the 4th of 1,23", "23", 1),
        (f1, "the blue sky", "Blue sky!", 1), (f1, "blue", "blue sky", 2 / 3), (f1, "red", "blue", 0),
    ],
)  # fmt: skip
def test_metrics(metric: Any, response: str, answer: str, score: float) -> None:
    assert metric(response, answer) == pytest.approx(score)


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        ("B", "B"), ("(C) because A is wrong", "C"), ("The answer is A. Not B.", "A"), ("Answer: D", "D"),
        ("A good question. The answer is (B)", "B"), ("I think it must be C", "C"), ("no idea", ""),
        ("answer is b", ""),
    ],
)  # fmt: skip
def test_the_letter_that_a_response_states(response: str, letter: str) -> None:
    assert stated_letter(response, "ABCD") == letter
