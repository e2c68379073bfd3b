"""Workers: the scheduler, the places they get, and processes that are killed in the middle."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import slow_engine
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_requests import asks, expected, seeds_for, texts

from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.records import Request, Response
from olmes_suite.workers.base import WorkersDead
from olmes_suite.workers.bundling import Bundles
from olmes_suite.workers.engine import Engine, Recipe
from olmes_suite.workers.factory import Crew, check, group_size, open_fleet
from olmes_suite.workers.fleet import Fleet
from olmes_suite.workers.placement import assign, gpus, listed_gpus, threads
from olmes_suite.workers.process import ProcessWorker
from olmes_suite.workers.scheduler import MOST_DEATHS, Board
from olmes_suite.workers.side_by_side import side_by_side


def alive(pid: int) -> bool:
    """Not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


class TestBoard:
    @settings(max_examples=60, deadline=None)
    @given(
        st.integers(1, 60), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9),
        st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=200),
    )  # fmt: skip
    def test_nothing_is_lost_or_answered_twice(self, number, samples, workers, least, events):
        """Workers that answer a part of their piece, some of which die: in any order."""
        requests = asks(number, samples)
        board = Board(requests, seeds_for(requests), workers, least)
        got = []
        deaths = 0
        plan = iter(events)
        while not board.finished:
            piece = board.take()
            share, dies = next(plan, (99, False))
            dies = dies and deaths < MOST_DEATHS - 1
            places = [
                (place, sample, Response(text="x"))
                for place, row in enumerate(piece.seeds)
                for sample, seed in enumerate(row)
                if seed is not None
            ]
            if dies:
                got += board.new(piece, places[:share])
                got += board.new(piece, places[:share])  # what was under way twice counts once
                board.give_back(piece, "killed")
                deaths += 1
            else:
                got += board.new(piece, places)
        assert board.take() is None
        assert sorted(answer[:2] for answer in got) == [(i, s) for i in range(number) for s in range(samples)]

    def test_choices_of_a_context_never_part_and_equal_beginnings_stay_together(self):
        requests = [
            Request("t", doc, index, "loglikelihood", text=f"{'AB'[doc % 2]} shots, question {doc}", continuation=c)
            for doc in range(20)
            for index, c in enumerate((" yes", " no", " so"))
        ]
        board = Board(requests, seeds_for(requests), 2, 4)
        beginnings = []
        while (piece := board.take()) is not None:
            counts = {doc: sum(r.doc_id == doc for r in piece.requests) for doc in {r.doc_id for r in piece.requests}}
            assert set(counts.values()) == {3}
            beginnings += [r.text[0] for r in piece.requests]
            board.new(piece, [(place, 0, Response(loglikelihood=0.0)) for place in range(len(piece.positions))])
        assert beginnings == sorted(beginnings)

    def test_pieces_get_smaller_towards_the_end(self):
        requests = asks(100)
        board = Board(requests, seeds_for(requests), 2, 2)
        sizes = [len(board.take().positions) for _ in range(12)]
        assert sizes[0] == 25 and sizes == sorted(sizes, reverse=True) and sizes[-1] <= 3

    def test_few_requests_are_shared_by_all_workers(self):
        requests = asks(10)
        board = Board(requests, seeds_for(requests), 3, 256)
        assert [len(board.take().positions) for _ in range(3)] == [4, 4, 2]

    def test_samples_on_disk_are_left_out(self):
        board = Board(asks(2, 3), [[None, 7, None], [None, None, None]], 1, 1)
        piece = board.take()
        assert (piece.positions, piece.seeds) == ((0,), ((None, 7, None),))

    def test_a_request_that_kills_is_found_and_the_others_are_answered(self):
        requests = asks(8)
        board = Board(requests, seeds_for(requests), 1, 8)
        answered = []
        with pytest.raises(RequestFailed, match="3 workers died over document 5"):
            while (piece := board.take()) is not None:
                if any(request.doc_id == 5 for request in piece.requests):
                    board.give_back(piece, "killed")
                else:
                    answered += board.new(piece, [(place, 0, Response()) for place in range(len(piece.positions))])
        assert {position for position, _, _ in answered} <= set(range(8)) - {5}

    def test_a_worker_without_work_waits_for_what_another_gives_back(self):
        requests = asks(4)
        board = Board(requests, seeds_for(requests), 1, 4)
        first = board.take()
        found = []
        waiting = threading.Thread(target=lambda: found.append(board.take()))
        waiting.start()
        time.sleep(0.05)
        assert waiting.is_alive()
        board.give_back(first, "killed")
        waiting.join(60)
        assert found[0].positions == first.positions


