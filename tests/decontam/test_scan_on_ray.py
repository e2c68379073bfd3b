"""The scan on a Ray cluster: the same files as on one machine, whatever becomes of a worker."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from decontam import scan, scan_on_ray
from decontam.matching import prepared_index
from decontam.matching.rule import Rule
from decontam.training_data import sources
from olmes_suite.cli.main import run
from olmes_suite.errors import DataError, UsageError
from olmes_suite.tasks.documents import DataSource

pytest.importorskip("ray", reason="the extra `ray` is not installed: pip install 'olmes-suite[ray]'")
pytestmark = pytest.mark.xdist_group("decontam on ray")

SECRET = "One question that nobody else would ever put in quite these words before lunch"
FILES = ("report.json", "pairs.parquet", "flags.json", "report.html")


@pytest.fixture
def shards_folder(tmp_path: Path) -> Path:
    """An evaluation of two items, and a set of five shards: JSON lines and parquet, one of them with a broken row."""
    (tmp_path / "eval.jsonl").write_text(
        json.dumps({"task": "own", "doc_id": 7, "text": SECRET}) + "\n"
        + json.dumps({"task": "own", "doc_id": 9, "text": "What is Paris?"}) + "\n"
    )  # fmt: skip
    (tmp_path / "set").mkdir()
    for shard in range(5):
        rows = [{"prompt": SECRET if row % 40 == shard else f"row {row} of {shard}"} for row in range(200)]
        if shard % 2:
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"set/{shard}.parquet", row_group_size=50)
        else:
            broken = "no json\n" if shard == 2 else ""
            (tmp_path / f"set/{shard}.jsonl").write_text(broken + "".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def jobs_of(folder: Path) -> list[scan.Job]:
    """One job for each shard, its parts in `folder`/parts."""
    prepared = prepared_index.of_file(folder / "eval.jsonl", Rule())
    train = sources.find(str(folder / "set"), DataSource())
    (folder / "parts").mkdir()
    return [
        scan.Job(block, scan.Settings(), prepared.folder, prepared.index.key, folder / "parts")
        for file in train.files
        for block in sources.blocks(file)
    ]


@pytest.mark.long
@pytest.mark.parametrize("address", [["--ray"], ["--ray", "local"]])
def test_a_cluster_gives_the_files_of_one_machine(
    address: list[str], shards_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shards_folder)  # relative paths mean the same on every machine
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    common = ["decontam", "scan", "--eval", "eval.jsonl", "--train", "set"]
    assert run([*common, "--workers", "1", "--out", "one"]) == 1
    capfd.readouterr()
    assert run([*common, "--out", "many", *address]) == 1
    said = capfd.readouterr()
    assert "2.jsonl, row 0: not JSON" in said.err
    assert not [line for line in said.err.splitlines() if " INFO " in line], said.err
    for name in FILES:
        assert (shards_folder / "many" / name).read_bytes() == (shards_folder / "one" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("address", "said"),
    [("127.0.0.1:1", "no Ray cluster answers there"), ("home", "host:port")],
)
def test_an_address_where_nobody_answers_is_one_line(
    address: str, said: str, shards_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    args = [
        "--eval",
        str(shards_folder / "eval.jsonl"),
        "--train",
        str(shards_folder / "set"),
        "--out",
        str(shards_folder / "out"),
    ]
    assert run(["decontam", "scan", *args, "--ray", address]) == 2
    errors = capfd.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and f"--ray {address}: " in errors[0] and said in errors[0]
    assert time.monotonic() - began < 30


def test_the_address_of_the_environment_is_tried(monkeypatch: pytest.MonkeyPatch, shards_folder: Path) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(UsageError, match="no Ray cluster answers"):
        list(scan_on_ray.on_ray()(jobs_of(shards_folder)))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster on this machine, used by the tests that follow."""
    import ray

    ray.init(num_cpus=2, log_to_driver=False, logging_level="error")
    yield ray
    ray.shutdown()


@pytest.mark.long
def test_a_worker_that_dies_is_replaced(cluster: Any, shards_folder: Path) -> None:
    jobs, marker = jobs_of(shards_folder), shards_folder / "died"

    def dies_once(job: scan.Job) -> None:
        from decontam.scan import run_job

        if job.block.path.name == "3.parquet" and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        run_job(job)

    done = list(scan_on_ray.on_ray("local", dies_once)(jobs))
    assert marker.exists() and len(done) == len(jobs)
    found = [pq.read_table(shards_folder / "parts" / f"{job.key}.parquet").num_rows for job in jobs]
    assert found == [5, 5, 5, 5, 5]


@pytest.mark.long
def test_what_a_worker_meets_is_one_line(cluster: Any, shards_folder: Path) -> None:
    jobs = jobs_of(shards_folder)

    def blind(job: scan.Job) -> None:
        """A machine that does not see the storage."""

    def fails(job: scan.Job) -> None:
        raise RuntimeError("first\nthe reason")

    def refuses(job: scan.Job) -> None:
        from olmes_suite.errors import DataError

        raise DataError("the index cannot be read")

    for work, said in ((blind, "storage that all machines see"), (fails, "the reason"), (refuses, "index cannot be")):
        with pytest.raises(DataError, match=said) as caught:
            list(scan_on_ray.on_ray("local", work)(jobs))
        assert "\n" not in str(caught.value)
