"""The openai backend under load and through the command line: concurrency, kills, resuming, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import as_json, environment, olmes, olmes_here, one_line_error, write_gsm8k
from judge_server import Reply, judge_server
from models_fixture import answers
from pupil import MODELS, ask, backend, completion, good, said

from olmes_suite.endpoints.concurrency import HOLD, Limit
from olmes_suite.records import sha256


class TestConcurrency:
    """As many requests under way as the server has use for."""

    def test_it_grows_while_that_helps(self):
        limit, now = Limit(4, 64), 0.0
        limit.begin(now)
        for _ in range(2000):  # the server answers 16 at a time in one second
            now += 1 / min(limit.value, 16)
            limit.answered(now)
        assert limit.value in (16, 32)

    def test_it_never_exceeds_its_most(self):
        limit, now = Limit(4, 6), 0.0
        limit.begin(now)
        for _ in range(200):
            now += 1 / limit.value
            limit.answered(now)
        assert limit.value == 6

    def test_one_round_of_refusals_halves_it_once(self):
        limit = Limit(32, 64)
        limit.begin(0.0)
        for _ in range(32):
            limit.pushed_back(sent=1.0, now=2.0)
        assert limit.value == 16
        limit.pushed_back(sent=3.0, now=4.0)
        assert limit.value == 8
        now = 4.0
        for _ in range(HOLD * 16):
            now += 0.1
            limit.answered(now)
        assert limit.value == 8
        for _ in range(10):
            limit.pushed_back(now, now)
        assert limit.value == 1

    @pytest.mark.long
    def test_a_server_with_little_room_is_not_overrun(self):
        lock, under_way, overrun = threading.Lock(), [0], threading.Event()

        def reply(body, before):
            with lock:
                under_way[0] += 1
                full = under_way[0] > 3
            if full:
                overrun.set()
            overrun.wait(60)  # however late the clients are, their first requests meet
            time.sleep(0.01)
            with lock:
                under_way[0] -= 1
            return Reply(None, status=429) if full else good(body, before)

        with judge_server(reply, models=MODELS) as served:
            made = backend(served, tries=12, timeout=90.0)
            assert len(answers(made, ask(120))) == 120
        assert made.limit.value <= 8

    @pytest.mark.long
    def test_many_are_under_way(self):
        crowd = threading.Event()

        def reply(body, before):
            if served.together > 8:
                crowd.set()
            crowd.wait(60)
            return good(body, before)

        with judge_server(reply, models=MODELS) as served:
            assert len(answers(backend(served, timeout=90.0), ask(80))) == 80
        assert served.together > 8


def run_openai(served, tmp, mirror, runs, *more):
    return olmes(
        "eval", "--backend", "openai", "--model", "pupil", "--base-url", served.url, "--task", "gsm8k",
        "--data-dir", mirror, "--runs", tmp / runs, "--json", *more, tmp=tmp,
    )  # fmt: skip


class TestRuns:
    """Through the command line."""

    @pytest.mark.long
    def test_the_order_of_arrival_changes_nothing_and_a_finished_run_is_kept(self, tmp_path):
        mirror = write_gsm8k(tmp_path / "mirror", 24)
        slow = lambda body, n: Reply(completion(body), hang=int(sha256(said(body)), 16) % 7 / 50)  # noqa: E731
        found, urls = [], []
        port = 0
        for number, reply in enumerate((good, slow)):
            with judge_server(reply, port=port, models=MODELS) as served:
                port = int(served.url.split(":")[2].split("/")[0])
                done = run_openai(served, tmp_path, mirror, f"runs{number}")
                found.append(Path(as_json(done)["path"]))
                urls.append(len(served.seen))
                again = run_openai(served, tmp_path, mirror, f"runs{number}")
                assert as_json(again)["path"] == str(found[-1])
                assert len(served.seen) == urls[-1] + 1  # the list of models
        assert urls == [25, 25]
        one, two = ((path / "results.json").read_bytes() for path in found)
        assert one == two
        record = json.loads((found[0] / "manifest.json").read_text())
        assert record["tokens"] == {"prompt": 24 * 11, "completion": 24 * 5}
        assert record["engine"]["usage"]["asked"] == 24

    @pytest.mark.long
    def test_two_workers_give_the_files_of_one(self, tmp_path):
        """Byte for byte, although answers come in another order, and each document is asked once."""
        mirror = write_gsm8k(tmp_path / "mirror", 24)
        slow = lambda body, n: Reply(completion(body), hang=int(sha256(said(body)), 16) % 7 / 50)  # noqa: E731
        found = []
        with judge_server(slow, models=MODELS) as served:
            for name, more in (("alone", []), ("two", ["--workers", "2"])):
                before = len([path for path, _ in served.seen if path.endswith("completions")])
                run = Path(as_json(run_openai(served, tmp_path, mirror, name, *more))["path"])
                assert len([path for path, _ in served.seen if path.endswith("completions")]) - before == 24
                found.append([(run / file).read_bytes() for file in ("results.json", "responses/tulu3_gsm8k.jsonl")])
        assert found[0] == found[1]
        assert json.loads((run / "manifest.json").read_text())["engine"]["workers"]["count"] == 2

    @pytest.mark.long
    def test_a_killed_run_asks_only_what_is_missing(self, tmp_path):
        mirror, release = write_gsm8k(tmp_path / "mirror", 30), threading.Event()
        answered = []

        def reply(body, before):
            if len(answered) >= 12:
                release.wait(20)
            answered.append(body)
            return good(body, before)

        command = [
            sys.executable, "-m", "olmes_suite.cli.main", "eval", "--backend", "openai", "--model", "pupil", "--task",
            "gsm8k", "--data-dir", str(mirror), "--runs", str(tmp_path / "runs"), "--concurrency", "4",
        ]  # fmt: skip
        with judge_server(reply, models=MODELS) as served:
            process = subprocess.Popen([*command, "--base-url", served.url], env=environment(tmp_path))
            deadline = time.monotonic() + 60
            while lines(tmp_path) < 12 and time.monotonic() < deadline:
                time.sleep(0.05)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            kept = lines(tmp_path)
            release.set()
            time.sleep(0.2)
            before = len(served.seen)
            whole = run_openai(served, tmp_path, mirror, "runs")
            asked = len(served.seen) - before - 1
        assert as_json(whole)["tasks"]["tulu3_gsm8k"]["n"] == 30
        assert kept >= 12 and asked == 30 - kept

    @pytest.mark.long
    def test_errors_are_one_line(self, tmp_path):
        mirror = write_gsm8k(tmp_path / "mirror", 2)
        with judge_server(lambda *_: Reply({"detail": "no such thing"}, status=404), models=MODELS) as served:
            done = run_openai(served, tmp_path, mirror, "runs")
            assert done.returncode == 1 and "Traceback" not in done.stderr
            failed = json.loads(done.stdout)["tasks"]["tulu3_gsm8k"]
            assert failed["metrics"] == {} and "HTTP 404: no such thing" in failed["error"]
            assert failed["flags"]["request_errors"] == 1
            wrong = olmes_here(
                "eval", "--backend", "openai", "--model", "pupli", "--base-url", served.url, "--task", "gsm8k",
                "--data-dir", mirror, tmp=tmp_path,
            )  # fmt: skip
            assert "serves pupil" in one_line_error(wrong)
        assert "no connection" in one_line_error(run_openai(served, tmp_path, mirror, "runs"))
        missing = olmes_here(
            "eval", "--backend", "openai", "--model", "pupil", "--task", "gsm8k", "--data", "sample", tmp=tmp_path
        )
        assert "--base-url" in one_line_error(missing)


def lines(tmp):
    return sum(path.read_bytes().count(b"\n") for path in tmp.glob("runs/.unfinished/*/responses/*.jsonl"))
