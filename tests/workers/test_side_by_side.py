"""Engines that are given the requests of all tasks at once: the same results, and a failure stays with its task."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from olmes_suite.errors import RequestFailed
from olmes_suite.evaluation.evaluate import Finished, evaluate
from olmes_suite.evaluation.plan import Options
from olmes_suite.models.without_model.mock import MockBackend
from olmes_suite.tasks.documents import DataSource

TASKS = ("gsm8k", "mmlu_mc", "truthfulqa")


class Quiet:
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.documents = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def start(self, plans: object) -> None: ...

    def advance(self, task: str, documents: int, tokens: int) -> None:
        self.documents += documents

    def stop(self) -> None: ...


class Together(MockBackend):
    """The mock model, newest requests first, which may fail on a task."""

    together = True
    fails_on = ""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[set[str]] = []

    def run(self, requests: Any, seeds: Any) -> Iterator[Any]:
        self.runs.append({request.task for request in requests})
        for item in reversed(list(super().run(requests, seeds))):
            if self.fails_on and requests[item[0]].task.startswith(self.fails_on):
                raise RequestFailed("it was too much")
            yield item


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLMES_CACHE", str(tmp_path / "cache"))


def run(folder: Path, backend: MockBackend, watcher: Quiet | None = None) -> Finished:
    options = Options("", "mock", task_names=TASKS, source=DataSource(sample=True), runs=folder)
    return evaluate(options, lambda *_: backend, watcher or Quiet())


@pytest.mark.long
def test_all_tasks_are_asked_in_one_call_and_score_the_same(tmp_path: Path) -> None:
    backend, watcher = Together(), Quiet()
    together = run(tmp_path / "a", backend, watcher)
    apart = run(tmp_path / "b", MockBackend())
    assert len(backend.runs) == 1
    assert {name.split("_")[1] for name in backend.runs[0]} == {"gsm8k", "mmlu", "truthfulqa"}
    assert together.results.tasks == apart.results.tasks
    for task in TASKS:
        name = f"responses/tulu3_{task}.jsonl"
        lines = [sorted(map(json.dumps, map(json.loads, (f.path / name).open()))) for f in (together, apart)]
        assert lines[0] == lines[1]
    assert watcher.documents == sum(together.results.tasks[f"tulu3_{task}"].n for task in TASKS)


def test_a_task_that_fails_does_not_take_the_others_along(tmp_path: Path) -> None:
    backend = Together()
    backend.fails_on = "tulu3_mmlu_mc"
    finished = run(tmp_path, backend)
    assert finished.failed == ["tulu3_mmlu_mc"]
    assert finished.results.tasks["tulu3_mmlu_mc"].error == "it was too much"
    assert finished.results.tasks["tulu3_gsm8k"].metrics
    asked_again = [names for names in backend.runs[1:] if any("truthfulqa" in name for name in names)]
    assert not asked_again, "answers that came before the failure are not asked again"


def test_an_error_of_a_scorer_is_forgotten_with_its_task() -> None:
    from scorers_for_tests import hangs, raises

    from olmes_suite.evaluation.pool import ScorerFailed, ScoringPool

    got = []
    with ScoringPool(1) as pool:
        pool.submit(raises, ("m",), {}, ["x"], where="one", done=lambda *_: None)
        with pytest.raises(ScorerFailed):
            pool.join()
        pool.forget()
        pool.submit(hangs, ("m",), {"hang": False}, ["x"], where="two", done=lambda scored, *_: got.append(scored))
        pool.join()
    assert [scored.scores for scored in got] == [{"m": 1.0}]
