"""The backends without a model: mock, oracle and floor."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import pytest
from models_fixture import (
    PROMPTS,
    answers,
    choice,
    generation,
    one_line,
)

from olmes_suite.errors import RequestFailed, UsageError
from olmes_suite.models.base import Backend
from olmes_suite.models.without_model.base import WithoutModel
from olmes_suite.models.without_model.floor import ANSWERS, FloorBackend
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.models.without_model.oracle import OracleBackend
from olmes_suite.records import Request, Response


class TestModelless:
    """mock, oracle and floor."""

    def test_mock_is_deterministic_and_follows_the_seed_of_sampled_requests(self) -> None:
        greedy, sampled = generation(0), generation(0, temperature=0.8)
        assert answers(MockBackend(), [greedy], [[1]]) == answers(MockBackend(), [greedy], [[2]])
        one, two = answers(MockBackend(), [sampled], [[1, 2]])
        assert one != two
        assert answers(MockBackend(), [sampled], [[1, 2]]) == [one, two]
        assert len({r.text for r in answers(MockBackend(), [generation(i) for i in range(16)])}) > 12
        assert MockBackend().fingerprint == MockBackend("x").fingerprint

    def test_mock_keeps_to_stop_strings_and_limits(self) -> None:
        for response in answers(MockBackend(), [generation(i, stop=("answer",), max_tokens=6) for i in range(16)]):
            assert "answer" not in (response.text or "")
            assert len((response.raw or response.text or "").split()) <= 6
            assert response.finish_reason in ("stop", "length")

    def test_mock_scores_choices(self) -> None:
        scored = answers(MockBackend(), [choice(0, i, "Q", c) for i, c in enumerate("ABCD")])
        assert len({r.loglikelihood for r in scored}) == 4
        assert all(r.loglikelihood is not None and r.loglikelihood <= 0 for r in scored)

    def test_mock_is_quick(self) -> None:
        requests = [generation(i, PROMPTS[0] * 200 + str(i)) for i in range(1319)]
        start = time.process_time()
        assert len(answers(MockBackend(), requests)) == 1319
        assert time.process_time() - start < 0.5  # about 0.05 s on a quiet machine

    def test_nothing_here_imports_torch(self) -> None:
        import subprocess
        import sys

        code = (
            "import sys; from olmes_suite.models import factory\n"
            "from olmes_suite.models.local import checkpoint, fingerprint\n"
            "from olmes_suite.models.without_model import floor, mock, oracle; sys.exit('torch' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_oracle_answers_with_the_gold(self) -> None:
        def gold(request: Request) -> str | float | None:
            return f"gold {request.doc_id}" if request.kind == "generate" else -float(request.index)

        backend = OracleBackend(gold)
        found = answers(backend, [generation(3), choice(0, 0, "Q", "A"), choice(0, 1, "Q", "B")], [[0, 0], [0], [0]])
        assert [r.text for r in found[:2]] == ["gold 3"] * 2
        assert [r.loglikelihood for r in found[2:]] == [0.0, -1.0]

    def test_oracle_without_gold_names_the_task(self) -> None:
        one_line(
            lambda: answers(OracleBackend(lambda request: None), [generation(0)]),
            "no answer that scores 1 is known for document 0 of tulu3_test",
            RequestFailed,
        )
        one_line(lambda: answers(OracleBackend(lambda request: 1.0), [generation(0)]), "tulu3_test", RequestFailed)
        one_line(
            lambda: answers(OracleBackend(lambda request: "x"), [choice(0, 0, "", "A")]), "tulu3_test", RequestFailed
        )

    def test_floor_says_the_same_to_all_and_prefers_nothing(self) -> None:
        found = answers(FloorBackend(), [generation(0), choice(0, 0, "Q", "A"), choice(0, 1, "Q", "long one")])
        assert found[0].text == "Spring"
        assert {r.loglikelihood for r in found[1:]} == {-1.0}
        assert len({FloorBackend(name).fingerprint for name in ANSWERS}) == len(ANSWERS) == 4

    def test_the_floors_answers_keep_to_the_request(self) -> None:
        short = replace(generation(0), max_tokens=3, stop=("much",))
        said = {name: answers(FloorBackend(name), [short])[0].text for name in ANSWERS}
        asked = short.messages[-1][1] if short.messages else short.text
        assert said == {
            "empty": "",
            "word": "Spring",
            "echo": " ".join(str(asked).split(" ")[:3]),
            "filler": "There is ",
        }
        one_line(lambda: FloorBackend("silence"), "empty, word, echo, filler", UsageError)

    @pytest.mark.parametrize("backend", [MockBackend(), FloorBackend(), OracleBackend(lambda request: "x")])
    def test_samples_on_disk_are_not_asked_for_again(self, backend: Backend) -> None:
        found = list(backend.run([generation(0), generation(1)], [[None, 5], [None, None]]))
        assert [item[:2] for item in found] == [(0, 1)]


class TestWithoutModel:
    """What the backends without a model share."""

    class Counting(WithoutModel):
        name = "counting"
        fingerprint = "counting"
        requests = 0

        def respond(self, request: Request, seeds: Sequence[int]) -> list[Response]:
            self.requests += 1
            return [Response(text=f"{request.doc_id} {seed}") for seed in seeds]

    def test_a_request_is_answered_for_the_samples_that_are_asked_for(self) -> None:
        asked = [replace(generation(0), doc_id=number) for number in range(4)]
        backend = self.Counting()
        given = [(at, s, r.text) for at, s, r in backend.run(asked, [[5, None, 6], [None], [], [7]])]
        assert given == [(0, 0, "0 5"), (0, 2, "0 6"), (3, 0, "3 7")]
        assert backend.requests == 2  # what is not asked for costs nothing

    def test_it_stops_between_requests(self) -> None:
        backend, given = self.Counting(), []
        for answer in backend.run([generation(0)] * 3, [[1, 2]] * 3):
            given.append(answer)
            backend.stop_requested = True
        assert len(given) == 2
