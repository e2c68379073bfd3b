"""The running vLLM engine: its start, requests, outcomes and errors. Only this module imports vLLM."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from olmes_suite.errors import ModelError, RequestFailed, UsageError, first_line
from olmes_suite.extras import require_module
from olmes_suite.models.model_args import check_names
from olmes_suite.models.vllm.plugin import OWNER
from olmes_suite.models.vllm.requests import Ask, Outcome

if TYPE_CHECKING:
    from vllm import RequestOutput
    from vllm.lora.request import LoRARequest
    from vllm.v1.engine.llm_engine import LLMEngine

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is for results
    "VLLM_NO_USAGE_STATS": "1",  # only the documents' requests are sent anywhere
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a process with threads must not be forked
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # see `arguments` in backend.py: one token more, which is never computed
}
RAISED = re.compile(r"(?:^|\s)(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception)): (.+)")
"""The last line of a traceback, alone or in a log line."""
UNEXPLAINED = "Engine core initialization failed"
"""The parent process's message for an error in the engine's process."""
REASONS = (
    (
        "is less than desired",  # on a GPU, and on a machine without
        "another program holds the device's memory: {}; wait until it is done, or start with less "
        "(--model-args gpu_memory_utilization=0.4)",
    ),
    ("max seq len", "the context does not fit: {}; lower --max-length"),
    (
        "No available memory for the cache",
        "the weights leave no memory for the cache; raise gpu_memory_utilization or set tensor_parallel_size "
        "(--model-args), or lower --max-length",
    ),
    ("memory", "does not fit in memory: {}; set tensor_parallel_size or quantization (--model-args)"),
    ("architectures", "vLLM cannot run this architecture: {}; use --backend hf"),
)
"""Parts of vLLM's errors and the messages for the user."""


class BrokenDown(RequestFailed):
    """The engine ended. Its requests are lost, and it accepts no more."""


def check_installed() -> None:
    """Raise UsageError with the extra to install where vLLM is missing."""
    require_module("vllm", "--backend vllm needs vLLM")


def installed_version() -> str:
    """Return vLLM's version."""
    return version("vllm")


class AnyEngine(Protocol):
    """A running engine, in this process or in another one."""

    def add(self, number: int, ask: Ask) -> None:
        """Add a request."""

    def step(self) -> list[tuple[int, Outcome]]:
        """Return finished requests. Raises BrokenDown."""

    def abort(self, numbers: Sequence[int]) -> None:
        """Drop unfinished requests."""

    def close(self) -> None:
        """Let the engine go."""


class Engine:
    """A running engine with numbered requests, whose outcomes come in any order."""

    def __init__(self, model: str, engine: LLMEngine, adapter: LoRARequest | None = None) -> None:
        """Wrap vLLM's engine. `adapter` applies to all requests."""
        self.model, self.adapter = model, adapter
        self._engine: Any = engine
        api: Any = import_module("vllm")
        self._parameters, self._final = api.SamplingParams, import_module("vllm.sampling_params").RequestOutputKind
        self._input: Any = import_module("vllm.inputs.engine").tokens_input

    def add(self, number: int, ask: Ask) -> None:
        """Add a request. Raises RequestFailed where the engine refuses it."""
        settings = self._parameters(output_kind=self._final.FINAL_ONLY, **ask.settings())
        try:
            self._engine.add_request(str(number), self._input(list(ask.prompt)), settings, lora_request=self.adapter)
        except ValueError as error:
            raise RequestFailed(f"{self.model}: vLLM refuses a request: {first_line(error)}") from None

    def step(self) -> list[tuple[int, Outcome]]:
        """Compute one step and return the finished requests. Raises BrokenDown where the engine ended."""
        try:
            outputs = self._engine.step()
        except Exception as error:  # out of memory or a killed worker: the engine cannot continue
            raise BrokenDown(
                f"{self.model}: vLLM's engine broke down: {explain(error)}; repeat the command to continue"
            ) from None
        return [(int(output.request_id), outcome(output)) for output in outputs if output.finished]

    def abort(self, numbers: Sequence[int]) -> None:
        """Drop unfinished requests."""
        if numbers:
            with contextlib.suppress(Exception):  # a broken engine has no requests
                self._engine.abort_request([str(number) for number in numbers])

    def close(self) -> None:
        """End the engine's processes and free its memory."""
        engine, self._engine = self._engine, None
        with contextlib.suppress(Exception):  # a broken engine may have ended already
            engine.engine_core.shutdown()


