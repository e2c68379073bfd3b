"""vLLM for rollouts: start TRL's engine or reach its server, and report errors in one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import ModelError, OlmesError, StageRefused, UsageError, first_line
from olmes_suite.models.local.loading import context_length
from olmes_suite.models.vllm.engine import ENVIRONMENT, explain, printing_to

if TYPE_CHECKING:
    from train_plugins.rl.keys import RlvrKeys

SILENT = ("VLLM_LOGGING_LEVEL", "VLLM_LOGGING_STREAM", "VLLM_NO_USAGE_STATS")
"""The settings of `olmes eval`'s engines that also apply to training."""
KEYS = {
    "--model-args gpu_memory_utilization=0.4": "trainer.vllm_gpu_memory_utilization",
    "raise gpu_memory_utilization or set tensor_parallel_size (--model-args)":
        "raise trainer.vllm_gpu_memory_utilization or set trainer.vllm_tensor_parallel_size",
    "set tensor_parallel_size or quantization (--model-args)": "set trainer.vllm_tensor_parallel_size",
    "use --backend hf": "use `rollouts: transformers`",
    "lower --max-length": "lower rlvr.max_prompt_length or trainer.max_completion_length",
}  # fmt: skip
"""Advice of `olmes eval` for an engine that cannot start, and the recipe keys that replace it."""


@contextmanager
def starting(keys: RlvrKeys, response: int, gpu: bool) -> Iterator[None]:
    """Adapt how TRL starts its engine, or reaches its server, while a trainer is created.

    `response` is the maximum length of a response in tokens. Raises ModelError for an engine that cannot start,
    UsageError for a server that cannot be used.
    """
    if keys.rollouts == "transformers":
        yield
        return
    for name in SILENT:  # read when vLLM is imported, by TRL's trainers
        os.environ.setdefault(name, ENVIRONMENT[name])
    generation: Any = import_module("trl.generation.vllm_generation").VLLMGeneration
    start = generation._init_vllm

    def colocate(engine: Any) -> None:
        if engine.max_model_length is None:  # the default, the model's context, may not fit into the cache
            whole = keys.max_prompt_length + response
            engine.max_model_length = min(whole, context_length(engine.model.config, engine.processing_class))
        with ExitStack() as patches:
            if engine.tensor_parallel_size == 1:  # engines that share a model must draw alike and keep TRL's seed
                patches.enter_context(_same_random_state())
            if not gpu:
                patches.enter_context(_on_cpu(str(engine.model.dtype).removeprefix("torch.")))
            _start(engine.model.name_or_path, partial(start, engine))

    def connect(engine: Any) -> None:
        try:
            start(engine)
        except Exception as error:  # errors of requests, of TRL, and plain ones
            raise UsageError(f"the vLLM server {keys.server} cannot be used: {first_line(error)}") from None

    with _replaced(generation, "_init_vllm", colocate if keys.rollouts == "vllm_colocate" else connect):
        yield


def _start(model: str, start: Callable[[], None]) -> None:
    """Start an engine with vLLM's output in a log file, which is named only on failure. Raises ModelError."""
    log = Path(tempfile.mkstemp(prefix="olmes-vllm-", suffix=".log")[1])
    try:
        with printing_to(log):
            start()
    except Exception as error:  # vLLM, torch and the drivers raise dozens of types
        advice = explain(error, log.read_text(errors="replace"))
        for option, key in KEYS.items():
            advice = advice.replace(option, key)
        raise ModelError(f"{model}: vLLM cannot start: {advice} (log: {log})") from None
    log.unlink(missing_ok=True)


@contextmanager
def _same_random_state() -> Iterator[None]:
    """Restore the states of the random generators after the block.

    vLLM seeds the generators of its process, here the learner's, with the process number. The recipe's seed would have
    no effect on a value model's random head or on the responses, which are drawn from the same generators.
    """
    import random

    import numpy
    import torch

    plain, array = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        yield
    random.setstate(plain)
    numpy.random.set_state(array)


@contextmanager
def _on_cpu(dtype: str) -> Iterator[None]:
    """Make engines on a CPU able to reload weights, with the learner's precision `dtype`.

    On a CPU vLLM packs the weights of linear layers for fast multiplication and drops the originals; unpacked weights
    can be loaded again. Compilation is off: it would take longer than the training of models small enough for a CPU.
    """
    import torch

    def keep_plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    rollouts: Any = import_module("trl.generation.vllm_generation")
    engine = partial(rollouts.LLM, enforce_eager=True, dtype=dtype)
    layers = import_module("vllm.model_executor.layers.utils")
    with _replaced(layers, "dispatch_cpu_unquantized_gemm", keep_plain), _replaced(rollouts, "LLM", engine):
        yield


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


@contextmanager
def sampling(keys: RlvrKeys) -> Iterator[None]:
    """Convert vLLM's errors while responses are sampled: StageRefused for a lost server or a refused prompt."""
    try:
        yield
    except OlmesError:
        raise
    except Exception as error:
        message = first_line(error)
        if keys.rollouts == "vllm_server" and (isinstance(error, OSError) or type(error) is Exception):  # TRL's client
            raise StageRefused(
                f"the vLLM server {keys.server} does not answer ({message[:150]}); start it again, then continue "
                "with --resume"
            ) from None
        if keys.rollouts != "transformers" and type(error).__module__.startswith("vllm"):
            raise StageRefused(f"vLLM cannot sample: {message}") from None
        raise
