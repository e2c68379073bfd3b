"""The engine for vLLM on this machine, which receives all requests of a run at once."""

from __future__ import annotations

import gc
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
import transformers

from olmes_suite.devices import has_gpu
from olmes_suite.errors import ModelError, RequestFailed, UsageError
from olmes_suite.models.base import Backend, Sent
from olmes_suite.models.local.adapter import Adapter, adapter_of, merge_command
from olmes_suite.models.local.checkpoint import is_hub_id
from olmes_suite.models.local.encoding import Encoder
from olmes_suite.models.local.fingerprint import ModelFingerprint, fingerprint_of
from olmes_suite.models.local.forms import explain
from olmes_suite.models.local.generation_config import Own, written
from olmes_suite.models.local.jobs import Ends, choices, generations, open_samples
from olmes_suite.models.local.loading import context_length, load_tokenizer, pick_device, pick_dtype, read_template
from olmes_suite.models.local.rendering import each_sent
from olmes_suite.models.vllm import engine as vllm_engine
from olmes_suite.models.vllm.requests import (
    MOST_TOKENS_ASKED,
    Answered,
    Ask,
    FirstAsk,
    Outcome,
    RankAsk,
    TextAsk,
    likelihood,
    rank_asks,
    text_asks,
)
from olmes_suite.records import OPTIONAL, Request, canonical_json, sha256