FREE = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""vLLM would bind all engines to the same processors."""


class TestPlaces:
    def test_gpus_are_dealt_in_groups(self):
        env = {"CUDA_VISIBLE_DEVICES": "4,5,6,7"}
        assert gpus(env) == ["4", "5", "6", "7"]
        assert assign(2, 2, None, env) == [{"CUDA_VISIBLE_DEVICES": "4,5"}, {"CUDA_VISIBLE_DEVICES": "6,7"}]

    @pytest.mark.parametrize(("workers", "each", "words"), [(3, 1, "needs 3 GPUs"), (2, 2, "needs 4 GPUs, 2 for each")])
    def test_more_workers_than_gpus(self, workers, each, words):
        with pytest.raises(UsageError, match=words):
            assign(workers, each, None, {"CUDA_VISIBLE_DEVICES": "0,1"})

    def test_one_gpu_by_name(self):
        with pytest.raises(UsageError, match="cuda:1"):
            assign(2, 1, "cuda:1", {"CUDA_VISIBLE_DEVICES": "0,1"})

    def test_the_processor_is_shared(self):
        cores = len(os.sched_getaffinity(0))
        assert assign(1, 1, "cpu", {"CUDA_VISIBLE_DEVICES": "0"}) == [{"OMP_NUM_THREADS": str(cores)}]
        assert assign(2, 1, None, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "3"}) == [FREE, FREE]
        assert threads(1000, {}) == {"OMP_NUM_THREADS": "1", **FREE}
        assert threads(2, {"OMP_NUM_THREADS": "3", "VLLM_CPU_OMP_THREADS_BIND": "0-1"}) == {}

    def test_the_memory_is_shared_by_engines_on_a_processor(self, monkeypatch):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        made = []
        monkeypatch.setattr("olmes_suite.workers.factory.Fleet", lambda makers, *_: made.append(makers[0].args[0]))
        for count, more in ((2, {}), (4, {}), (4, {"gpu_memory_utilization": 0.1})):
            open_fleet(Crew(workers=count), "vllm", "m", {"model_args": more}, print)
        assert [one.options["model_args"] for one in made] == [
            {}, {"gpu_memory_utilization": 0.15}, {"gpu_memory_utilization": 0.1}
        ]  # fmt: skip

    def test_what_nvidia_smi_lists(self):
        text = """GPU 0: A (UUID: GPU-aa)\nGPU 1: B (UUID: GPU-bb)
  MIG 3g.40gb     Device  0: (UUID: MIG-b1)\n  MIG 3g.40gb     Device  1: (UUID: MIG-b2)\nGPU 2: A (UUID: GPU-cc)\n"""
        assert listed_gpus(text) == ["GPU-aa", "MIG-b1", "MIG-b2", "GPU-cc"]

    def test_what_no_machine_can_do(self):
        with pytest.raises(UsageError, match="--workers 0"):
            check(Crew(workers=0), "hf")
        with pytest.raises(UsageError, match="one process"):
            check(Crew(workers=2), "oracle")
        assert group_size({"model_args": {"tensor_parallel_size": 4}}) == 4 and group_size({}) == 1

    @pytest.mark.parametrize("size", ["two", [1], -1, 0, 1.5, True])
    def test_what_is_no_number_of_gpus(self, size):
        with pytest.raises(UsageError, match=r"tensor_parallel_size=.*: give a number of GPUs") as caught:
            group_size({"model_args": {"tensor_parallel_size": size}})
        assert "\n" not in str(caught.value)


class TestBundles:
    answers = tuple((i, 0, Response()) for i in range(5))

    def test_what_comes_together_is_sent_together(self):
        sent: queue.SimpleQueue = queue.SimpleQueue()
        with Bundles(sent.put, seconds=1e9) as bundles:
            bundles.put(self.answers[0])
            assert sent.get(timeout=60) == [self.answers[0]]
            for answer in self.answers[1:]:
                bundles.put(answer)
            assert sent.empty()
        assert sent.get() == list(self.answers[1:]) and sent.empty()

    def test_none_waits_for_an_engine_at_work(self):
        """All answers of a batch leave while the next one is computed, however long that takes."""
        sent: queue.SimpleQueue = queue.SimpleQueue()
        with Bundles(sent.put, seconds=0.05) as bundles:
            for answer in self.answers:
                bundles.put(answer)
            found = []
            while len(found) < 5:  # before the engine says anything more
                found += sent.get(timeout=60)
        assert found == list(self.answers)

    def test_an_error_of_sending_is_raised(self):
        def send(bundle):
            raise TypeError("cannot be sent")

        with pytest.raises(TypeError, match="cannot be sent"), Bundles(send, seconds=0) as bundles:
            bundles.put(self.answers[0])

    @pytest.mark.parametrize("orders", ["pause=0", "fail=Question 3"])
    def test_an_engine_gives_its_messages_from_another_thread_too(self, orders):
        """As Ray's actors ask for them."""
        engine = Engine.__new__(Engine)
        engine.backend = slow_engine.Slow(orders)
        messages = list(engine.answer(asks(6), [(0,)] * 6))
        answered = [answer for kind, content in messages if kind == "answers" for answer in content]
        assert len(answered) == (3 if "fail" in orders else 6)
        assert (messages[-1][0] == "error") == ("fail" in orders)


