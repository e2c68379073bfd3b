"""Runs that are killed, interrupted or out of space lose nothing and are continued."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import as_json, environment, olmes, olmes_here, one_line_error, write_gsm8k

SLOW_MOCK = """
import itertools, sys, time
from olmes_suite.models.without_model.mock import MockBackend
plain = MockBackend.run
given = itertools.count()
def slow(self, requests, seeds):
    for answer in plain(self, requests, seeds):
        time.sleep({delay})
        held = next(given) >= {most}
        while held and not self.stop_requested:
            time.sleep(0.01)
        if self.stop_requested:
            return
        yield answer
MockBackend.run = slow
from olmes_suite.cli.main import main
sys.argv = ["olmes", *sys.argv[1:]]
main()
"""


def start(tmp: Path, *args: str | Path, most: int = 30, delay: float = 0.02) -> subprocess.Popen[str]:
    """A run of the mock model that gives `most` answers and then waits to be killed: it can never end first."""
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_MOCK.format(delay=delay, most=most), *map(str, args)],
        env=environment(tmp),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def lines_of(runs: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in runs.glob(".unfinished/*/responses/*.jsonl"))


def wait_for_lines(runs: Path, wanted: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 300
    while lines_of(runs) < wanted:
        assert process.poll() is None and time.monotonic() < end, "the run ended or hangs"
        time.sleep(0.005)


def kills_change_nothing(tmp: Path, mirror: Path, kills: int, seed: int) -> None:
    """Kill a run `kills` times at random moments; what comes out is what an unbroken run gives."""
    rng = random.Random(seed)
    command = ["eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", mirror, "--json"]
    unbroken = as_json(olmes(*command, "--runs", tmp / "unbroken", tmp=tmp))
    asked = 0
    for _ in range(kills):
        step = min(rng.randint(0, max(1, 40 // kills)), 39 - asked)
        process = start(tmp, *command, "--runs", tmp / "broken", most=min(step + 2, 39 - asked))
        wait_for_lines(tmp / "broken", asked + step, process)
        time.sleep(rng.random() * 0.03)
        process.kill()
        process.communicate()
        now = lines_of(tmp / "broken")
        assert now >= asked, "a response was lost"
        asked = now
    finished = as_json(olmes(*command, "--runs", tmp / "broken", tmp=tmp))
    a, b = Path(unbroken["path"]), Path(finished["path"])
    assert (a / "results.json").read_bytes() == (b / "results.json").read_bytes()
    assert (a / "instances/tulu3_gsm8k.parquet").read_bytes() == (b / "instances/tulu3_gsm8k.parquet").read_bytes()
    places = [
        (r["task"], r["doc_id"], r["index"], r["sample"])
        for r in map(json.loads, (b / "responses/tulu3_gsm8k.jsonl").open())
    ]
    assert len(places) == len(set(places)) == 40
    assert not list((tmp / "broken/.unfinished").iterdir())


@pytest.mark.long
def test_five_kills(tmp_path: Path, gsm8k_mirror: Path) -> None:
    kills_change_nothing(tmp_path, gsm8k_mirror, 5, seed=1)


@pytest.mark.slow
def test_ten_kills(tmp_path: Path, gsm8k_mirror: Path) -> None:
    kills_change_nothing(tmp_path, gsm8k_mirror, 10, seed=2)


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    for round_ in range(5):
        folder = tmp_path / str(round_)
        kills_change_nothing(folder, write_gsm8k(folder / "mirror"), 10, seed=100 + round_)


@pytest.mark.long
def test_a_torn_last_line_is_asked_again(tmp_path: Path, gsm8k_mirror: Path) -> None:
    command = [
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        gsm8k_mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
    ]
    process = start(tmp_path, *command)
    wait_for_lines(tmp_path / "runs", 10, process)
    process.kill()
    process.communicate()
    (file,) = (tmp_path / "runs").glob(".unfinished/*/responses/*.jsonl")
    whole = file.read_bytes().count(b"\n")
    with file.open("ab") as handle:
        handle.write(b'{"key": "torn')
    finished = as_json(olmes_here(*command, tmp=tmp_path))
    kept = (Path(finished["path"]) / "responses/tulu3_gsm8k.jsonl").read_bytes()
    assert kept.count(b"\n") == 40 and b"torn" not in kept and whole >= 10


@pytest.mark.long
def test_what_is_on_disk_is_not_asked_again(tmp_path: Path, gsm8k_mirror: Path) -> None:
    command = [
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        gsm8k_mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
    ]
    process = start(tmp_path, *command)
    wait_for_lines(tmp_path / "runs", 20, process)
    process.kill()
    process.communicate()
    (file,) = (tmp_path / "runs").glob(".unfinished/*/responses/*.jsonl")
    marked = file.read_text().replace('"completion_tokens": ', '"completion_tokens": 1000')
    file.write_text(marked)
    before = marked.count("\n")
    finished = as_json(olmes_here(*command, tmp=tmp_path))
    after = (Path(finished["path"]) / "responses/tulu3_gsm8k.jsonl").read_text()
    assert after.count('"completion_tokens": 1000') == before >= 20


@pytest.mark.long
def test_a_run_that_another_process_writes_is_refused(tmp_path: Path, gsm8k_mirror: Path) -> None:
    command = ["eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", gsm8k_mirror, "--runs", tmp_path / "runs"]
    process = start(tmp_path, *command, most=1)
    wait_for_lines(tmp_path / "runs", 1, process)
    message = one_line_error(olmes(*command, tmp=tmp_path))
    process.kill()
    process.communicate()
    assert f"process {process.pid} on" in message
    assert olmes(*command, tmp=tmp_path).returncode == 0


@pytest.mark.long
def test_interrupt_says_how_to_go_on(tmp_path: Path, gsm8k_mirror: Path) -> None:
    command = ["eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", gsm8k_mirror, "--runs", tmp_path / "runs"]
    process = start(tmp_path, *command)
    wait_for_lines(tmp_path / "runs", 5, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "repeat the command to continue" in said and "Traceback" not in said
    assert 5 <= lines_of(tmp_path / "runs") < 40
    assert olmes_here(*command, tmp=tmp_path).returncode == 0


@pytest.mark.long
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, gsm8k_mirror: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "olmes_suite.cli.main",
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        str(gsm8k_mirror),
        "--runs",
        str(tmp_path / "runs"),
    ]

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))

    done = subprocess.run(
        command, capture_output=True, text=True, env=environment(tmp_path), preexec_fn=small_files, timeout=120
    )
    assert "cannot write" in one_line_error(done)
    kept = lines_of(tmp_path / "runs")
    assert 0 < kept < 40
    for file in (tmp_path / "runs").glob(".unfinished/*/responses/*.jsonl"):
        assert file.read_bytes().endswith(b"\n")
    assert subprocess.run(command, env=environment(tmp_path), capture_output=True, timeout=120).returncode == 0


class Quiet:
    """A watcher that says nothing."""

    def note(self, text: str) -> None: ...
    def start(self, plans: object) -> None: ...
    def advance(self, task: str, documents: int, tokens: int) -> None: ...
    def stop(self) -> None: ...


def test_a_failed_request_is_an_error_and_is_taken_up_again(
    tmp_path: Path, gsm8k_mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from olmes_suite.errors import RequestFailed
    from olmes_suite.evaluation.evaluate import evaluate
    from olmes_suite.evaluation.plan import Options
    from olmes_suite.models.without_model.mock import MockBackend
    from olmes_suite.tasks.documents import DataSource

    monkeypatch.setenv("OLMES_CACHE", str(tmp_path / "cache"))
    asked: list[int] = []

    class Weak(MockBackend):
        name = "served"
        working = False

        def run(self, requests, seeds):
            for answer in super().run(requests, seeds):
                if not self.working and len(asked) == 10:
                    raise RequestFailed("the server is gone")
                asked.append(requests[answer[0]].doc_id)
                yield answer

    options = Options("", "mock", task_names=("gsm8k",), source=DataSource((gsm8k_mirror,)), runs=tmp_path / "runs")
    failed = evaluate(options, lambda *_: Weak(), Quiet())
    entry = failed.results.tasks["tulu3_gsm8k"]
    assert failed.failed == ["tulu3_gsm8k"] and entry.metrics == {} and entry.error == "the server is gone"
    assert entry.flags["request_errors"] == 1
    Weak.working = True
    mended = evaluate(options, lambda *_: Weak(), Quiet())
    assert mended.failed == [] and mended.path.name == failed.path.name + "-2"
    assert mended.results.tasks["tulu3_gsm8k"].n == 40
    assert sorted(asked) == list(range(40)), "what was answered before the failure is not asked again"