AnyAsk = TypeVar("AnyAsk", bound=Ask)
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks for which vLLM has room; a smaller one takes the next."""
WINDOW = 8192
"""The largest number of requests in the engine."""
CPU_SHARE = 0.3
"""The share of memory that vLLM may use on a machine without a GPU, where its default is almost all."""
EXECUTION_ONLY = frozenset(
    {"tensor_parallel_size", "pipeline_parallel_size", "gpu_memory_utilization", "max_num_seqs", "enforce_eager",
     "max_num_batched_tokens", "distributed_executor_backend", "disable_custom_all_reduce", "kv_cache_memory_bytes",
     "enable_prefix_caching", "cpu_offload_gb", "max_parallel_loading_workers", "download_dir"}
)  # fmt: skip
"""Engine arguments outside the fingerprint: they change how much runs at a time and where, not the answers."""
OPTIONS = {
    "model": "--model", "tokenizer": "--model", "revision": "--revision", "dtype": "--dtype",
    "max_model_len": "--max-length", "max_length": "--max-length", "seed": "--seed", "data_parallel_size": "--workers",
    "device": "CUDA_VISIBLE_DEVICES",
}  # fmt: skip
"""Engine arguments that are set by an option or variable instead of `--model-args`."""


class VLLMBackend(Backend):
    """A causal language model run by vLLM, with the token ids that `hf` would use.

    `model` is a folder or a Hub id. By default `dtype` is float32 on a CPU and bfloat16 on a GPU, and `max_length`
    (tokens of prompt and answer together) the model's. `batch_size` is the largest number of requests in a batch.
    `model_args` are further `EngineArgs` of vLLM (tensor_parallel_size, quantization, gpu_memory_utilization, …), and
    `lora_local_path`, the folder of an adapter. The engine starts with the first request. `thinking`, `unclosed` and
    `prefill` are as on the command line.
    Raises UsageError for an invalid option or without vLLM, ModelError where the model cannot be loaded.
    """

    name = "vllm"
    engine_name = "vllm"
    """The engine's name in the fingerprint."""
    fields = frozenset(OPTIONAL)
    together = True
    at_once = 1024

    def __init__(
        self,
        model: str | Path,
        *,
        dtype: str | None = None,
        batch_size: int | None = None,
        max_length: int | None = None,
        chat_template: str | Path | None = None,
        chat_template_args: Mapping[str, Any] | None = None,
        revision: str | None = None,
        device: str | None = None,
        seed: int = 0,
        model_args: Mapping[str, Any] | None = None,
        thinking: object = None,
        unclosed: str | None = None,
        prefill: str | None = None,
    ) -> None:
        super().__init__()
        vllm_engine.check_installed()
        self.source, self.revision, self.seed, self.rows = str(model), revision, seed, batch_size
        self.more = dict(model_args or {})
        self._check_options(device)
        self.tuned = adapter_of(self.source)
        """The adapter that `model` is, where it is one; it is applied to its base model without being merged."""
        self.adapter: str | None = self._adapter()
        self.template = read_template(chat_template)
        self.dtype = pick_dtype(dtype, pick_device(None))
        self.encoder = Encoder(
            load_tokenizer(self.source, revision), self.template, chat_template_args, thinking=thinking,
            unclosed=unclosed, prefill=prefill,
        )  # fmt: skip
        self.tokenizer = self.encoder.tokenizer
        self.chat = self.encoder.chat
        self.unused_arguments = self.encoder.unused_arguments()
        config, generation = configuration(self.place, self.tuned.revision if self.tuned else revision)
        self.max_length: int = max_length or context_length(config, self.tokenizer)
        self.own = Own.of(generation, written(self.source, revision))
        self.ends = Ends.of(self.encoder, generation.eos_token_id, self.own.stops)
        self._engine: vllm_engine.AnyEngine | None = None
        self._numbers = count()
        self._fingerprint: ModelFingerprint | None = None

    def _check_options(self, device: str | None) -> None:
        for name, option in OPTIONS.items():
            if name in self.more:
                raise UsageError(f"--model-args {name}: use {option} instead")
        if device is not None and device != pick_device(None).type:
            raise UsageError(f"--device {device}: vLLM uses every device that it sees; set CUDA_VISIBLE_DEVICES")

    def _adapter(self) -> str | None:
        folder = self.more.pop("lora_local_path", None)
        if self.tuned is not None:
            if folder is not None:
                raise UsageError(f"--model {self.source} is an adapter itself; leave out --model-args lora_local_path")
            folder = self.tuned.folder
            check_lora(self.tuned)
        if folder is None:
            return None
        file = Path(str(folder)).expanduser() / "adapter_config.json"
        try:
            rank = int(json.loads(file.read_text(encoding="utf-8"))["r"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UsageError(
                f"--model-args lora_local_path={folder}: has no adapter_config.json with a rank r; "
                "give an adapter's folder"
            ) from None
        largest = next((size for size in LORA_RANKS if size >= rank), rank)
        self.more = {"enable_lora": True, "max_lora_rank": largest, **self.more}
        return str(file.parent)

    @property
    def place(self) -> str:
        """The folder or the Hub id of the model, or of an adapter's base model."""
        source = self.tuned.base if self.tuned else self.source
        return source if is_hub_id(source) else str(Path(source).expanduser())

    @property
    def arguments(self) -> dict[str, Any]:
        """The engine's `EngineArgs`.

        The engine's context is one token longer than ours: a prompt may fill ours, and vLLM requires room for a token
        after it, which is sampled but never computed.
        """
        arguments: dict[str, Any] = {
            "model": self.place,
            "revision": self.tuned.revision if self.tuned else self.revision,
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_model_len": self.max_length + 1,
            "seed": self.seed % 2**32,
            "generation_config": "vllm",  # the task sets sampling; end-of-text tokens are passed per request
            "enable_prefix_caching": True,
            "max_logprobs": MOST_TOKENS_ASKED,
            "disable_log_stats": True,
        }
        if self.rows is not None:
            arguments["max_num_seqs"] = self.rows
        if not has_gpu():
            arguments["gpu_memory_utilization"] = CPU_SHARE
        return {**arguments, **self.more}

    @property
    def tokenizer_name(self) -> str:
        """The model's path or Hub id, as the tokenizer's part of lm-eval's cache keys."""
        return self.source

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of checkpoint, chat template, dtype, context length, adapter and engine arguments."""
        if self._fingerprint is None:
            settings: dict[str, Any] = {
                "engine": self.engine_name, "dtype": str(self.dtype), "max_length": self.max_length,
            }  # fmt: skip
            if more := {name: value for name, value in self.more.items() if name not in EXECUTION_ONLY}:
                settings["arguments"] = json.loads(canonical_json(more))
            settings |= self.encoder.settings() | self.ends.settings(self.tokenizer)
            if self.adapter and self.tuned is None:
                settings["adapter"] = _files_hash(Path(self.adapter))
            self._fingerprint = fingerprint_of(
                self.source, revision=self.revision, chat_template=self.template, settings=settings
            )
        return self._fingerprint.digest

    def settings(self) -> dict[str, Any]:
        """Return the engine's arguments, devices and versions."""
        template = self.tokenizer.chat_template
        arguments = {name: value for name, value in self.arguments.items() if name not in ("model", "seed")}
        return {
            "device": "cuda" if has_gpu() else "cpu",
            "device_name": torch.cuda.get_device_name() if has_gpu() else "cpu",
            "dtype": str(self.dtype).removeprefix("torch."),
            "max_length": self.max_length,
            "arguments": arguments,
            "adapter": self.adapter,
            "chat_template": sha256(str(template)) if template else None,
            "commit": self._fingerprint.commit if self._fingerprint else None,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "vllm": vllm_engine.installed_version(),
        } | self.encoder.thinking()

    def notes(self) -> list[str]:
        """Return lines about the chat template, the BOS token and the ends of answers."""
        return [
            *self.encoder.notes(self.source),
            *self.ends.notes(self.tokenizer, self.source),
            *self.own.notes(self.source, frozenset({"min_new_tokens"})),
        ]

    def sent(self, requests: Sequence[Request]) -> list[Sent | None]:
        """Return the rendered texts and the numbers of their token ids."""
        return each_sent(self.encoder, requests, self.max_length)

    def run(self, requests: Sequence[Request], seeds: Sequence[Sequence[int | None]]) -> Iterator[Answered]:
        """Send all requests to the engine, and yield answers as they become ready."""
        samples = open_samples(seeds)
        texts = [sample for sample in samples if requests[sample[0]].kind == "generate"]
        ranked = [sample for sample in samples if requests[sample[0]].kind == "loglikelihood"]
        asks: list[TextAsk | RankAsk] = []
        if texts:
            jobs = generations(self.encoder, requests, texts, self.max_length)
            asks += text_asks(jobs, self.ends, self.tokenizer, self.own, self.encoder.thoughts)
        if ranked:
            asks += rank_asks(choices(self.encoder, requests, ranked, self.max_length))
        if asks:
            for ask, outcome in self._outcomes(asks):
                yield from ask.read(outcome)

    def _outcomes(self, asks: Sequence[AnyAsk]) -> Iterator[tuple[AnyAsk, Outcome]]:
        """Yield the outcomes in any order. The error of a refused request is raised after all other outcomes."""
        engine = self._started()
        waiting, running = deque(asks), dict[int, AnyAsk]()
        refused: RequestFailed | None = None
        try:
            while (waiting or running) and not self.stop_requested:
                while waiting and len(running) < WINDOW:
                    number, ask = next(self._numbers), waiting.popleft()
                    try:
                        engine.add(number, ask)
                        running[number] = ask
                    except RequestFailed as error:
                        refused = refused or error
                for number, outcome in engine.step() if running else ():
                    yield running.pop(number), outcome
        except vllm_engine.BrokenDown:
            self._end()  # the next task gets a new engine
            if not self.stop_requested:  # Ctrl-C also reaches the engine's processes
                raise
        finally:
            engine.abort(list(running))
        if refused is not None:
            raise refused

    def _started(self) -> vllm_engine.AnyEngine:
        if self._engine is None:
            self._engine = vllm_engine.start(self.source, self.arguments, self.adapter)
        return self._engine

    def _end(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
        gc.collect()

    def alternatives(self, requests: Sequence[Request], top: int) -> Iterator[tuple[int, list[tuple[str, float]]]]:
        """Yield the likeliest first tokens of each answer. A prompt that is too long is cut on the left."""
        prompts = [
            (prompt or [self.encoder.prefix_id])[-self.max_length :] for prompt in self.encoder.prompts(requests)
        ]
        for ask, outcome in self._outcomes([FirstAsk(i, tuple(prompt), top) for i, prompt in enumerate(prompts)]):
            likely = sorted((outcome.first or {}).items(), key=lambda item: -item[1])[:top]
            yield ask.position, [(self.tokenizer.decode([token]), likelihood([value])) for token, value in likely]

    def close(self) -> None:
        """End the engine and free its memory."""
        self._end()


def check_lora(adapter: Adapter) -> None:
    """Raise ModelError for an adapter that vLLM cannot apply: it knows plain LoRA only."""
    config = adapter.config
    more = [
        name for name in ("modules_to_save", "use_dora", "trainable_token_indices", "rank_pattern") if config.get(name)
    ]
    if config.get("bias") not in (None, "none"):
        more.append("bias")
    if config.get("peft_type") != "LORA":
        more = [f"peft_type {config.get('peft_type')}"]
    if more:
        raise ModelError(
            f"{adapter.folder}: vLLM cannot apply this adapter ({', '.join(more)}); use --backend hf, or merge it: "
            f"{merge_command(adapter.folder)}"
        )


def configuration(place: str, revision: str | None) -> tuple[Any, Any]:
    """Load the configuration of the network and its generation settings. Raises ModelError."""
    source: dict[str, Any] = {"revision": revision or "main", "trust_remote_code": False}
    auto: Any = transformers.AutoConfig
    settings: Any = transformers.GenerationConfig
    try:
        config = auto.from_pretrained(place, **source)
    except Exception as error:  # as in loading.py, dozens of types
        raise explain(place, error, "configuration") from None
    try:
        return config, settings.from_pretrained(place, revision=source["revision"])
    except OSError:
        return config, settings.from_model_config(config)


def _files_hash(folder: Path) -> str:
    """Return the SHA-256 of an adapter's files."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".json", ".safetensors", ".bin"))
    return sha256(canonical_json({file.name: sha256(file.read_bytes()) for file in files}))
