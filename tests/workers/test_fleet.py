"""A fleet of worker processes: answers, deaths, errors, stop requests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import slow_engine
from worker_requests import asks, expected, seeds_for, texts
from worker_runs import alive

from olmes_suite.errors import ModelError, RequestFailed
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.workers.base import WorkersDead
from olmes_suite.workers.engine import Recipe
from olmes_suite.workers.fleet import Fleet
from olmes_suite.workers.process import ProcessWorker


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fleet]]:
    """Makes fleets of processes that run the slow backend."""
    monkeypatch.setenv("PYTHONPATH", slow_engine.install(tmp_path / "site"))
    made: list[Fleet] = []

    def make(orders: str, workers: int = 2) -> Fleet:
        lines: list[str] = []
        found = Fleet([partial(ProcessWorker, Recipe("slow", orders), {})] * workers, "processes", lines.append)
        found.lines = lines
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()


class TestProcesses:
    def test_answers_are_those_of_one_engine(self, fleet):
        crew, requests = fleet("pause=0"), asks(50, 2)
        assert (crew.name, crew.chat, crew.fingerprint) == ("slow", True, MockBackend().fingerprint)
        assert texts(crew.run(requests, seeds_for(requests))) == expected(requests)
        assert crew.settings()["workers"] == {"kind": "processes", "count": 2, "died": 0, "lost": 0}
        assert texts(crew.run(requests[:3], seeds_for(requests[:3]))) == expected(requests[:3])

    @pytest.mark.parametrize("place", [0, pytest.param(1, marks=pytest.mark.long)])
    def test_a_worker_killed_in_the_middle(self, fleet, tmp_path, place):
        free = tmp_path / "free"
        crew, requests = fleet(f"most=1,until={free}"), asks(60)
        got = []
        for answer in crew.run(requests, seeds_for(requests)):
            got.append(answer)
            if len(got) == 2:  # one of each worker
                os.kill(crew.seats[place].pid, signal.SIGKILL)
                free.touch()
        assert texts(got) == expected(requests)
        assert crew.settings()["workers"]["died"] == 1
        assert any("killed by SIGKILL" in line and "it is restarted" in line for line in crew.lines)

    @pytest.mark.long
    def test_a_worker_that_cannot_be_started_again(self, fleet, tmp_path):
        gate, free = tmp_path / "gate", tmp_path / "free"
        crew, requests = fleet(f"most=1,until={free},none={gate}"), asks(40)
        got = []
        for answer in crew.run(requests, seeds_for(requests)):
            got.append(answer)
            if len(got) == 2:
                gate.touch()
                os.kill(crew.seats[0].pid, signal.SIGKILL)
                free.touch()
        assert texts(got) == expected(requests)
        assert crew.settings()["workers"] == {"kind": "processes", "count": 2, "died": 1, "lost": 1}

    @pytest.mark.long
    def test_all_dead(self, fleet, tmp_path):
        gate = tmp_path / "gate"
        crew, requests = fleet(f"most=1,until={tmp_path / 'never'},none={gate}"), asks(60)
        got = []
        with pytest.raises(WorkersDead, match="all 2 workers died"):
            for answer in crew.run(requests, seeds_for(requests)):
                got.append(answer)
                if len(got) == 2:
                    gate.touch()
                    for seat in crew.seats:
                        os.kill(seat.pid, signal.SIGKILL)
        assert len(texts(got)) == 2
        with pytest.raises(WorkersDead):
            list(crew.run(requests, seeds_for(requests)))

    @pytest.mark.long
    def test_a_request_that_kills_every_worker_fails_and_the_next_task_goes_on(self, fleet):
        crew = fleet("die=Question 3")
        with pytest.raises(RequestFailed, match="died over document 3"):
            list(crew.run(asks(6), seeds_for(asks(6))))
        rest = asks(3)
        assert texts(crew.run(rest, seeds_for(rest))) == expected(rest)

    @pytest.mark.long
    def test_a_request_that_fails_ends_the_run_with_its_error(self, fleet):
        crew = fleet("fail=Question 3,pause=0.01")
        with pytest.raises(RequestFailed, match="t: gave up"):
            list(crew.run(asks(60), seeds_for(asks(60))))
        rest = asks(3)
        assert texts(crew.run(rest, seeds_for(rest))) == expected(rest)

    @pytest.mark.long
    def test_a_bug_shows_the_workers_traceback(self, fleet):
        with pytest.raises(RuntimeError, match=r"slow_engine\.py"):
            list(fleet("bug=Question 3").run(asks(6), seeds_for(asks(6))))

    @pytest.mark.long
    def test_a_stop_request_ends_what_is_in_hand(self, fleet, tmp_path):
        free = tmp_path / "free"
        crew, requests = fleet(f"most=1,until={free}"), asks(400)
        got = []
        for answer in crew.run(requests, seeds_for(requests)):
            got.append(answer)
            crew.stop_requested = True
        assert 1 <= len(texts(got)) <= 2
        crew.stop_requested = False
        free.touch()
        rest = asks(3)
        assert texts(crew.run(rest, seeds_for(rest))) == expected(rest)

    @pytest.mark.long
    def test_a_stop_request_is_seen_while_answers_come(self, fleet, monkeypatch):
        monkeypatch.setattr("olmes_suite.workers.fleet.POLL", 60)
        crew, requests = fleet("pause=0.01"), asks(1000)
        got = []
        for answer in crew.run(requests, seeds_for(requests)):
            got.append(answer)
            crew.stop_requested = True
        assert 1 <= len(texts(got)) < 500

    @pytest.mark.long
    def test_a_run_that_is_left_half_way_leaves_the_workers_usable(self, fleet):
        crew, requests = fleet("pause=0.02"), asks(100)
        running = crew.run(requests, seeds_for(requests))
        next(running)
        running.close()
        rest = asks(5)
        assert texts(crew.run(rest, seeds_for(rest))) == expected(rest)

    @pytest.mark.long
    def test_a_model_that_cannot_be_loaded(self, fleet, tmp_path):
        (tmp_path / "gate").touch()
        with pytest.raises(ModelError, match="no more of these"):
            fleet(f"none={tmp_path / 'gate'}")

    @pytest.mark.long
    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL, None])
    def test_nobody_waits_for_a_model_that_is_still_loaded(self, tmp_path, how):
        """Ctrl-C, a kill, or an error elsewhere while workers load: the run ends at once, and they with it."""
        begun = tmp_path / "begun"
        program = (
            "import signal, sys, time; from pathlib import Path\n"
            "from olmes_suite.evaluation.background_load import Ahead\n"
            "from olmes_suite.workers.factory import Crew, open_fleet\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            f"made = Ahead(lambda: open_fleet(Crew(2), 'slow', 'load=600,begun={begun}', {{}}, print), True)\n"
            f"while len(list(Path({str(tmp_path)!r}).glob('begun-*'))) < 2: time.sleep(0.01)\n"
            + ("sys.exit(2)" if how is None else "print('waits', flush=True); made.get()")
        )
        env = {**os.environ, "PYTHONPATH": slow_engine.install(tmp_path / "site")}
        with subprocess.Popen(
            [sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None and run.stderr is not None
            if how is not None:
                assert run.stdout.readline() == "waits\n"
                run.send_signal(how)
            said = run.stderr.read()  # until the workers too, which write there, are gone
            assert run.wait(60) == {signal.SIGKILL: -9, None: 2}.get(how, run.returncode)
        workers = [int(path.name.split("-")[1]) for path in tmp_path.glob("begun-*")]
        deadline = time.monotonic() + 60
        while any(map(alive, workers)) and time.monotonic() < deadline:  # files are closed a moment before the end
            time.sleep(0.01)
        assert len(workers) == 2 and not any(map(alive, workers))
        assert said.count("Traceback") == (how == signal.SIGINT)

    def test_workers_end_with_their_parent(self, fleet):
        crew = fleet("pause=0")
        processes = [seat.worker._process for seat in crew.seats]
        for seat in crew.seats:
            seat.worker._connection.close()
        assert [process.wait(60) for process in processes] == [1, 1]
