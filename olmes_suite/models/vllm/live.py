"""The backend `live`: answers of a vLLM engine that runs in a training process, which serves it between two steps.

The checkpoint's folder gives tokenizer, chat template and fingerprint; the engine holds the same weights. `--base-url
unix:PATH` is the socket of the training process (`train_plugins.checkpoints.live_engine`), which starts this backend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any, NamedTuple

from olmes_suite.errors import UsageError, first_line
from olmes_suite.models.base import DEFAULT_MAX_TOKENS, Backend, Sent
from olmes_suite.models.local.loading import context_length
from olmes_suite.models.vllm import engine as vllm_engine
from olmes_suite.models.vllm.backend import VLLMBackend, configuration
from olmes_suite.models.vllm.requests import Answered, Ask, Outcome
from olmes_suite.records import Request

SCHEME = "unix:"


class Entry(NamedTuple):
    """A token's log-probability (natural) and rank (from 1), as vLLM's `Logprob` has them."""

    logprob: float
    rank: int | None


@dataclass(frozen=True, slots=True)
class Hello:
    """The first message of the training process: limits and arguments of its engine."""

    max_model_len: int
    """Tokens of prompt and answer together."""
    dtype: str
    arguments: Mapping[str, Any]
    """The engine's settings, for the record."""
    step: int
    """The training step whose weights the engine holds."""


class RemoteEngine:
    """The engine on the other side of a socket, with the interface of `engine.Engine`."""

    def __init__(self, model: str, connection: Connection) -> None:
        self.model = model
        self._connection = connection
        self._waiting: list[tuple[int, tuple[int, ...], dict[str, Any]]] = []

    def add(self, number: int, ask: Ask) -> None:
        """Add a request, which is sent with the others at the next step."""
        self._waiting.append((number, tuple(ask.prompt), ask.settings()))

    def step(self) -> list[tuple[int, Outcome]]:
        """Send the requests and return their outcomes. Raises BrokenDown where the training ended."""
        batch, self._waiting = self._waiting, []
        try:
            self._connection.send([one[1:] for one in batch])
            answer = self._connection.recv()
        except (OSError, EOFError) as error:
            raise vllm_engine.BrokenDown(
                f"{self.model}: the training that holds the engine ended ({type(error).__name__})"
            ) from None
        if isinstance(answer, str):
            raise vllm_engine.BrokenDown(f"{self.model}: the training's engine cannot answer: {answer}")
        return [(one[0], outcome) for one, outcome in zip(batch, answer, strict=True)]

    def abort(self, numbers: Sequence[int]) -> None:
        """Drop requests that were not sent."""
        self._waiting = [one for one in self._waiting if one[0] not in numbers]

    def close(self) -> None:
        """Let the training go on."""
        self._connection.close()


class LiveBackend(VLLMBackend):
    """The engine of a training process. Tasks that exceed its context are answered from the checkpoint's folder.

    Raises UsageError where no training answers at `base_url`.
    """

    name = "live"
    engine_name = "vllm in the training process"

    def __init__(
        self,
        model: str | Path,
        *,
        base_url: str,
        chat_template: str | Path | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        seed: int = 0,
        thinking: object = None,
        unclosed: str | None = None,
        prefill: str | None = None,
    ) -> None:
        connection, hello = connect(base_url)
        self.hello = hello
        self._options = {
            "chat_template": chat_template, "chat_template_args": chat_template_args, "seed": seed,
            "thinking": thinking, "unclosed": unclosed, "prefill": prefill,
        }  # fmt: skip
        super().__init__(
            model, dtype=hello.dtype, max_length=hello.max_model_len - 1, chat_template=chat_template,
            chat_template_args=chat_template_args, seed=seed, thinking=thinking, unclosed=unclosed, prefill=prefill,
        )  # fmt: skip
        self._engine = RemoteEngine(self.source, connection)
        self.whole: int = context_length(configuration(self.place, None)[0], self.tokenizer)
        """The model's own context, in tokens."""
        self.fallback: Backend | None = None
        self.long: set[str] = set()
        """Tasks that were answered from the folder."""

    def settings(self) -> dict[str, Any]:
        """Return the settings of the training's engine, and the tasks that it could not answer."""
        settings = super().settings() | {
            "live": True, "step": self.hello.step, "arguments": dict(self.hello.arguments),
        }  # fmt: skip
        if self.fallback is not None:
            settings["from_folder"] = {
                "tasks": sorted(self.long), "backend": self.fallback.name, **self.fallback.settings(),
            }  # fmt: skip
        return settings

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Answer tasks that fit in the engine first, then the others from the folder."""
        self.long |= too_long(requests, self.sent(requests), self.max_length, self.whole)
        places: dict[bool, list[int]] = {False: [], True: []}
        for place, request in enumerate(requests):
            places[request.task in self.long].append(place)
        for from_folder, chosen in places.items():
            if not chosen or self.stop_requested:
                continue
            answers = self._from_folder if from_folder else super().run
            for place, sample, response in answers([requests[n] for n in chosen], [seeds[n] for n in chosen]):
                yield chosen[place], sample, response

    def notes(self) -> list[str]:
        """Return lines about the model, and the tasks that the engine could not answer."""
        lines = super().notes()
        if self.long:
            lines.append(
                f"answered from the folder, because they exceed the {self.max_length} tokens of the training's engine "
                f"(trainer.vllm_max_model_length): {', '.join(sorted(self.long))}"
            )
        return lines

    def _from_folder(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        if self.fallback is None:
            from olmes_suite.models.factory import make_backend

            # `hf` takes the memory that is free; vLLM would ask for most of a GPU that the training has filled
            self.fallback = make_backend("hf", self.source, **self._options)
        yield from self.fallback.run(requests, seeds)

    def _started(self) -> vllm_engine.AnyEngine:
        if self._engine is None:
            raise vllm_engine.BrokenDown(f"{self.source}: the training that holds the engine has gone on")
        return self._engine

    def close(self) -> None:
        """Let the training go on, and free the model that was loaded from the folder."""
        super().close()
        if self.fallback is not None:
            self.fallback.close()


def connect(base_url: str) -> tuple[Connection, Hello]:
    """Connect to a training process, which waits for it. Raises UsageError."""
    if not base_url.startswith(SCHEME):
        raise UsageError("--backend live answers in a training's engine; a stage with `eval: {engine: live}` starts it")
    try:
        connection = Client(base_url.removeprefix(SCHEME), family="AF_UNIX")
        hello = connection.recv()
    except (OSError, EOFError) as error:
        raise UsageError(f"--backend live: no training answers at {base_url} ({first_line(error)})") from None
    return connection, hello


def too_long(requests: Sequence[Request], sent: Sequence[Sent | None], live: int, whole: int) -> set[str]:
    """Return the tasks with a request that the model's own context (`whole` tokens) holds and the engine's does not."""
    found = set()
    for request, one in zip(requests, sent, strict=True):
        if one is None or one.prompt_tokens is None:
            continue
        generates = request.kind == "generate"
        more = (request.max_tokens or DEFAULT_MAX_TOKENS) if generates else one.continuation_tokens or 0
        if one.truncated or one.prompt_tokens + more > live:
            found.add(request.task)
    return found if whole > live + 1 else set()  # vLLM needs room for one token more
