"""Nothing that a training row asks is passed over in silence: roles, columns, encodings, folders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decontam_fixture import SECRET, Decontam, lines


def written(path: Path, rows: Sequence[Any]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_bytes(lines(*rows))
    return path


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
@pytest.mark.parametrize("turn", [{"role": "User", "content": SECRET}, {"from": " HUMAN", "value": SECRET}])
def test_roles_are_known_whatever_their_capitals(name: str, turn: Any, tmp_path: Path, decontam: Decontam) -> None:
    assert decontam("scan", written(tmp_path / name, [{"messages": [turn]}]))[0] == 1
    assert decontam.hits() == [0]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
def test_a_role_that_is_not_known_is_named_once(name: str, tmp_path: Path, decontam: Decontam) -> None:
    known = {"role": "user", "content": "hello"}
    rows = [{"messages": [known]}, *[{"messages": [known, {"role": "patient", "content": SECRET}]}] * 3]
    code, _, errors = decontam("scan", written(tmp_path / name, rows))
    assert code == 2 and errors.count("role 'patient' is not one of user, assistant, system, tool") == 1
    assert f"{name}, row 1: " in errors
    code, _, errors = decontam("clean", tmp_path / name)
    assert code == 2 and "no clean copy" in errors and not (decontam.out / "clean").exists()


def test_a_role_behind_null_rows_and_slices_is_counted_in_its_row(tmp_path: Path, decontam: Decontam) -> None:
    turns = [None, [{"role": "user", "content": "a"}], [{"role": None, "content": SECRET}], None,
             [{"role": "user", "content": SECRET}]]  # fmt: skip
    table = pa.table({"messages": turns})
    with pa.OSFile(str(tmp_path / "t.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    code, _, errors = decontam("scan", tmp_path / "t.arrow")
    assert code == 1 and "t.arrow, row 2: role None is not one of" in errors and decontam.hits() == [4]


def test_a_set_of_which_nothing_was_compared_is_a_problem(tmp_path: Path, decontam: Decontam) -> None:
    rows = [{"messages": [{"role": "assistant", "content": SECRET}]}]
    code, _, errors = decontam("scan", written(tmp_path / "t.jsonl", rows))
    assert code == 2 and "none of its text was compared" in errors


def broken_text(*texts: bytes) -> pa.Array:
    ends = [0]
    for text in texts:
        ends.append(ends[-1] + len(text))
    offsets = b"".join(end.to_bytes(4, "little") for end in ends)
    return pa.StringArray.from_buffers(len(texts), pa.py_buffer(offsets), pa.py_buffer(b"".join(texts)))


def test_a_list_that_is_not_utf_8_costs_its_row_alone(tmp_path: Path, decontam: Decontam) -> None:
    (tmp_path / "set").mkdir()
    texts = broken_text(b"ok", b"\xff\xfe", SECRET.encode())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), texts)
    pq.write_table(pa.table({"prompt": lists, "other": texts}), tmp_path / "set/a.parquet")
    written(tmp_path / "set/b.jsonl", [{"prompt": SECRET}])
    code, _, errors = decontam("scan", tmp_path / "set")
    assert code == 1 and errors.count("a.parquet, row 1: not UTF-8") == 1 and decontam.hits() == [2, 3]


def test_a_column_that_stands_there_twice_is_one_line(tmp_path: Path, decontam: Decontam) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array([SECRET])] * 2, names=["text", "text"]), tmp_path / "t.parquet")
    code, _, errors = decontam("scan", tmp_path / "t.parquet")
    assert code == 2 and "column 'text' appears more than once" in errors


@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_byte_order_mark_is_no_text(name: str, tmp_path: Path, decontam: Decontam) -> None:
    content = lines({"prompt": SECRET}, {"prompt": "b"})
    if name == "t.json":
        content = json.dumps([{"prompt": SECRET}, {"prompt": "b"}]).encode()
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + content)
    assert decontam("scan", tmp_path / name)[0] == 1 and decontam.hits() == [0]
    assert decontam("clean", tmp_path / name)[0] == 0
    assert SECRET.encode() not in (decontam.out / "clean" / name).read_bytes()
    assert decontam("scan", decontam.out / "clean" / name, out=tmp_path / "again")[0] == 0


def test_the_only_column_of_text_is_looked_for_in_each_row(tmp_path: Path, decontam: Decontam) -> None:
    rows: list[Any] = [{"body": None, "alt": "zz"}, {"body": SECRET, "alt": None}, {"body": None, "alt": None}]
    code, _, errors = decontam("scan", written(tmp_path / "t.jsonl", rows))
    assert code == 1 and decontam.hits() == [1] and "row" not in errors
    both = written(tmp_path / "u.jsonl", [*rows, {"body": SECRET, "alt": "zz"}])
    assert "u.jsonl, row 3: no text was recognised" in decontam("scan", both)[2]


@pytest.mark.parametrize("name", ["t.jsonl", "t.parquet"])
@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "answer", "context": SECRET, "response": "x", "category": "qa"},
        {"question": "who?", "context": SECRET, "answers": {"text": ["x"]}},
        {"question": "who?", "context": {"title": ["x"], "sentences": [["a", SECRET], ["b"]]}},
        {"prompt": "and?", "history": [[SECRET, "an answer"]], "response": "x"},
        {"prompt": "and?", "history": ["hello", SECRET], "response": "x"},
        {"prompt": "and?", "history": [{"role": "user", "content": SECRET}], "response": "x"},
    ],
)
def test_what_stands_around_the_prompt_is_compared(row: Any, name: str, tmp_path: Path, decontam: Decontam) -> None:
    assert decontam("scan", written(tmp_path / name, [row]))[0] == 1 and decontam.hits() == [0]


def test_an_answer_in_the_history_is_the_assistants(tmp_path: Path, decontam: Decontam) -> None:
    train = written(tmp_path / "t.jsonl", [{"prompt": "and?", "history": [["a question", SECRET]]}])
    assert decontam("scan", train)[0] == 0
    assert decontam("scan", train, options=["--roles", "assistant"])[0] == 1


@pytest.mark.parametrize("pattern", ["", "**/*.jsonl"])
@pytest.mark.parametrize("inside", ["report", ""])
def test_descriptions_hidden_folders_and_reports_are_no_data(
    pattern: str, inside: str, tmp_path: Path, decontam: Decontam
) -> None:
    folder = tmp_path / "set"
    (folder / ".ipynb_checkpoints").mkdir(parents=True)
    written(folder / ".ipynb_checkpoints/t.jsonl", [{"prompt": SECRET}])
    written(folder / "t.jsonl", [{"prompt": "hello"}, {"prompt": "What is Paris?"}])
    (folder / "dataset_infos.json").write_text(json.dumps({"default": {"description": "x"}}, indent=1))
    out = folder / inside
    for _ in range(2):
        code, _, errors = decontam("clean", folder / pattern, out=out)
        assert code == 0 and "row" not in errors, errors
        assert json.loads((out / "report.json").read_text())["trains"][0]["rows"] == 2
        kept = sorted(path.name for path in (out / "clean/set").rglob("*") if path.is_file())
        assert kept == (["t.jsonl"] if pattern else ["dataset_infos.json", "t.jsonl"])
