"""Clean copies are the original without some rows: the bytes of text files, the schema and layout of columnar ones."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from decontam.training_data.copies import write
from olmes_suite.training_rows.files import Block, kind_of

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=20)
NEWLINES = st.sampled_from([b"\n", b"\r\n"])
QUICK = settings(max_examples=40, deadline=None)


def cleaned(path: Path, drop: set[int]) -> Path:
    target = path.with_name("clean-" + path.name)
    kind = kind_of(path)
    assert kind is not None
    write(Block(path, kind), target, drop)
    return target


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[str], set[int], bytes, bool]:
    """Texts, rows to drop, the line ending, and whether the last line has one."""
    texts = draw(st.lists(TEXTS, min_size=1, max_size=8))
    drop = draw(st.sets(st.integers(0, len(texts) - 1)))
    return texts, drop, draw(NEWLINES), draw(st.booleans())


def unpacked(path: Path) -> bytes:
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".zst":
        with pa.CompressedInputStream(str(path), "zstd") as stream:
            return bytes(stream.read())
    return path.read_bytes()


def pack(path: Path, content: bytes) -> Path:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as sink:
            sink.write(content)
    else:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@QUICK
@given(cases(), st.integers(0, 3))
def test_json_lines_keep_their_bytes(suffix: str, case: Any, spaces: int) -> None:
    texts, drop, newline, ended = case
    lines = [
        b" " * spaces + json.dumps({"prompt": text}, ensure_ascii=i % 2 == 0).encode() for i, text in enumerate(texts)
    ]
    lines = [line + (newline if ended or i < len(lines) - 1 else b"") for i, line in enumerate(lines)]
    with tempfile.TemporaryDirectory() as folder:
        path = pack(Path(folder) / f"t.jsonl{suffix}", b"".join(lines))
        assert unpacked(cleaned(path, drop)) == b"".join(line for i, line in enumerate(lines) if i not in drop)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz"])
@QUICK
@given(cases(), st.booleans())
def test_csv_keeps_its_bytes(suffix: str, case: Any, marked: bool) -> None:
    """Cells with line breaks, quotes and separators; either line ending; with and without a byte order mark."""
    texts, drop, newline, _ = case
    records = []
    for cells in [["prompt", "answer"], *([text, "a"] for text in texts)]:
        written = io.StringIO()
        separator = "\t" if suffix == ".tsv" else ","
        csv.writer(written, delimiter=separator, lineterminator=newline.decode()).writerow(cells)
        records.append(written.getvalue().encode())
    records[0] = (b"\xef\xbb\xbf" if marked else b"") + records[0]
    with tempfile.TemporaryDirectory() as folder:
        path = pack(Path(folder) / f"t{suffix}", b"".join(records))
        kept = [records[0], *(record for i, record in enumerate(records[1:]) if i not in drop)]
        assert unpacked(cleaned(path, drop)) == b"".join(kept)


@QUICK
@given(cases(), st.sampled_from(["snappy", "zstd", "gzip", "none"]), st.integers(1, 4))
def test_parquet_keeps_schema_metadata_groups_and_compression(case: Any, codec: str, group: int) -> None:
    texts, drop, _, _ = case
    schema = pa.schema(
        [
            pa.field("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.large_string())]))),
            pa.field("id", pa.int32(), nullable=False, metadata={"unit": "row"}),
            pa.field("kind", pa.dictionary(pa.int32(), pa.string())),
        ],
        metadata={"huggingface": '{"info": {}}', "note": "kept"},
    )
    rows = [{"messages": [{"role": "user", "content": t}], "id": i, "kind": "ab"[i % 2]} for i, t in enumerate(texts)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, compression=codec, row_group_size=group)
        before, after = pq.ParquetFile(path), pq.ParquetFile(cleaned(path, drop))
        assert after.schema_arrow.equals(before.schema_arrow, check_metadata=True)
        assert after.read().to_pylist() == [row for i, row in enumerate(rows) if i not in drop]
        assert after.metadata.num_row_groups == before.metadata.num_row_groups
        codecs = [f.metadata.row_group(0).column(0).compression for f in (before, after)]
        assert codecs[0] == codecs[1]


@pytest.mark.parametrize("streamed", [True, False])
@QUICK
@given(cases(), st.integers(1, 4))
def test_arrow_keeps_schema_metadata_and_format(streamed: bool, case: Any, batch: int) -> None:
    texts, drop, _, _ = case
    schema = pa.schema([("prompt", pa.string()), ("id", pa.int16())], metadata={"huggingface": "{}"})
    table = pa.Table.from_pylist([{"prompt": text, "id": i} for i, text in enumerate(texts)], schema=schema)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.arrow"
        make = pa.ipc.new_stream if streamed else pa.ipc.new_file
        with make(str(path), schema) as writer:
            writer.write_table(table, max_chunksize=batch)
        target = cleaned(path, drop)
        with (pa.ipc.open_stream if streamed else pa.ipc.open_file)(pa.memory_map(str(target))) as reader:
            after = reader.read_all()
        assert after.schema.equals(schema, check_metadata=True)
        assert after.to_pylist() == [row for i, row in enumerate(table.to_pylist()) if i not in drop]
