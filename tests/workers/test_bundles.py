"""Messages sent in bundles, and calls side by side."""

from __future__ import annotations

import queue
import threading

import pytest
import slow_engine
from worker_requests import asks

from olmes_suite.errors import ModelError
from olmes_suite.records import Response
from olmes_suite.workers.bundling import Bundles
from olmes_suite.workers.engine import Engine
from olmes_suite.workers.side_by_side import side_by_side


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
