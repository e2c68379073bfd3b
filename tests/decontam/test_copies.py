"""Clean copies of whole sets: folders, patterns, saved data sets, names, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decontam_fixture import SECRET, Decontam, lines


def upper(row: dict[str, Any]) -> dict[str, Any]:
    return {"up": row["prompt"].upper()}


@pytest.mark.parametrize("splits", [False, True])
def test_a_saved_data_set_does_not_bring_its_cache(splits: bool, tmp_path: Path, decontam: Decontam) -> None:
    """Results of `map` on the original are kept beside it, under its fingerprint."""
    import datasets

    whole = datasets.Dataset.from_list([{"prompt": SECRET}, {"prompt": "ok"}, {"prompt": "fine"}], split="train")
    whole.info.splits = datasets.SplitDict({"train": datasets.SplitInfo("train", 5, 3)})
    place, below = tmp_path / "set", "train" if splits else "."
    (datasets.DatasetDict({"train": whole, "test": whole.select([1])}) if splits else whole).save_to_disk(str(place))
    original = datasets.load_from_disk(str(place / below))
    assert len(original.map(upper)) == 3 and list((place / below).glob("cache-*"))
    (place / below / "leftover.arrow").write_bytes(b"an old shard")
    assert decontam("clean", place)[0] == 0
    copy = decontam.out / "clean/set"
    assert not list(copy.rglob("cache-*")) and not list(copy.rglob("leftover*"))
    cleaned = datasets.load_from_disk(str(copy / below))
    assert cleaned.map(upper)["prompt"][:] == ["ok", "fine"]
    assert cleaned._fingerprint != original._fingerprint and cleaned.info.splits["train"].num_examples == 2
    if splits:
        assert len(datasets.load_from_disk(str(copy))["test"]) == 1


def test_a_saved_data_set_with_nothing_to_remove_keeps_its_fingerprint(tmp_path: Path, decontam: Decontam) -> None:
    import datasets

    datasets.Dataset.from_list([{"prompt": "ok"}]).save_to_disk(str(tmp_path / "set"))
    assert decontam("clean", tmp_path / "set")[0] == 0
    for path in (tmp_path / "set").iterdir():
        assert (decontam.out / "clean/set" / path.name).read_bytes() == path.read_bytes()


def test_a_pattern_over_folders_is_cleaned(tmp_path: Path, decontam: Decontam) -> None:
    for name in ("a", "b"):
        (tmp_path / "p" / name).mkdir(parents=True)
        (tmp_path / "p" / name / "train.jsonl").write_bytes(lines({"prompt": SECRET}, {"prompt": name}))
    assert decontam("clean", tmp_path / "p/*/train.jsonl")[0] == 0
    for name in ("a", "b"):
        assert (decontam.out / "clean/p" / name / "train.jsonl").read_bytes() == lines({"prompt": name})


def test_a_list_keeps_the_bytes_of_its_elements(tmp_path: Path, decontam: Decontam) -> None:
    secret, kept = f'{{"prompt": "{SECRET}"}}', r'{"prompt": "caf\u00e9 \ud800", "x": 1.10, "big": 1e400}'
    path = tmp_path / "t.json"
    for before, after in (
        (f"[{secret}, {kept}]", f"[ {kept}]"),
        (f"[\n  {kept},\r\n  {secret}\n]\n", f"[\n  {kept}\n]\n"),
        (f" [{kept} , {secret},{kept}\t] ", f" [{kept} ,{kept}\t] "),
        (f"[{secret}]", "[]"),
    ):
        path.write_bytes(before.encode())
        assert decontam("clean", path)[0] == 0
        assert (decontam.out / "clean/t.json").read_bytes() == after.encode()


def test_a_set_with_rows_that_cannot_be_read_is_refused_before_anything_is_written(
    tmp_path: Path, decontam: Decontam
) -> None:
    (tmp_path / "good.jsonl").write_bytes(lines({"prompt": SECRET}))
    (tmp_path / "bad.jsonl").write_bytes(lines({"prompt": "a"}) + f"no json {SECRET}\n".encode())
    code, _, errors = decontam("clean", tmp_path / "good.jsonl", tmp_path / "bad.jsonl")
    assert code == 2 and "bad.jsonl could not be read in full, so no clean copy was written" in errors
    assert not (decontam.out / "clean").exists()


def test_two_sets_never_share_a_place(tmp_path: Path, decontam: Decontam) -> None:
    sets = ["a/x.jsonl", "b/x.jsonl", "c/2-x.jsonl"]
    for name in sets:
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(lines({"prompt": name}))
    assert decontam("clean", *(tmp_path / name for name in sets))[0] == 0
    found = {path.name: json.loads(path.read_text())["prompt"] for path in (decontam.out / "clean").iterdir()}
    assert found == {"x.jsonl": "a/x.jsonl", "3-x.jsonl": "b/x.jsonl", "2-x.jsonl": "c/2-x.jsonl"}


def test_a_copy_never_takes_the_place_of_the_data(tmp_path: Path, decontam: Decontam) -> None:
    train = decontam.out / "clean/mix.jsonl"
    train.parent.mkdir(parents=True)
    train.write_bytes(lines({"prompt": SECRET}, {"prompt": "a"}))
    code, _, errors = decontam("clean", train)
    assert code == 2 and "would replace training data" in errors and SECRET.encode() in train.read_bytes()


def test_parquet_with_views_and_metadata_of_its_own(tmp_path: Path, decontam: Decontam) -> None:
    schema = pa.schema([("prompt", pa.string()), ("s", pa.string_view()), ("b", pa.binary_view())], {"note": "in"})
    table = pa.table({"prompt": [SECRET, "a", None], "s": ["x" * 20, None, "z" * 20], "b": [b"x", b"y", None]}, schema)
    path = tmp_path / "t.parquet"
    with pq.ParquetWriter(path, schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"added": "later"})
    assert decontam("clean", path)[0] == 0
    copy = pq.ParquetFile(decontam.out / "clean/t.parquet")
    assert copy.read().to_pylist() == table.to_pylist()[1:]
    assert copy.schema_arrow.equals(pq.read_schema(path), check_metadata=True)
    before = pq.read_metadata(path).metadata
    assert {k: v for k, v in copy.metadata.metadata.items() if k != b"ARROW:schema"} == {
        k: v for k, v in before.items() if k != b"ARROW:schema"
    }


def test_blank_lines_of_csv_stay(tmp_path: Path, decontam: Decontam) -> None:
    records = [b"prompt,answer\r\n", b"\r\n", f'"{SECRET}",1\r\n'.encode(), b'"a\r\nb",2\r\n', b"\r\n", b"last,3"]
    (tmp_path / "t.csv").write_bytes(b"".join(records))
    assert decontam("clean", tmp_path / "t.csv")[0] == 0
    assert (decontam.out / "clean/t.csv").read_bytes() == b"".join(records[:2] + records[3:])
