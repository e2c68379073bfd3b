"""vLLM for rollouts: TRL's engine or server, started as it must be here; what goes wrong is one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
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
"""Of the settings with which `olmes eval` starts an engine, those that hold for training too."""
KEYS = {
    "--model-args gpu_memory_utilization=0.4": "trainer.vllm_gpu_memory_utilization",
    "raise gpu_memory_utilization or set tensor_parallel_size (--model-args)":
        "raise trainer.vllm_gpu_memory_utilization or set trainer.vllm_tensor_parallel_size",
    "set tensor_parallel_size or quantization (--model-args)": "set trainer.vllm_tensor_parallel_size",
    "use --backend hf": "use `rollouts: transformers`",
    "lower --max-length": "lower rlvr.max_prompt_length or trainer.max_completion_length",
}  # fmt: skip
"""What `olmes eval` tells its user to change, and what a recipe has in its place."""


@contextmanager
def starting(keys: RlvrKeys, response: int, gpu: bool) -> Iterator[None]:
    """While a trainer is made: its engine starts, or its server is reached, in our way; `response` tokens at most.

    Raises ModelError for an engine that cannot start, UsageError for a server that cannot serve.
    """
    if keys.rollouts == "transformers":
        yield
        return
    for name in SILENT:  # read when vLLM is imported, by TRL's trainers
        os.environ.setdefault(name, ENVIRONMENT[name])
    generation: Any = import_module("trl.generation.vllm_generation").VLLMGeneration
    start = generation._init_vllm

    def colocate(made: Any) -> None:
        if made.max_model_length is None:  # else the model's own context, for which the cache may have no room
            whole = keys.max_prompt_length + response
            made.max_model_length = min(whole, context_length(made.model.config, made.processing_class))
        with ExitStack() as patches:
            if made.tensor_parallel_size == 1:  # engines that share a model must draw alike, as TRL seeds them
                patches.enter_context(_same_chance())
            if not gpu:
                patches.enter_context(_on_cpu(str(made.model.dtype).removeprefix("torch.")))
            _started(made.model.name_or_path, partial(start, made))

    def connect(made: Any) -> None:
        try:
            start(made)
        except Exception as error:  # requests', TRL's own, and plain ones
            raise UsageError(f"the vLLM server {keys.server} cannot be used: {first_line(error)}") from None

    with _replaced(generation, "_init_vllm", colocate if keys.rollouts == "vllm_colocate" else connect):
        yield


def _started(model: str, start: Any) -> None:
    """Start an engine; what vLLM prints meanwhile is in a file that is named only if it fails. Raises ModelError."""
    log = Path(tempfile.mkstemp(prefix="olmes-vllm-", suffix=".log")[1])
    try:
        with printing_to(log):
            start()
    except Exception as error:  # vLLM, torch and the drivers have dozens of types
        told = explain(error, log.read_text(errors="replace"))
        for option, key in KEYS.items():
            told = told.replace(option, key)
        raise ModelError(f"{model}: vLLM cannot start: {told} (log: {log})") from None
    log.unlink(missing_ok=True)


@contextmanager
def _same_chance() -> Iterator[None]:
    """Generators of random numbers are left as they were.

    vLLM seeds those of its process, here the learner's, with the number of the process: the recipe's seed would count
    for nothing, in a value model's random head and in all responses, which are drawn from them too.
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
    """An engine that can take weights a second time, and has the learner's precision.

    On a processor vLLM packs the weights of linear layers for a fast multiplication and drops the originals; kept
    plain, they can be loaded again. Compiling would take longer than the small models that are trained so.
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
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


@contextmanager
def sampling(keys: RlvrKeys) -> Iterator[None]:
    """While responses are sampled. Raises StageRefused for a server that is gone, a prompt that vLLM refuses."""
    try:
        yield
    except OlmesError:
        raise
    except Exception as error:
        told = first_line(error)
        if keys.rollouts == "vllm_server" and (isinstance(error, OSError) or type(error) is Exception):  # TRL's client
            raise StageRefused(
                f"the vLLM server {keys.server} does not answer ({told[:150]}); start it again, then go on with "
                "--resume"
            ) from None
        if keys.rollouts != "transformers" and type(error).__module__.startswith("vllm"):
            raise StageRefused(f"vLLM cannot sample: {told}") from None
        raise
