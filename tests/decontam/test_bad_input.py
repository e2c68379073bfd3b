"""Training data that cannot be read in full: one line with file and row, and what can be read is scanned."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import environment

from olmes_suite.cli.main import run

SECRET = "One question that nobody else would ever put in quite these words before lunch"


@pytest.fixture
def scan(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[str | Path], tuple[int, list[str], Any]]:
    """Scan a set; gives the exit status, the lines on standard error and the report."""
    (tmp_path / "eval.jsonl").write_text(json.dumps({"task": "own", "doc_id": 7, "text": SECRET}), encoding="utf-8")

    def call(train: str | Path) -> tuple[int, list[str], Any]:
        capfd.readouterr()
        out = tmp_path / "out"
        where = ["--eval", str(tmp_path / "eval.jsonl"), "--out", str(out), "--workers", "1"]
        code = run(["decontam", "scan", "--train", str(train), *where])
        errors = [line for line in capfd.readouterr().err.splitlines() if not line.endswith(" blocks")]
        found = json.loads((out / "report.json").read_text()) if (out / "report.json").is_file() else None
        return code, errors, found

    return call


def lines(rows: list[Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def noise(count: int) -> list[dict[str, str]]:
    """Rows that do not pack well, the first with the secret in it."""
    draw = random.Random(0)
    return [{"prompt": SECRET}, *({"prompt": draw.randbytes(60).hex()} for _ in range(count))]


def saved(folder: Path) -> Path:
    import datasets

    datasets.Dataset.from_list(noise(50)).save_to_disk(str(folder))
    return next(folder.glob("*.arrow"))


def cut(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def truncated_zst(folder: Path) -> Path:
    path = folder / "t.jsonl.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as sink:
        sink.write(lines(noise(8000)))
    return cut(path)


def truncated_gz(folder: Path) -> Path:
    import gzip

    path = folder / "t.jsonl.gz"
    path.write_bytes(gzip.compress(lines(noise(8000))))
    return cut(path)


@pytest.mark.parametrize("make", [truncated_gz, truncated_zst])
def test_what_stands_before_the_end_of_a_truncated_file_is_scanned(make: Any, tmp_path: Path, scan: Any) -> None:
    path = make(tmp_path)
    code, errors, found = scan(path)
    assert code == 1 and found["sets"][0]["hit"] == 1 and 1000 < found["sets"][0]["rows"] < 8000
    assert len(errors) == 1 and f"{path}, row {found['sets'][0]['rows']}: cannot be read any further" in errors[0]


def folder_of(tmp_path: Path, **files: Any) -> Path:
    """A set of shards; tables become parquet, bytes are written as they are."""
    folder = tmp_path / "set"
    folder.mkdir()
    for name, content in files.items():
        stem, _, suffix = name.rpartition("_")
        path = folder / f"{stem}.{suffix}"
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            pq.write_table(pa.table(content), path)
    return folder


def test_shards_of_many_schemas_are_read_each_in_its_form(tmp_path: Path, scan: Any) -> None:
    turns = [[{"role": "user", "content": SECRET}]]
    folder = folder_of(
        tmp_path, a_jsonl=lines([{"prompt": SECRET}]), b_parquet={"prompt": [1.5]}, c_parquet={"messages": turns},
        d_jsonl=lines([{"foo": 3}, {"text": SECRET}]), e_csv=f"instruction,output\n{SECRET},x\n".encode(),
    )  # fmt: skip
    code, errors, found = scan(folder)
    assert code == 1 and len(errors) == 2
    assert "b.parquet, row 0: column 'prompt' is double, expected text" in errors[0]
    assert "d.jsonl, row 0: no text was recognised among the columns foo" in errors[1]
    assert pq.read_table(tmp_path / "out/pairs.parquet")["train_row"].to_pylist() == [0, 1, 3, 4]
    assert [form.split()[0] for form in found["trains"][0]["forms"]] == ["prompt", "messages", "text", "instruction"]


def test_a_saved_data_set_that_is_damaged_is_named(tmp_path: Path, scan: Any) -> None:
    path = cut(saved(tmp_path / "cut"))
    code, errors, _ = scan(tmp_path / "cut")
    assert code == 2 and len(errors) == 1 and f"{path}, row 0: cannot be read as an arrow file" in errors[0]
    saved(tmp_path / "gone").unlink()
    code, errors, _ = scan(tmp_path / "gone")
    assert code == 2 and len(errors) == 1 and ".arrow: No such file" in errors[0]
    saved(tmp_path / "state")
    (tmp_path / "state/state.json").write_text("{")
    code, errors, _ = scan(tmp_path / "state")
    assert code == 2 and len(errors) == 1 and "state.json: not the state of a datasets directory" in errors[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("t.parquet", {"prompt": pa.array([], pa.string())}, "row 0: the set has no rows"),
        ("t.csv", b"prompt,answer\n", "row 0: the set has no rows"),
        ("t.parquet", b"", "t.parquet cannot be read as parquet"),
        ("t.jsonl.gz", b"this is no gzip", "row 0: cannot be read any further: Not a gzipped file"),
        ("t.jsonl.zst", b"this is no zst", "row 0: cannot be read any further: ZSTD"),
        ("t.csv", b'prompt,answer\nfine,a\n"no end,b\nc,d\n', "row 1: 1 cells, the header has 2"),
        ("t.json", b'[{"prompt": "a"}, {"pro', "row 0: not JSON"),
        ("t.jsonl", b'{"prompt": "a"}\n\0\0\n{"prompt": "\\ud800"}\n', "row 1: not JSON"),
    ],
)
def test_one_line_names_file_and_row(name: str, content: Any, said: str, tmp_path: Path, scan: Any) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    code, errors, _ = scan(path)
    assert code == 2 and len(errors) == 1 and str(path) in errors[0] and said in errors[0]


def test_a_hub_set_without_a_network_is_one_line(scan: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    def unreachable(*args: Any, **options: Any) -> Any:
        raise ConnectionError("Couldn't reach the Hub\n(offline)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    code, errors, _ = scan("someone/something")
    assert code == 2 and len(errors) == 1 and "someone/something: no such file or folder" in errors[0]


def test_a_long_line_is_scanned_to_its_end(scan: Any, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(lines([{"prompt": "word " * 400_000 + SECRET}, {"prompt": "a"}]))
    code, errors, found = scan(path)
    assert (code, errors, found["sets"][0]["hit"], found["sets"][0]["rows"]) == (1, [], 1, 2)


@pytest.mark.long
def test_a_scan_that_is_killed_outright_goes_on_where_it_was(tmp_path: Path, scan: Any) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for shard in range(3):
        (folder / f"{shard}.jsonl").write_bytes(lines([{"prompt": SECRET}] * (shard + 1)))
    program = (
        "import os, signal, sys; from decontam import scan; original = scan.run_job\n"
        "def dies(job):\n"
        "    if job.block.path.name == '2.jsonl': os.kill(os.getpid(), signal.SIGKILL)\n"
        "    original(job)\n"
        "scan.run_job = dies\n"
        "from olmes_suite.cli.main import run; run(sys.argv[1:])"
    )
    where = ["--eval", str(tmp_path / "eval.jsonl"), "--out", str(tmp_path / "out"), "--workers", "1"]
    args = ["decontam", "scan", "--train", str(folder), *where]
    cache = os.environ.get("OLMES_CACHE", str(tmp_path / "cache"))
    env = environment(tmp_path, OLMES_CACHE=cache)
    done = subprocess.run([sys.executable, "-c", program, *args], env=env, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/.parts").glob("*.json")}
    assert len(kept) == 2
    code, _, found = scan(folder)
    assert code == 1 and found["sets"][0]["rows"] == 6
    assert pq.read_table(tmp_path / "out/pairs.parquet").num_rows == 6
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
