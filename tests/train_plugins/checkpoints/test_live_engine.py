"""Evaluation in the training's engine, with stand-ins for trainer and engine: protocol, weights, shares."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from train_fixture import make_recipe, need_trl, refused, sft_rows, write_rows

need_trl()
from olmes_suite.errors import UsageError  # noqa: E402
from olmes_suite.models.base import Sent as SentText  # noqa: E402
from olmes_suite.models.vllm.engine import BrokenDown  # noqa: E402
from olmes_suite.models.vllm.live import Hello, LiveBackend, RemoteEngine, connect, too_long  # noqa: E402
from olmes_suite.models.vllm.requests import FirstAsk, Outcome  # noqa: E402
from olmes_suite.records import Request  # noqa: E402
from train_plugins.checkpoints import live_engine  # noqa: E402
from train_plugins.checkpoints.live_engine import LiveEngine, Socket, serve  # noqa: E402
from train_plugins.config.evaluation import Evaluation, check_evaluation  # noqa: E402
from train_plugins.running.prepare_stage import trainer_arguments  # noqa: E402
from train_plugins.stages import registry  # noqa: E402

HELLO = Hello(100, "float32", {"engines": 1}, 7)


class Owner:
    """Stands in for TRL's VLLMGeneration; `seen` is what was asked of it, in order."""

    def __init__(self, sleeps: bool = False, width: int = 1) -> None:
        self.enable_sleep_mode = self._llm_weights_sleeping = sleeps
        self.tensor_parallel_size, self.gpu_memory_utilization = width, 0.3
        self.seen: list[str] = []
        self.llm = SimpleNamespace(
            wake_up=lambda tags: self.seen.append(f"wake {tags[0]}"),
            sleep=lambda level: self.seen.append(f"sleep {level}"),
            llm_engine=SimpleNamespace(model_config=SimpleNamespace(max_model_len=100, dtype="torch.float32")),
        )

    def sync_weights(self) -> None:
        self.seen.append("copy")
        self._llm_weights_sleeping = False


def engine_of(owner: Owner, step: int = 7, loaded: int = 6, number: int = 0, count: int = 1) -> LiveEngine:
    """An engine whose outcomes are the prompts."""
    trainer = SimpleNamespace(
        vllm_generation=owner, state=SimpleNamespace(global_step=step), _last_loaded_step=loaded,
        accelerator=SimpleNamespace(num_processes=count, process_index=number),
    )  # fmt: skip
    engine = LiveEngine(trainer)
    engine._generate = lambda batch: [Outcome(ids, "stop") for ids, _ in batch]  # type: ignore[method-assign]
    return engine


def test_weights_are_copied_first_and_trl_is_told() -> None:
    owner = Owner()
    engine = engine_of(owner)
    engine.answer([((1,), {})])
    engine.answer([((2,), {})])
    assert owner.seen == ["copy"]
    assert engine.trainer._last_loaded_step == 7, "so that TRL copies nothing before the next rollout"
    current = Owner()
    engine_of(current, loaded=7).answer([((1,), {})])
    assert current.seen == [], "the rollouts of this step have copied them"


def test_an_engine_that_sleeps_is_woken_and_put_back() -> None:
    owner = Owner(sleeps=True)
    engine = engine_of(owner, loaded=7)
    engine.answer([((1,), {})])
    engine.answer([((2,), {})])
    engine.sleep()
    assert owner.seen == ["copy", "wake kv_cache", "sleep 2"]
    assert owner._llm_weights_sleeping, "TRL copies the weights, which are gone, before it samples"