def start(model: str, arguments: Mapping[str, Any], adapter: str | None = None) -> Engine:
    """Start an engine with these `EngineArgs`. `adapter` is a folder with a LoRA adapter.

    vLLM's output goes to a file, which the error names where the start fails. Raises UsageError for an argument that
    vLLM does not have, ModelError where vLLM cannot start.
    """
    check_installed()
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[OWNER] = str(os.getpid())
    if multiprocessing.current_process().daemon:  # such a process may not have children
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    log = Path(tempfile.mkstemp(prefix="olmes-vllm-", suffix=".log")[1])
    try:
        with printing_to(log):
            engine = _start(arguments)
            lora = import_module("vllm.lora.request").LoRARequest("adapter", 1, adapter) if adapter else None
            started = Engine(model, engine, lora)
    except UsageError:
        raise
    except Exception as error:  # vLLM, torch and the drivers have dozens of types
        raise ModelError(
            f"{model}: vLLM cannot start: {explain(error, log.read_text(errors='replace'))} (log: {log})"
        ) from None
    log.unlink(missing_ok=True)
    return started


def _start(arguments: Mapping[str, Any]) -> Any:
    args: Any = import_module("vllm.engine.arg_utils").EngineArgs
    check_names(arguments, [field.name for field in fields(args)], "vLLM")
    # without it vLLM runs 128 requests at a time: its larger defaults are for its `LLM` class
    usage: Any = import_module("vllm.usage.usage_lib").UsageContext
    engine: Any = import_module("vllm.v1.engine.llm_engine").LLMEngine
    return engine.from_engine_args(args(**arguments), usage_context=usage.LLM_CLASS)


def explain(error: BaseException, log: str = "") -> str:
    """Return one line on why the engine ended, from the exception or from the log of the engine's process."""
    text = first_line(_cause(error))
    if UNEXPLAINED in text or not str(error):
        matches = (RAISED.search(line) for line in log.splitlines())
        raised = [match[2] for match in matches if match and UNEXPLAINED not in match[2]]
        text = first_line(RuntimeError(raised[-1])) if raised else text
    for sign, message in REASONS:
        if sign in text:
            return message.format(text.rstrip("."))
    return text


def _cause(error: BaseException) -> BaseException:
    """Return the exception of a check of vLLM's configuration that pydantic wraps, else the error itself."""
    from pydantic import ValidationError  # vLLM depends on it

    if not isinstance(error, ValidationError):
        return error
    first = error.errors()[0]
    raised = first.get("ctx", {}).get("error")
    return raised if isinstance(raised, BaseException) else ValueError(first["msg"])


def outcome(output: RequestOutput) -> Outcome:
    """Return the result of a finished request."""
    answer = output.outputs[0]
    first = answer.logprobs[0] if answer.logprobs else None
    return Outcome(
        tokens=answer.token_ids,
        reason=answer.finish_reason,
        prompt=output.prompt_logprobs or (),
        first=None if first is None else {token: entry.logprob for token, entry in first.items()},
    )


@contextlib.contextmanager
def printing_to(file: Path) -> Iterator[None]:
    """Redirect the output of this process to a file, and that of processes started meanwhile until they end."""
    sys.stdout.flush()
    sys.stderr.flush()
    copies = [(number, os.dup(number)) for number in (1, 2)]
    with file.open("ab") as stream:
        for number, _ in copies:
            os.dup2(stream.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in copies:
            os.dup2(copy, number)
            os.close(copy)