class TestSideBySide:
    def test_results_are_in_the_order_of_the_calls(self):
        go = threading.Event()

        def last() -> int:
            go.wait(60)
            return 1

        def first() -> int:
            go.set()
            return 2

        assert side_by_side([last, first]) == [1, 2]

    def test_a_failure_is_raised_while_others_are_under_way(self):
        before, never = threading.enumerate(), threading.Event()
        started = threading.Event()

        def wait() -> None:
            started.set()
            never.wait(60)

        def fail() -> None:
            started.wait(60)
            raise ModelError("no weights")

        with pytest.raises(ModelError, match="no weights"):
            side_by_side([wait, fail])
        assert all(thread.daemon for thread in threading.enumerate() if thread not in before)
        never.set()


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

    @pytest.mark.parametrize("place", [0, 1])
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

    def test_a_request_that_kills_every_worker_fails_and_the_next_task_goes_on(self, fleet):
        crew = fleet("die=Question 3")
        with pytest.raises(RequestFailed, match="died over document 3"):
            list(crew.run(asks(6), seeds_for(asks(6))))
        rest = asks(3)
        assert texts(crew.run(rest, seeds_for(rest))) == expected(rest)

    def test_a_request_that_fails_ends_the_run_with_its_error(self, fleet):
        crew = fleet("fail=Question 3,pause=0.01")
        with pytest.raises(RequestFailed, match="t: gave up"):
            list(crew.run(asks(60), seeds_for(asks(60))))
        rest = asks(3)
        assert texts(crew.run(rest, seeds_for(rest))) == expected(rest)

    def test_a_bug_shows_the_workers_traceback(self, fleet):
        with pytest.raises(RuntimeError, match=r"slow_engine\.py"):
            list(fleet("bug=Question 3").run(asks(6), seeds_for(asks(6))))

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

    def test_a_stop_request_is_seen_while_answers_come(self, fleet, monkeypatch):
        monkeypatch.setattr("olmes_suite.workers.fleet.POLL", 60)
        crew, requests = fleet("pause=0.01"), asks(1000)
        got = []
        for answer in crew.run(requests, seeds_for(requests)):
            got.append(answer)
            crew.stop_requested = True
        assert 1 <= len(texts(got)) < 500

    def test_a_run_that_is_left_half_way_leaves_the_workers_usable(self, fleet):
        crew, requests = fleet("pause=0.02"), asks(100)
        running = crew.run(requests, seeds_for(requests))
        next(running)
        running.close()
        rest = asks(5)
        assert texts(crew.run(rest, seeds_for(rest))) == expected(rest)

    def test_a_model_that_cannot_be_loaded(self, fleet, tmp_path):
        (tmp_path / "gate").touch()
        with pytest.raises(ModelError, match="no more of these"):
            fleet(f"none={tmp_path / 'gate'}")

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


def shares_of(monkeypatch, workers, options):
    """What each worker may have under way, of a crew that is not started."""
    seen = []
    monkeypatch.setattr("olmes_suite.workers.factory.Fleet", lambda makers, kind, tell: seen.extend(makers))
    open_fleet(Crew(workers=workers), "openai", "m", {**options, "base_url": "http://x"}, print)
    return [make.args[0].options["concurrency"] for make in seen]


def test_the_servers_requests_under_way_are_shared_out_whole(monkeypatch):
    assert shares_of(monkeypatch, 4, {"concurrency": 10}) == [3, 3, 2, 2]
    assert shares_of(monkeypatch, 3, {}) == [86, 85, 85]
    assert shares_of(monkeypatch, 2, {"concurrency": 2}) == [1, 1]
    with pytest.raises(UsageError, match="--workers 4: more workers than the 2 concurrent requests"):
        shares_of(monkeypatch, 4, {"concurrency": 2})


def test_what_ray_has_room_for_is_no_more_than_may_be_under_way(monkeypatch):
    seen = []
    monkeypatch.setattr("olmes_suite.workers.ray_actors.connect", lambda *_: (8, 0, lambda: None))
    monkeypatch.setattr("olmes_suite.workers.factory.Fleet", lambda makers, *_, **__: seen.extend(makers))
    open_fleet(Crew(ray="local"), "openai", "m", {"concurrency": 3, "base_url": "http://x"}, print)
    assert [(make.args[0].options["concurrency"], make.args[2]) for make in seen] == [(1, 3)] * 3
    with pytest.raises(UsageError, match="--workers 8"):
        open_fleet(Crew(8, "local"), "openai", "m", {"concurrency": 3, "base_url": "http://x"}, print)
