"""Evaluation in the training's own vLLM engine, between two steps.

`olmes eval --backend live` runs beside the first process and sends its requests over a socket; all processes answer
them together with the engine that also samples rollouts. The weights are copied into the engine first.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from olmes_suite.errors import first_line
from olmes_suite.models.vllm.live import SCHEME, Entry, Hello
from olmes_suite.models.vllm.requests import Outcome

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from train_plugins.checkpoints.evaluator import Evaluator

Sent = tuple[tuple[int, ...], dict[str, Any]]
"""A request: the prompt's token ids and the arguments of vLLM's `SamplingParams`."""
Answers = list[Outcome] | str
"""Outcomes in the order of the requests, or why there are none."""
PAUSE = 0.2
"""Seconds between checks whether the evaluator still runs."""
HEARTBEAT = 60.0
"""Seconds after which the other processes hear that there is nothing new: their wait has a limit (ddp_timeout)."""


class Socket:
    """The first process's side: a socket that one evaluator at a time connects to."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="olmes-live-"))  # readable by this user alone
        self._listener = Listener(str(self._folder / "socket"), family="AF_UNIX")
        self.connection: Connection | None = None

    @property
    def address(self) -> str:
        """The evaluator's `--base-url`."""
        return SCHEME + str(self._folder / "socket")

    def next(self, running: Future[None], hello: Hello, seconds: float = HEARTBEAT) -> list[Sent] | bool:
        """Return the next requests; True if there are none within `seconds`, False if the evaluator needs no more."""
        for _ in range(max(int(seconds / PAUSE), 1)):
            if self.connection is None:
                if wait([self._listener._listener._socket], timeout=PAUSE):  # type: ignore[attr-defined]
                    self.connection = self._listener.accept()
                    self.connection.send(hello)
            elif self.connection.poll(PAUSE):
                try:
                    batch: list[Sent] = self.connection.recv()
                except (EOFError, OSError):
                    self.drop()
                    return False
                return batch
            if running.done():
                self.drop()
                return False
        return True

    def reply(self, answers: Answers) -> None:
        """Send the outcomes; an evaluator that has ended does not mind."""
        try:
            if self.connection is not None:
                self.connection.send(answers)
        except OSError:
            self.drop()

    def drop(self) -> None:
        """Close the connection of an evaluator."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def close(self) -> None:
        """Remove the socket."""
        self.drop()
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)


class Processes:
    """How the processes of a training exchange objects; all must call the methods in the same order."""

    def __init__(self, trainer: Any) -> None:
        self.count = int(trainer.accelerator.num_processes)
        self.number = int(trainer.accelerator.process_index)

    def from_first(self, value: Any) -> Any:
        """Return the value that the first process gives."""
        if self.count == 1:
            return value
        from accelerate.utils import broadcast_object_list

        values = [value]
        broadcast_object_list(values, from_process=0)
        return values[0]

    def from_all(self, value: Any) -> list[Any]:
        """Return the values of all processes, by number."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        gathered: list[Any] = gather_object([value])
        return gathered


