"""The board: pieces of work given out and taken back."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worker_requests import asks, seeds_for

from olmes_suite.errors import RequestFailed
from olmes_suite.records import Request, Response
from olmes_suite.workers.scheduler import MOST_DEATHS, Board


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
