"""Training sets from files and folders: what is read, what is left out and listed, what is refused."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from train_fixture import chat, refused

from olmes_suite.errors import DataError, UsageError
from olmes_suite.hooks import TrainingSet
from train_plugins.config.recipe import DataEntry
from train_plugins.data.encoding import fields_read, turn_fields
from train_plugins.data.sets import BAD_ROWS, load, summary, write_bad_rows
from train_plugins.stages import registry

ROWS = [{"instruction": f"What is {n}?", "input": "", "output": f"It is {n}."} for n in range(5)]


def read(path: Path, kind: str = "sft", **keys: Any) -> TrainingSet:
    stage = registry.find(kind)
    return load([DataEntry(path=str(path), **keys)], stage.form, stage.reads).sets[0]


def lines(rows: Sequence[Any], mark: bytes = b"") -> bytes:
    return mark + b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def zst(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def table(rows: Sequence[Any]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue())


CSV = b"instruction,input,output\n" + b"".join(f"{r['instruction']},,{r['output']}\n".encode() for r in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", lines(ROWS)), ("a.jsonl", lines(ROWS, b"\xef\xbb\xbf")), ("a.ndjson", lines(ROWS)),
        ("a.json", lines(ROWS)), ("a.json", json.dumps(ROWS).encode()), ("a.json", json.dumps(ROWS, indent=1).encode()),
        ("a.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()), ("a.JSONL", lines(ROWS)),
        ("a.jsonl.gz", gzip.compress(lines(ROWS, b"\xef\xbb\xbf"), mtime=0)), ("a.jsonl.zst", zst(lines(ROWS))),
        ("a.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("a.json.zst", zst(json.dumps(ROWS).encode())),
        ("a.parquet", table(ROWS)), ("a.csv", CSV), ("a.csv.gz", gzip.compress(CSV, mtime=0)),
        ("a.tsv", CSV.replace(b",", b"\t")),
    ],
)  # fmt: skip
def test_every_kind_of_file_holds_the_same_rows(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    found = read(tmp_path / name)
    assert found.rows["messages"][3] == chat("What is 3?", "It is 3.") and found.rows["row"] == [0, 1, 2, 3, 4]
    assert f"{name}: 5 rows (alpaca), sha256" in summary(found)[0]


def test_a_file_of_one_row_over_many_lines(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(ROWS[0], indent=2))
    assert len(read(tmp_path / "a.json").rows) == 1


def test_folders_of_datasets_give_the_split(tmp_path: Path) -> None:
    import datasets

    whole = datasets.Dataset.from_list(ROWS)
    whole.save_to_disk(str(tmp_path / "one"))
    datasets.DatasetDict({"train": whole, "test": whole.select([0])}).save_to_disk(str(tmp_path / "splits"))
    assert len(read(tmp_path / "one").rows) == 5
    assert len(read(tmp_path / "splits").rows) == 5 and len(read(tmp_path / "splits", split="test").rows) == 1
    refused(lambda: read(tmp_path / "splits", split="dev"), "has no split 'dev'; it has test, train", DataError)


def test_a_folder_like_one_of_the_hub_gives_the_split(tmp_path: Path) -> None:
    files = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet",
             "data/test-00000-of-00001.parquet", ".cache/huggingface/x.parquet")  # fmt: skip
    for number, name in enumerate(files):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(table(ROWS[: number + 1]))
    (tmp_path / "README.md").write_text("---\n---\n")
    (tmp_path / "dataset_infos.json").write_text("{}")
    found = read(tmp_path)
    assert len(found.rows) == 3 and "split train, 1 files of other splits are not read" in summary(found)[0]
    assert len(read(tmp_path, split="test").rows) == 3
    refused(lambda: read(tmp_path, split="validation"), "has no split 'validation'; it has test, train", DataError)


def test_a_folder_without_names_of_splits_is_read_whole(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.jsonl.gz", "training_set.jsonl"):
        content = lines(ROWS[:2])
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    assert len(read(tmp_path).rows) == 6


def test_forms_are_counted_and_can_be_named(tmp_path: Path) -> None:
    mixed = [*ROWS, {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]
    (tmp_path / "a.jsonl").write_bytes(lines(mixed))
    assert "6 rows (alpaca 5, sharegpt 1)" in summary(read(tmp_path / "a.jsonl"))[0]
    file = tmp_path / "a.jsonl"
    refused(lambda: read(file, form="sharegpt"), "5 of 6 rows cannot be .* row 0 has no 'messages'", DataError)
    refused(lambda: read(file, "rlvr", form="alpaca"), "form alpaca does not fit this stage", UsageError)


BAD = [ROWS[0], {**ROWS[1], "output": ""}, ROWS[2], {"x": 1}]


def test_bad_rows_stop_or_are_left_out_and_listed(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines(BAD) + b"{broken\n" + lines(ROWS[3:]))
    refused(
        lambda: read(file), "3 of 7 rows cannot be trained on; row 1 has an empty assistant turn; `bad_rows: skip`",
        DataError,
    )  # fmt: skip
    found = read(file, bad_rows="skip")
    assert found.rows["row"] == [0, 2, 5, 6]
    assert [bad.row for bad in found.bad] == [1, 3, 4]
    assert "3 bad rows are left out, see bad_rows.jsonl; row 1 has an empty assistant turn" in summary(found)[1]
    write_bad_rows(tmp_path / "out", [found])
    listed = [json.loads(line) for line in (tmp_path / "out" / BAD_ROWS).read_text().splitlines()]
    assert [one["row"] for one in listed] == [1, 3, 4] and "not JSON" in listed[2]["reason"]
    assert listed[0] == {"data": str(file), "row": 1, "file": str(file), "reason": "row 1 has an empty assistant turn"}


def test_a_set_without_a_good_row_is_refused_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"x": 1}]))
    refused(lambda: read(tmp_path / "a.jsonl", bad_rows="skip"), "1 of 1 row cannot be trained on", DataError)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    refused(lambda: read(tmp_path / "empty.jsonl"), "holds no rows", DataError)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl.gz", gzip.compress(lines(ROWS * 900), mtime=0)[:300], "a.jsonl.gz: cannot be read"),
        ("a.jsonl.gz", b"no gzip", "a.jsonl.gz: cannot be read"),
        ("a.jsonl.zst", b"no zst", "a.jsonl.zst: cannot be read"),
        ("a.parquet", b"PAR1", "a.parquet: cannot be read"),
        ("a.json", b'[{"messages": ', "a.json: not JSON"),
        ("a.jsonl", b'["a"]\n', "line 1: not a JSON object"),
        ("a.jsonl", b"\xff\xfe\n", "line 1: not UTF-8"),
        ("a.txt", b"a", "a.txt: not a file of type .parquet"),
    ],
)
def test_a_file_that_cannot_be_read_is_one_line(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused(lambda: read(tmp_path / name), said, DataError)
    if "line" not in said:
        refused(lambda: read(tmp_path / name, bad_rows="skip"), said, DataError)


def test_text_that_is_not_unicode_is_a_bad_row(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines([*ROWS, {"instruction": "a", "output": "half: \ud83d"}]))
    refused(lambda: read(file), "row 5 has text that is not Unicode", DataError)
    assert len(read(file, bad_rows="skip").rows) == 5


def test_a_bad_row_of_a_json_list_is_named_by_its_number(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps([*ROWS, ["a"]]), encoding="utf-8")
    refused(lambda: read(file), "row 5: not a JSON object", DataError)


def test_fields_that_the_template_reads_are_refused(tmp_path: Path) -> None:
    said = chat("Hello?", "Hi.")
    file = tmp_path / "a.jsonl"
    file.write_bytes(lines([{"messages": [{**said[0], "name": "Ann"}, said[1]]}]))
    stage, entry = registry.find("sft"), DataEntry(path=str(file))
    assert len(load([entry], stage.form, stage.reads, fields_read("{{ message.content }}")).sets[0].rows) == 1
    for template in ("{{ message.name }}", "{{ message['name'] }}", '{{ message.get("name") }}'):
        refused(
            lambda t=template: load([entry], stage.form, stage.reads, fields_read(t)), "a turn with 'name'", DataError
        )


def test_a_name_that_the_template_reads_of_tools_alone_is_no_field_of_a_turn() -> None:
    from chat_templates import DROPS, chat_tokenizer

    assert "name" in fields_read(DROPS) and not {"name", "arguments"} & turn_fields(chat_tokenizer(DROPS))
    named = DROPS.replace("'<|im_start|>user\n'", "'<|im_start|>user' + (m.name or '') + '\n'")
    assert named != DROPS and {"name", "reasoning_content"} <= turn_fields(chat_tokenizer(named))
    strict = "{% for m in messages %}{% if m.name %}{{ raise_exception('no names') }}{% endif %}{% endfor %}"
    assert "name" in turn_fields(chat_tokenizer(strict))


def test_a_bad_row_of_a_folder_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines([{"messages": chat("a", "b")}]))
    (tmp_path / "b.jsonl").write_bytes(lines([{"messages": [*chat("a", "b"), {"content": "c"}]}]))
    with pytest.raises(DataError) as caught:
        read(tmp_path)
    said = f"row 1 has a turn without a role (messages[2], with the fields content) (a row of {tmp_path / 'b.jsonl'})"
    assert f"{tmp_path}: 1 of 2 rows cannot be trained on; {said}; `bad_rows: skip`" in str(caught.value)