class LiveEngine:
    """The engine of a trainer, for requests of an evaluator."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.processes = Processes(trainer)
        self.awake = False

    @property
    def generation(self) -> Any:
        """TRL's owner of the engine."""
        return self.trainer.vllm_generation

    def hello(self) -> Hello:
        """Return what an evaluator is told when it connects: the engine's limits and settings, and the step."""
        owner = self.generation
        config = owner.llm.llm_engine.model_config
        arguments = {
            "max_model_len": int(config.max_model_len), "dtype": str(config.dtype).removeprefix("torch."),
            "tensor_parallel_size": owner.tensor_parallel_size, "engines": self.engines,
            "gpu_memory_utilization": owner.gpu_memory_utilization, "sleep_mode": bool(owner.enable_sleep_mode),
            "logprobs_mode": str(getattr(config, "logprobs_mode", "")),
        }  # fmt: skip
        return Hello(
            int(config.max_model_len), str(config.dtype).removeprefix("torch."), arguments,
            int(self.trainer.state.global_step),
        )  # fmt: skip

    @property
    def engines(self) -> int:
        """The number of engines, each of one or more processes."""
        return self.processes.count // int(self.generation.tensor_parallel_size)

    def answer(self, batch: Sequence[Sent]) -> Answers:
        """Answer requests, each engine its share. Called on all processes with the same batch."""
        width = int(self.generation.tensor_parallel_size)
        own = self.processes.number // width
        try:
            self._wake()
            with random_states_kept():
                mine: Answers = self._generate(list(batch[own :: self.engines]))
        except Exception as error:  # a refused request or a broken engine: the evaluation fails, not the training
            mine = f"{type(error).__name__}: {first_line(error)}"
        shares = self.processes.from_all(mine)[::width]
        if failed := [share for share in shares if isinstance(share, str)]:
            return str(failed[0])
        together: list[Any] = [None] * len(batch)
        for number, share in enumerate(shares):
            together[number :: self.engines] = share
        return together

    def _wake(self) -> None:
        """Copy the weights into the engine, unless it has those of this step, and tell TRL so."""
        owner, step = self.generation, self.trainer.state.global_step
        if self.awake:
            return
        if self.trainer._last_loaded_step != step or (owner.enable_sleep_mode and owner._llm_weights_sleeping):
            owner.sync_weights()
            self.trainer._last_loaded_step = step  # otherwise TRL copies them again before the next rollout
        if owner.enable_sleep_mode:
            owner.llm.wake_up(tags=["kv_cache"])
        self.awake = True

    def sleep(self) -> None:
        """Return the engine to the state in which TRL left it."""
        owner = self.generation
        if self.awake and owner.enable_sleep_mode:
            owner.llm.sleep(level=2)
            owner._llm_weights_sleeping = True  # the weights are gone: TRL copies them before it samples
        self.awake = False

    def _generate(self, batch: list[Sent]) -> list[Outcome]:
        if not batch:
            return []
        parameters: Any = import_module("vllm").SamplingParams
        read: Any = import_module("olmes_suite.models.vllm.engine").outcome
        settings = [parameters(**arguments) for _, arguments in batch]
        prompts = [{"prompt_token_ids": list(ids)} for ids, _ in batch]
        outputs = self.generation.llm.generate(prompts, sampling_params=settings, use_tqdm=False)
        return [portable(read(output)) for output in outputs]


def portable(outcome: Outcome) -> Outcome:
    """Return an outcome without vLLM's classes, which take seconds to import."""
    prompt = [
        None if entries is None else {token: Entry(one.logprob, one.rank) for token, one in entries.items()}
        for entries in outcome.prompt
    ]
    first = None if outcome.first is None else dict(outcome.first)
    return Outcome(tuple(outcome.tokens), outcome.reason, tuple(prompt), first)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Restore the generators of this process after the block: an evaluation must not change the training."""
    import random

    import numpy
    import torch

    plain, array = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(plain)
    numpy.random.set_state(array)


def serve(engine: LiveEngine, socket: Socket | None, running: Future[None] | None) -> None:
    """Answer the requests of the evaluator that `running` waits for, if there is one. Called on all processes.

    `socket` and `running` are those of the first process, None on the others.
    """
    processes = engine.processes
    hello = engine.hello() if socket is not None else None
    if not processes.from_first(running is not None):
        return
    try:
        while True:
            found: list[Sent] | bool | None = None
            if socket is not None and running is not None and hello is not None:
                found = socket.next(running, hello)
            found = processes.from_first(found)
            if found is True:
                continue
            if not isinstance(found, list):
                return
            answers = engine.answer(found)
            if socket is not None:
                socket.reply(answers)
    finally:
        engine.sleep()


class Live(TrainerCallback):
    """Serves the evaluation that a save has started before the next step, on all processes."""

    def __init__(self, trainer: Any, evaluator: Evaluator | None) -> None:
        """Attach to a trainer whose other callbacks start the evaluations; `evaluator` is the first process's."""
        self.engine = LiveEngine(trainer)
        self.evaluator = evaluator
        self.socket: Socket | None = None
        if evaluator is not None:
            self.socket = Socket()
            evaluator.live = self.socket.address
            atexit.register(self.socket.close)
        trainer.add_callback(self)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Serve the evaluation of the checkpoint, if there is one."""
        self._serve()

    def finish(self, output: Path) -> None:
        """Serve the evaluation of the last checkpoint, while the engine still runs."""
        if self.evaluator is not None:
            self.evaluator.begin_last(output)
        self._serve()
        if self.evaluator is not None and self.socket is not None:
            self.evaluator.live = None
            self.socket.close()

    def _serve(self) -> None:
        serve(self.engine, self.socket, self.evaluator.take_pending() if self.evaluator else None)
