"""`olmes eval --workers N`: the same files as one engine's, also after a kill."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import slow_engine
from helpers import environment, olmes, olmes_here, one_line_error, write_gsm8k
from models_fixture import make_tiny_model
from worker_runs import alive, children, command_of, only_run, wait_for

ANSWER_FILES = ("results.json", "responses/tulu3_gsm8k.jsonl")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gsm8k(tmp_path_factory.mktemp("mirror"))


def files(runs: Path) -> list[bytes]:
    return [(only_run(runs) / name).read_bytes() for name in ANSWER_FILES]


@pytest.mark.long
def test_mock_runs_are_equal_byte_for_byte(tmp_path, mirror):
    common = ["eval", "--task", "gsm8k", "--task", "humaneval", "--backend", "mock", "--data-dir", mirror]
    for workers in (1, 2):
        done = olmes(*common, "--workers", workers, "--runs", tmp_path / str(workers), tmp=tmp_path)
        assert "Traceback" not in done.stderr
    alone = olmes(*common, "--runs", tmp_path / "alone", "--json", tmp=tmp_path)
    assert json.loads(alone.stdout)["tasks"]["tulu3_gsm8k"]["n"] == 40
    assert files(tmp_path / "alone") == files(tmp_path / "1") == files(tmp_path / "2")
    rows = [json.loads(line) for line in files(tmp_path / "2")[1].splitlines()]
    assert [row["doc_id"] for row in rows] == list(range(40))
    engine = json.loads((only_run(tmp_path / "2") / "manifest.json").read_text())["engine"]
    assert engine["workers"] == {"kind": "processes", "count": 2, "died": 0, "lost": 0}


@pytest.mark.long
def test_greedy_texts_of_a_checkpoint_are_equal(tmp_path, mirror):
    model = make_tiny_model(tmp_path / "tiny", max_length=2048)
    common = ["eval", "--model", model, "--task", "gsm8k", "--device", "cpu", "--data-dir", mirror, "--limit", 8]
    for name, extra in (("alone", []), ("two", ["--workers", 2])):
        done = olmes(*common, *extra, "--runs", tmp_path / name, "--json", tmp=tmp_path)
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)
    assert files(tmp_path / "alone") == files(tmp_path / "two")


def start(tmp_path: Path, mirror: Path, *extra: str) -> subprocess.Popen[str]:
    command = ["eval", "--task", "gsm8k", "--data-dir", mirror, "--backend", "slow", *extra]
    env = environment(tmp_path) | {"PYTHONPATH": slow_engine.install(tmp_path / "site")}
    return subprocess.Popen(
        [sys.executable, "-m", "olmes_suite.cli.main", *map(str, command)], env=env, text=True, stderr=subprocess.PIPE
    )


def answered(runs: Path) -> int:
    return sum(file.read_bytes().count(b"\n") for file in runs.glob("**/responses/tulu3_gsm8k.jsonl"))


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_worker_and_then_the_run_itself_are_killed(tmp_path, mirror):
    """First a worker is killed, then the whole run; what goes on is another number of workers."""
    runs, free = tmp_path / "runs", tmp_path / "free"
    common = ["--model", f"most=1,until={free}", "--runs", str(runs)]
    run = start(tmp_path, mirror, *common, "--workers", "2")
    wait_for(lambda: answered(runs) == 2)
    workers = [pid for pid in children(run.pid) if b"workers.process_main" in command_of(pid)]
    os.kill(workers[0], signal.SIGKILL)
    wait_for(lambda: answered(runs) == 3)  # one of the worker that was started again
    run.kill()
    told = run.communicate()[1]
    assert "worker" in told and "died" in told and "it is restarted" in told
    wait_for(lambda: not alive(workers[1]))
    before = answered(runs)
    assert before == 3
    free.touch()
    again = start(tmp_path / "again", mirror, *common, "--workers", "3")
    told = again.communicate(timeout=120)[1]
    assert again.returncode == 0, told
    rows = [json.loads(line) for line in files(runs)[1].splitlines()]
    assert [row["doc_id"] for row in rows] == list(range(40))


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--backend", "mock", "--workers", "0"], "--workers 0"),
        (["--backend", "oracle", "--workers", "2"], "one process"),
        (["--backend", "mock", "--workers", "many"], "--workers"),
    ],
)
def test_wrong_usage_is_one_line(tmp_path, mirror, extra, words):
    done = olmes_here("eval", "--task", "gsm8k", "--data-dir", mirror, *extra, "--runs", tmp_path, tmp=tmp_path)
    assert words in one_line_error(done)


@pytest.mark.long
def test_more_workers_than_gpus_is_one_line(tmp_path, mirror):
    model = make_tiny_model(tmp_path / "tiny")
    done = olmes(
        "eval", "--model", model, "--task", "gsm8k", "--data-dir", mirror, "--workers", 3, "--runs", tmp_path / "runs",
        tmp=tmp_path, CUDA_VISIBLE_DEVICES="0,1",
    )  # fmt: skip
    assert "needs 3 GPUs" in one_line_error(done)
