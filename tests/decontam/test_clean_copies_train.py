"""What `decontam clean` writes, `olmes train` reads: one reader of files serves both."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from decontam_fixture import SECRET, Decontam, lines

from train_plugins.config.recipe import DataEntry
from train_plugins.data.sets import load
from train_plugins.stages import registry

ROWS = [{"instruction": asked, "output": "Yes."} for asked in ("What is one?", SECRET, "What is two?")]


def trained(path: Path) -> list[str]:
    stage = registry.find("sft")
    found = load([DataEntry(path=str(path))], stage.form, stage.reads).sets[0]
    return [turns[0]["content"] for turns in found.rows["messages"]]


def write(path: Path) -> None:
    content = json.dumps(ROWS, indent=1).encode() if ".json" in path.suffixes else lines(*ROWS)
    if ".csv" in path.suffixes:
        content = b"instruction,output\n" + b"".join(f"{row['instruction']},Yes.\n".encode() for row in ROWS)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as sink:
            sink.write(content)
    else:
        path.write_bytes(b"\xef\xbb\xbf" + content)


@pytest.mark.parametrize(
    "name",
    ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "a.json", "a.json.gz", "a.json.zst", "a.csv", "a.csv.gz", "a.parquet"],
)
def test_a_clean_copy_is_trained_on(name: str, tmp_path: Path, decontam: Decontam) -> None:
    write(tmp_path / name)
    code, _, errors = decontam("clean", tmp_path / name)
    assert code in (0, 1), errors
    assert trained(decontam.out / "clean" / name) == ["What is one?", "What is two?"]


def test_a_clean_copy_of_a_datasets_directory_is_trained_on(tmp_path: Path, decontam: Decontam) -> None:
    import datasets

    whole = datasets.Dataset.from_list(ROWS)
    datasets.DatasetDict({"train": whole, "test": whole}).save_to_disk(str(tmp_path / "set"))
    decontam("clean", tmp_path / "set")
    assert trained(decontam.out / "clean/set") == ["What is one?", "What is two?"]


def test_a_row_over_many_lines_is_cut_from_its_file(tmp_path: Path, decontam: Decontam) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.json").write_text(json.dumps(ROWS[1], indent=2))
    write(tmp_path / "set/b.jsonl")
    decontam("clean", tmp_path / "set")
    assert trained(decontam.out / "clean/set") == ["What is one?", "What is two?"]