@pytest.mark.parametrize(("count", "width"), [(1, 1), (3, 1), (4, 2)])
def test_each_engine_answers_its_share_in_order(count: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch: list[Any] = [((n,), {}) for n in range(7)]
    engines = [engine_of(Owner(width=width), number=number, count=count) for number in range(count)]
    shares: list[Any] = []
    for engine in engines:
        monkeypatch.setattr(engine.processes, "from_all", lambda mine: shares.append(mine) or [[]] * count)
        with pytest.raises(ValueError, match="assign") if count > 1 else no_error():
            engine.answer(batch)
    monkeypatch.setattr(engines[0].processes, "from_all", lambda mine: shares[:count])
    found = engines[0].answer(batch)
    assert [outcome.tokens for outcome in found] == [(n,) for n in range(7)]


def no_error() -> Any:
    from contextlib import nullcontext

    return nullcontext()


def test_an_error_of_the_engine_is_told_and_training_goes_on() -> None:
    engine = engine_of(Owner())

    def broken(batch: Any) -> Any:
        raise ValueError("the prompt is too long\nfor me")

    engine._generate = broken  # type: ignore[method-assign]
    assert engine.answer([((1,), {})]) == "ValueError: the prompt is too long"


def test_random_states_are_kept() -> None:
    import random

    import numpy
    import torch

    def draw() -> tuple[float, float, float]:
        return random.random(), float(numpy.random.rand()), float(torch.rand(()))

    torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
    wanted = draw()
    torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
    with live_engine.random_states_kept():
        draw()
    assert draw() == wanted


def served(evaluator: Any, engine: LiveEngine | None = None) -> LiveEngine:
    """Serve a stand-in for the evaluator, which runs in a thread with the socket's address."""
    engine, socket = engine or engine_of(Owner()), Socket()
    running: Future[None] = Future()

    def run() -> None:
        try:
            evaluator(socket.address)
        finally:
            running.set_result(None)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        serve(engine, socket, running)
    finally:
        thread.join()
        socket.close()
    return engine


def test_requests_and_outcomes_over_the_socket() -> None:
    found: list[Any] = []

    def evaluator(address: str) -> None:
        connection, hello = connect(address)
        found.append(hello.max_model_len)
        remote = RemoteEngine("model", connection)
        for number in range(3):
            remote.add(number, FirstAsk(number, (number, number + 1), 1))
        remote.abort([1])
        found.extend((number, outcome.tokens) for number, outcome in remote.step())
        remote.add(5, FirstAsk(5, (9,), 1))
        found.extend((number, outcome.tokens) for number, outcome in remote.step())
        remote.close()

    served(evaluator)
    assert found == [100, (0, (0, 1)), (2, (2, 3)), (5, (9,))]


def test_training_goes_on_after_an_evaluator_that_ends_early_or_never_connects() -> None:
    served(lambda address: None)
    served(lambda address: connect(address)[0].close())
    told: list[str] = []

    def refused_one(address: str) -> None:
        remote = RemoteEngine("model", connect(address)[0])
        remote.add(0, FirstAsk(0, (1,), 1))
        try:
            remote.step()
        except BrokenDown as error:
            told.append(str(error))

    engine = engine_of(Owner())
    engine._generate = lambda batch: 1 / 0  # type: ignore[assignment, method-assign, return-value]
    served(refused_one, engine)
    assert told == ["model: the training's engine cannot answer: ZeroDivisionError: division by zero"]


def test_other_processes_follow_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = iter([True, True, [((4,), {})], False])
    engine = engine_of(Owner(), number=1, count=2)
    monkeypatch.setattr(engine.processes, "from_first", lambda value: next(heard))
    monkeypatch.setattr(engine.processes, "from_all", lambda mine: [[Outcome((4,), "stop")], mine])
    serve(engine, None, None)
    assert next(heard, "none left") == "none left"


def test_a_backend_without_a_training_is_told(tmp_path: Path) -> None:
    refused(lambda: connect("http://localhost:8000/v1"), "a stage with `eval: {engine: live}` starts it", UsageError)
    refused(lambda: connect(f"unix:{tmp_path}/gone"), "no training answers at", UsageError)


def test_tasks_that_exceed_the_engine_are_found() -> None:
    def request(task: str, tokens: int | None) -> Request:
        return Request(task, 0, 0, "generate", text="a", max_tokens=tokens)

    requests = [request("short", 10), request("long", 90), request("cut", 1), request("short", None)]
    sent = [SentText("a", 20), SentText("a", 20), SentText("a", 99, True), None]
    assert too_long(requests, sent, live=99, whole=1000) == {"long", "cut"}
    assert too_long(requests, sent, live=99, whole=100) == set(), "the model itself holds no more"


def test_a_recipe_without_such_an_engine_is_refused(train_folder: Path) -> None:
    rows = write_rows(train_folder / "rows.jsonl", sft_rows(8))
    wanted = make_recipe("sft", train_folder, rows, eval={"tasks": ["gsm8k"], "engine": "live"})
    refused(lambda: trainer_arguments(registry.find("sft"), wanted), "needs rlvr with `rollouts: vllm_colocate`")
    both = Evaluation(tasks=("gsm8k",), engine="live", device="same")
    refused(lambda: check_evaluation(both, False, "r.yaml"), "remove `device`")


def test_what_the_engine_cannot_answer_needs_no_second_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second vLLM would ask for most of a GPU that the training has filled."""
    from train_plugins.checkpoints.eval_command import command

    def options(settings: Evaluation, live: str | None = None) -> list[str]:
        line = command(settings, tmp_path, live=live)
        return line[line.index("--backend") :][:2] if "--backend" in line else []

    wanted = Evaluation(tasks=("gsm8k",), engine="live")
    assert options(wanted, "unix:/s") == ["--backend", "live"]
    assert options(wanted) == ["--backend", "hf"], "the parent, and what an earlier start missed"
    assert options(Evaluation(tasks=("gsm8k",))) == []

    made: list[str] = []

    def make(name: str, model: str, **_: Any) -> Any:
        made.append(name)
        return SimpleNamespace(run=lambda requests, seeds: iter(()))

    monkeypatch.setattr("olmes_suite.models.factory.make_backend", make)
    backend = LiveBackend.__new__(LiveBackend)
    backend.fallback, backend.source, backend._options = None, "folder", {}
    list(backend._from_folder([], []))
    assert made == ["hf"]


@pytest.mark.long
def test_three_processes_answer_in_step(tmp_path: Path) -> None:
    from processes import work

    found = work("live_worker.py", tmp_path, 3)["found"]
    assert found == [*((n, n % 3) for n in range(5)), (10, 0)]
