"""Runs: recorded, resumable after any kill, locked, and the same for the same inputs."""

from __future__ import annotations

import json
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from helpers import as_json, environment, olmes, one_line_error, write_gsm8k

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


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    return write_gsm8k(tmp_path / "mirror")


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
def test_five_kills(tmp_path: Path, mirror: Path) -> None:
    kills_change_nothing(tmp_path, mirror, 5, seed=1)


@pytest.mark.long
def test_ten_kills(tmp_path: Path, mirror: Path) -> None:
    kills_change_nothing(tmp_path, mirror, 10, seed=2)


@pytest.mark.slow
def test_fifty_kills(tmp_path: Path) -> None:
    for round_ in range(5):
        folder = tmp_path / str(round_)
        kills_change_nothing(folder, write_gsm8k(folder / "mirror"), 10, seed=100 + round_)


def test_a_torn_last_line_is_asked_again(tmp_path: Path, mirror: Path) -> None:
    command = [
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        mirror,
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
    finished = as_json(olmes(*command, tmp=tmp_path))
    kept = (Path(finished["path"]) / "responses/tulu3_gsm8k.jsonl").read_bytes()
    assert kept.count(b"\n") == 40 and b"torn" not in kept and whole >= 10


def test_what_is_on_disk_is_not_asked_again(tmp_path: Path, mirror: Path) -> None:
    command = [
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        mirror,
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
    finished = as_json(olmes(*command, tmp=tmp_path))
    after = (Path(finished["path"]) / "responses/tulu3_gsm8k.jsonl").read_text()
    assert after.count('"completion_tokens": 1000') == before >= 20


def test_a_finished_run_is_not_repeated_without_again(tmp_path: Path, mirror: Path) -> None:
    command = [
        "eval",
        "--backend",
        "mock",
        "--task",
        "gsm8k",
        "--data-dir",
        mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
    ]
    first, second = as_json(olmes(*command, tmp=tmp_path)), as_json(olmes(*command, tmp=tmp_path))
    assert first == second
    third = as_json(olmes(*command, "--again", tmp=tmp_path))
    assert third["path"] == first["path"] + "-2"
    assert third["tasks"] == first["tasks"]


def test_results_hold_no_time_or_path(tmp_path: Path, mirror: Path) -> None:
    outputs = []
    for name in ("a", "b"):
        done = as_json(
            olmes(
                "eval",
                "--backend",
                "mock",
                "--task",
                "gsm8k",
                "--data-dir",
                mirror,
                "--runs",
                tmp_path / name,
                "--json",
                tmp=tmp_path,
            )
        )
        outputs.append((Path(done["path"]) / "results.json").read_bytes())
    assert outputs[0] == outputs[1]
    assert str(tmp_path).encode() not in outputs[0]


def test_limit_is_nested_and_marked(tmp_path: Path, mirror: Path) -> None:
    chosen = {}
    for limit in (5, 12):
        done = as_json(
            olmes(
                "eval",
                "--backend",
                "oracle",
                "--task",
                "gsm8k",
                "--limit",
                str(limit),
                "--data-dir",
                mirror,
                "--runs",
                tmp_path / "runs",
                "--json",
                tmp=tmp_path,
            )
        )
        rows = pq.read_table(Path(done["path"]) / "instances/tulu3_gsm8k.parquet")["doc_id"].to_pylist()
        assert rows == sorted(rows) and done["tasks"]["tulu3_gsm8k"]["of"] == 40
        chosen[limit] = set(rows)
    assert chosen[5] < chosen[12] and len(chosen[12]) == 12


@pytest.mark.long
def test_a_run_that_another_process_writes_is_refused(tmp_path: Path, mirror: Path) -> None:
    command = ["eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", mirror, "--runs", tmp_path / "runs"]
    process = start(tmp_path, *command, most=1)
    wait_for_lines(tmp_path / "runs", 1, process)
    message = one_line_error(olmes(*command, tmp=tmp_path))
    process.kill()
    process.communicate()
    assert f"process {process.pid} on" in message
    assert olmes(*command, tmp=tmp_path).returncode == 0


def test_interrupt_says_how_to_go_on(tmp_path: Path, mirror: Path) -> None:
    command = ["eval", "--backend", "mock", "--task", "gsm8k", "--data-dir", mirror, "--runs", tmp_path / "runs"]
    process = start(tmp_path, *command)
    wait_for_lines(tmp_path / "runs", 5, process)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "repeat the same command" in said and "Traceback" not in said
    assert 5 <= lines_of(tmp_path / "runs") < 40
    assert olmes(*command, tmp=tmp_path).returncode == 0


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, mirror: Path) -> None:
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
        str(mirror),
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


def test_missing_data_is_named_and_the_rest_runs(tmp_path: Path, mirror: Path) -> None:
    done = olmes(
        "eval",
        "--backend",
        "oracle",
        "--task",
        "gsm8k",
        "--task",
        "popqa",
        "--data-dir",
        mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
        tmp=tmp_path,
    )
    assert done.returncode == 1
    outcome = json.loads(done.stdout)
    assert outcome["tasks"]["tulu3_gsm8k"]["metrics"]["exact_match"]["value"] == 1.0
    assert outcome["tasks"]["tulu3_popqa"]["metrics"] == {}
    for part in (
        "akariasai/PopQA",
        "olmes data pull --task tulu3_popqa",
        "<data-dir>/akariasai/PopQA/default/test.parquet",
    ):
        assert part in outcome["tasks"]["tulu3_popqa"]["error"]


def test_a_suite_average_is_never_the_mean_of_what_is_left(tmp_path: Path, mirror: Path) -> None:
    suite = tmp_path / "mine.yaml"
    suite.write_text("suite: mine\ntasks: [gsm8k, {task: popqa, skill: knowledge}]\n")
    done = olmes(
        "eval",
        "--backend",
        "oracle",
        "--suite",
        suite,
        "--data-dir",
        mirror,
        "--runs",
        tmp_path / "runs",
        "--json",
        tmp=tmp_path,
    )
    outcome = json.loads(done.stdout)
    assert outcome["suites"]["mine"] == {"value": None, "stderr": None, "ci95": None, "missing": ["tulu3_popqa"]}


def test_unseen_looks_are_in_the_ledger(tmp_path: Path) -> None:
    """A served model is what the ledger is for; mock, oracle, floor and sample data leave no line."""
    from olmes_suite.runs import ledger

    command = ["olmes", "eval"]
    assert ledger.record_look(tmp_path, "m", "run-1", [("tulu3_gsm8k", 10)], command) == []
    assert not (tmp_path / ledger.LEDGER).exists()
    for _ in range(2):
        assert ledger.record_look(tmp_path, "m", "run-1", [("tulu3_gsm8k", 10), ("tulu3_gpqa", 4)], command) == [
            "tulu3_gpqa"
        ]
    (line,) = ledger.read_ledger(tmp_path / ledger.LEDGER)
    assert set(line) == {"time", "lineage", "run", "tasks", "n", "command"} and line["n"] == 4


def test_contaminated_documents_are_marked_and_left_out_of_the_clean_score(tmp_path: Path, mirror: Path) -> None:
    lineage = tmp_path / "olmes_lineage.json"
    lineage.write_text(json.dumps({"parent": "base", "flags": {"tulu3_gsm8k": [0, 1, 2]}}))
    done = as_json(
        olmes(
            "eval",
            "--backend",
            "oracle",
            "--task",
            "gsm8k",
            "--lineage",
            lineage,
            "--data-dir",
            mirror,
            "--runs",
            tmp_path / "runs",
            "--json",
            tmp=tmp_path,
        )
    )
    clean = done["tasks"]["tulu3_gsm8k"]["clean"]
    assert (clean["n"], clean["flagged"]) == (37, 3)
    marks = pq.read_table(Path(done["path"]) / "instances/tulu3_gsm8k.parquet")["contaminated"].to_pylist()
    assert sum(marks) == 3


def test_a_hanging_scorer_is_stopped_and_counted() -> None:
    from scorers_for_tests import hangs, raises

    from olmes_suite.evaluation.pool import ScoringPool
    from olmes_suite.records import Scored
    from olmes_suite.scoring.scorers import Scorer

    got: list[tuple[Scored, bool]] = []
    with ScoringPool(1) as pool:
        assert isinstance(hangs, Scorer)
        pool.submit(
            hangs, ("m",), {"hang": True}, ["x"], "one", lambda scored, samples, late: got.append((scored, late))
        )
        pool.submit(
            hangs, ("m",), {"hang": False}, ["x"], "two", lambda scored, samples, late: got.append((scored, late))
        )
        pool.join()
    assert [(scored.scores, late) for scored, late in got] == [({"m": 0.0}, True), ({"m": 1.0}, False)]
    from olmes_suite.evaluation.pool import ScorerFailed

    with pytest.raises(ScorerFailed, match="three: the scorer raised KeyError"), ScoringPool(1) as pool:
        pool.submit(raises, ("m",), {}, ["x"], "three", lambda *_: None)
        pool.join()


def test_sample_seeds_follow_run_key_and_index() -> None:
    from olmes_suite.evaluation.generate import sample_seed

    assert sample_seed(1, "k", 0) == sample_seed(1, "k", 0)
    assert len({sample_seed(1, "k", 0), sample_seed(2, "k", 0), sample_seed(1, "l", 0), sample_seed(1, "k", 1)}) == 4


class Quiet:
    """A watcher that says nothing."""

    def note(self, text: str) -> None: ...
    def start(self, plans: object) -> None: ...
    def advance(self, task: str, documents: int, tokens: int) -> None: ...
    def stop(self) -> None: ...


def test_a_failed_request_is_an_error_and_is_taken_up_again(
    tmp_path: Path, mirror: Path, monkeypatch: pytest.MonkeyPatch
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

    options = Options("", "mock", task_names=("gsm8k",), source=DataSource((mirror,)), runs=tmp_path / "runs")
    failed = evaluate(options, lambda *_: Weak(), Quiet())
    entry = failed.results.tasks["tulu3_gsm8k"]
    assert failed.failed == ["tulu3_gsm8k"] and entry.metrics == {} and entry.error == "the server is gone"
    assert entry.flags["request_errors"] == 1
    Weak.working = True
    mended = evaluate(options, lambda *_: Weak(), Quiet())
    assert mended.failed == [] and mended.path.name == failed.path.name + "-2"
    assert mended.results.tasks["tulu3_gsm8k"].n == 40
    assert sorted(asked) == list(range(40)), "what was answered before the failure is not asked again"


def test_groups_of_shared_sample_documents_have_no_interval(tmp_path: Path) -> None:
    done = as_json(
        olmes(
            "eval",
            "--backend",
            "oracle",
            "--task",
            "deepmind_math",
            "--data",
            "sample",
            "--limit",
            "2",
            "--runs",
            tmp_path / "runs",
            "--json",
            tmp=tmp_path,
        )
    )
    group = done["tasks"]["tulu3_deepmind_math"]["metrics"]["exact_match"]
    assert group == {"value": 1.0, "stderr": None, "ci95": None}
