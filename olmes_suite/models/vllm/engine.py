"""The vLLM engine itself: started once, fed with requests, asked for what is done. vLLM is imported here only."""

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
from typing import Any

from olmes_suite.errors import ModelError, RequestFailed, UsageError, first_line
from olmes_suite.models.model_args import check_names
from olmes_suite.models.vllm.plugin import OWNER
from olmes_suite.models.vllm.requests import Ask, Outcome
from olmes_suite.plugins import require

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # standard output is for results
    "VLLM_NO_USAGE_STATS": "1",  # nothing but the documents' own requests is sent anywhere
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # a process with threads must not be forked
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1",  # see `arguments` in vllm.py: one token more, which is never computed
}
RAISED = re.compile(r"(?:^|\s)(?:[\w.]+\.)?([A-Z]\w*(?:Error|Exception)): (.+)")
"""The last line of a traceback, in a log line or by itself."""
UNTOLD = "Engine core initialization failed"
"""What the parent process says of an error in the engine's own."""
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
"""A part of what was raised, and what to tell the user."""


class BrokenDown(RequestFailed):
    """The engine ended: its requests are lost, and it takes no more."""


def check_installed() -> None:
    """Raise UsageError, with the extra to install, where vLLM is missing."""
    require("vllm", "vllm", "--backend vllm needs vLLM")


def installed_version() -> str:
    """vLLM's version."""
    return version("vllm")


class Engine:
    """One running engine. Its requests have numbers; what is done comes in any order."""

    def __init__(self, model: str, engine: Any, adapter: Any = None) -> None:
        """`engine`: vLLM's `LLMEngine`; `adapter`: its `LoRARequest`, for all requests."""
        self.model, self.adapter = model, adapter
        self._engine: Any = engine
        api: Any = import_module("vllm")
        self._parameters, self._final = api.SamplingParams, import_module("vllm.sampling_params").RequestOutputKind
        self._input: Any = import_module("vllm.inputs.engine").tokens_input

    def add(self, number: int, ask: Ask) -> None:
        """Take up a request. Raises RequestFailed for one that the engine refuses."""
        settings = self._parameters(output_kind=self._final.FINAL_ONLY, **ask.settings())
        try:
            self._engine.add_request(str(number), self._input(list(ask.prompt)), settings, lora_request=self.adapter)
        except ValueError as error:
            raise RequestFailed(f"{self.model}: vLLM refuses a request: {first_line(error)}") from None

    def step(self) -> list[tuple[int, Outcome]]:
        """Go on a little: the requests that are done by now. Raises BrokenDown where the engine ended."""
        try:
            done = self._engine.step()
        except Exception as error:  # out of memory, a killed worker: the engine answers nothing any more
            raise BrokenDown(
                f"{self.model}: vLLM's engine broke down: {explain(error)}; repeat the command to go on"
            ) from None
        return [(int(output.request_id), _outcome(output)) for output in done if output.finished]

    def abort(self, numbers: Sequence[int]) -> None:
        """Drop requests that are not done."""
        if numbers:
            with contextlib.suppress(Exception):  # a broken engine has none
                self._engine.abort_request([str(number) for number in numbers])

    def close(self) -> None:
        """End the engine's processes and free its memory."""
        engine, self._engine = self._engine, None
        with contextlib.suppress(Exception):  # what is broken already needs no end
            engine.engine_core.shutdown()


def start(model: str, arguments: Mapping[str, Any], adapter: str | None = None) -> Engine:
    """Start an engine with these `EngineArgs`; `adapter` is a folder with a LoRA adapter.

    What vLLM prints meanwhile goes to a file that is named only if the start fails. Raises UsageError for an argument
    that vLLM does not have, ModelError where it cannot start.
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
    # else vLLM takes 128 requests at a time: its larger defaults are for its own `LLM` class
    usage: Any = import_module("vllm.usage.usage_lib").UsageContext
    engine: Any = import_module("vllm.v1.engine.llm_engine").LLMEngine
    return engine.from_engine_args(args(**arguments), usage_context=usage.LLM_CLASS)


def explain(error: BaseException, log: str = "") -> str:
    """One line on why the engine ended: what was raised in this process, or in the engine's own by its log."""
    text = first_line(_cause(error))
    if UNTOLD in text or not str(error):
        raised = [found[2] for line in log.splitlines() if (found := RAISED.search(line)) and UNTOLD not in found[2]]
        text = first_line(RuntimeError(raised[-1])) if raised else text
    for sign, told in REASONS:
        if sign in text:
            return told.format(text.rstrip("."))
    return text


def _cause(error: BaseException) -> BaseException:
    """What a check of vLLM's configuration raised, where pydantic has wrapped it; else the error itself."""
    from pydantic import ValidationError  # vLLM brings it

    if not isinstance(error, ValidationError):
        return error
    first = error.errors()[0]
    raised = first.get("ctx", {}).get("error")
    return raised if isinstance(raised, BaseException) else ValueError(first["msg"])


def _outcome(output: Any) -> Outcome:
    answer = output.outputs[0]
    first = answer.logprobs[0] if answer.logprobs else None
    return Outcome(
        tokens=answer.token_ids,
        reason=answer.finish_reason,
        prompt=output.prompt_logprobs or (),
        first=None if first is None else {token: told.logprob for token, told in first.items()},
    )


@contextlib.contextmanager
def printing_to(file: Path) -> Iterator[None]:
    """What this process and those that it starts print goes to a file; those keep to it."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [(number, os.dup(number)) for number in (1, 2)]
    with file.open("ab") as stream:
        for number, _ in kept:
            os.dup2(stream.fileno(), number)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in kept:
            os.dup2(copy, number)
            os.close(copy)
