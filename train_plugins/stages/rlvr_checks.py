"""Checks of a recipe's `rlvr` keys: numbers, value model, adapters, and the engine of the rollouts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.devices import has_gpu
from olmes_suite.errors import UsageError, nearest, one_line
from olmes_suite.models.local.checkpoint import is_hub_id
from train_plugins.distributed import is_sharded
from train_plugins.rl.keys import NO_LENGTH, RlvrKeys
from train_plugins.stages.base import is_classifier

if TYPE_CHECKING:
    from train_plugins.config.recipe import Lora, Recipe


NOT_SAMPLING = {
    "max_new_tokens": "trainer.max_completion_length",
    "max_length": "trainer.max_completion_length",
    "num_return_sequences": "trainer.num_generations",
    "return_dict_in_generate": "nothing: rollouts are token ids",
    "eos_token_id": "the recipe's `eos_token`",
    **{name: f"trainer.{name}" for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")},
    **dict.fromkeys(("do_sample", "num_beams"), "trainer.temperature: rollouts are always sampled"),
}
"""Settings of `generate` that other keys set, with those keys."""


def rollout_size(arguments: Mapping[str, Any], processes: int) -> tuple[int, int]:
    """Return (responses, forward passes per process) of one rollout."""
    at_once = int(arguments.get("per_device_train_batch_size", 8)) * processes
    steps = arguments.get("steps_per_generation") or arguments.get("gradient_accumulation_steps", 1)
    whole = int(arguments.get("generation_batch_size") or at_once * int(steps))
    return whole, max(whole // at_once, 1)


def check_numbers(keys: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for numbers out of range, or a rollout that does not divide into groups."""
    if keys.beta < 0:
        raise UsageError(f"rlvr.beta must be 0 or above, not {keys.beta}")
    if keys.reward <= 0:
        raise UsageError(f"rlvr.reward must be above 0, not {keys.reward}")
    if keys.no_eos_penalty is not None and keys.no_eos_penalty > 0:
        raise UsageError(f"rlvr.no_eos_penalty replaces the reward and must not be above 0, not {keys.no_eos_penalty}")
    for name, value, low, high in (
        ("gamma", keys.gamma, 0, 1), ("lam", keys.lam, 0, 1),
        ("max_prompt_length", keys.max_prompt_length, 1, math.inf),
        ("workers", keys.workers, 1, math.inf), ("timeout", keys.timeout, 1e-3, math.inf),
        ("value_coef", keys.value_coef, 0, math.inf), ("value_clip", keys.value_clip, 0, math.inf),
    ):  # fmt: skip
        if not low <= value <= high:
            raise UsageError(f"rlvr.{name} must lie between {low} and {high}, not {value}")
    from train_plugins.distributed import world_size

    responses, _ = rollout_size(arguments, world_size())
    group = int(arguments["num_generations"])
    if group < 1 or (keys.algorithm != "ppo" and group < 2):
        raise UsageError(f"trainer.num_generations {group}: {keys.algorithm} compares two or more responses per prompt")
    if responses % group:
        raise UsageError(
            f"the {responses} responses of a rollout are not a multiple of trainer.num_generations {group}"
        )


def check_sampling(keys: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for names that the sampler would ignore silently, or a range that is none."""
    if arguments.get("max_completion_length", NO_LENGTH) is None:  # transformers would take 20 tokens in all
        raise UsageError("trainer.max_completion_length must be a number")
    settings = arguments.get("generation_kwargs") or {}
    for name, instead in NOT_SAMPLING.items():
        if isinstance(settings, Mapping) and name in settings:
            raise UsageError(f"trainer.generation_kwargs: {name} is not accepted; use {instead}")
    if keys.rollouts == "transformers" and isinstance(settings, Mapping):
        from transformers import GenerationConfig

        known = [name for name in vars(GenerationConfig()) if not name.startswith("_")]
        for name in settings:
            if name not in known:
                raise UsageError(f"trainer.generation_kwargs: unknown key {name!r}{nearest(str(name), known)}")
    if arguments.get("reward_clip_range") is not None:
        bounds = arguments["reward_clip_range"]
        if len(bounds) != 2 or not bounds[0] < bounds[1]:
            raise UsageError(f"trainer.reward_clip_range must be two numbers, low and high, not {list(bounds)}")


def check_tools(keys: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for tools or environments with an algorithm that has none, or without a limit of turns."""
    if not keys.calls_tools:
        return
    name = "tools" if keys.tools else "environment"
    if keys.algorithm != "grpo":
        raise UsageError(f"rlvr.{name}: {keys.algorithm} has no calls of tools; use `algorithm: grpo`")
    if keys.asynchronous:
        raise UsageError(f"rlvr.{name}: not with rlvr.asynchronous, whose rollouts are sampled in another process")
    turns = arguments.get("max_tool_calling_iterations")
    if turns is not None and turns < 1:
        raise UsageError(f"trainer.max_tool_calling_iterations must be at least 1, not {turns}")


def check_value_model(recipe: Recipe) -> None:
    """Raise UsageError unless PPO has one usable value model: a reward model, or a fresh head."""
    keys = recipe.own
    if keys.value_model is None and not keys.fresh_head:
        raise UsageError(
            "rlvr: ppo needs `value_model`, a reward model (`olmes train rm`), or `fresh_head: true` to start from the "
            "policy with a random head"
        )
    if keys.value_model is None:
        return
    if keys.fresh_head:
        raise UsageError("rlvr: give either value_model or fresh_head")
    folder = Path(keys.value_model).expanduser()
    on_the_hub = "/" in keys.value_model and is_hub_id(keys.value_model)
    if not on_the_hub and not (folder / "config.json").is_file():
        raise UsageError(
            f"rlvr.value_model {keys.value_model}: no such checkpoint; `olmes train rm` makes one, and on the Hub it "
            "is ORGANISATION/NAME"
        )
    if is_classifier(keys.value_model) is False:
        raise UsageError(
            f"rlvr.value_model {keys.value_model}: a language model, which has no reward head; name a reward model, or "
            "set `fresh_head: true` instead"
        )
    _check_fit(folder, Path(recipe.model).expanduser())


def _check_fit(critic: Path, policy: Path) -> None:
    """Raise UsageError unless the value model has one label and the policy's vocabulary; Hub models are not checked."""
    config = _json(critic / "config.json")
    labels = len(config.get("id2label") or ()) or int(config.get("num_labels") or 2)
    if config and labels != 1:
        raise UsageError(f"rlvr.value_model {critic}: has {labels} labels; a reward model has one")
    vocabulary, expected = (
        _json(folder / "tokenizer.json").get("model", {}).get("vocab") for folder in (critic, policy)
    )
    if vocabulary is not None and expected is not None and vocabulary != expected:
        raise UsageError(
            f"rlvr.value_model {critic}: has another vocabulary than {policy}; both must read the same token ids"
        )


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content


def check_adapter(adapter: Lora, keys: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for settings that TRL cannot combine with adapters, or would ignore silently."""
    if keys.asynchronous:
        raise UsageError("rlvr.asynchronous trains all weights; remove lora or asynchronous")
    if adapter.dropout and arguments.get("disable_dropout"):
        raise UsageError(
            f"lora.dropout {adapter.dropout}: rlvr switches all dropout off; remove it, or set "
            "trainer.disable_dropout: false"
        )
    if arguments.get("sync_ref_model"):
        raise UsageError(
            "trainer.sync_ref_model: with lora the reference is the base model, which does not change; remove the key"
        )
    if keys.rollouts == "transformers":
        return
    if adapter.bits:
        raise UsageError(
            f"rlvr.rollouts {keys.rollouts} needs whole weights; with lora.bits use `rollouts: transformers`"
        )
    if is_sharded():
        raise UsageError(
            f"rlvr.rollouts {keys.rollouts} with lora needs each process to hold the whole model: no FSDP, no DeepSpeed"
        )


def _check_asynchronous(keys: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    if keys.algorithm != "grpo" or keys.rollouts != "vllm_server":
        raise UsageError("rlvr.asynchronous is for `algorithm: grpo` with `rollouts: vllm_server`")
    if keys.beta:
        raise UsageError(f"rlvr.asynchronous has no reference model, so no KL term: set `beta: 0`, not {keys.beta}")
    if keys.watch.stop:
        raise UsageError("rlvr.watch.stop: not with rlvr.asynchronous, whose rollouts are not watched; remove it")
    for name, least in (("max_staleness", 0), ("weight_sync_steps", 1)):
        if (value := arguments.get(name)) is not None and value < least:
            raise UsageError(f"trainer.{name} must be {least} or above, not {value}")


def check_engine_keys(keys: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for keys that contradict the rollout engine."""
    if keys.server is not None and keys.rollouts != "vllm_server":
        raise UsageError("rlvr.server is for `rollouts: vllm_server`; remove it or set rollouts")
    if keys.asynchronous:
        _check_asynchronous(keys, arguments)
    if keys.active_sampling:
        _check_active_sampling(keys)
    elif keys.retire_above is not None:
        raise UsageError("rlvr.retire_above needs `active_sampling: true`")


def _check_active_sampling(keys: RlvrKeys) -> None:
    if keys.algorithm != "grpo" or keys.asynchronous:
        raise UsageError(
            "rlvr.active_sampling is for `algorithm: grpo`, not asynchronous: it drops groups of responses"
        )
    if keys.active_sampling_limit < 1:
        raise UsageError(f"rlvr.active_sampling_limit must be at least 1, not {keys.active_sampling_limit}")
    if keys.retire_above is not None and not 0 < keys.retire_above < 1:
        raise UsageError(f"rlvr.retire_above must be above 0 and below 1, not {keys.retire_above}")


def check_rollouts(keys: RlvrKeys) -> None:
    """Raise UsageError for a rollout engine that is not available on this machine."""
    if keys.rollouts == "transformers":
        return
    if keys.asynchronous and not has_gpu():
        raise UsageError("rlvr.asynchronous needs a GPU: the weights go to the server by NCCL")
    if find_spec("vllm") is None:
        raise UsageError(f"rlvr.rollouts {keys.rollouts} needs vLLM: pip install 'trl[vllm]'")
    if keys.rollouts == "vllm_server":
        _check_server(keys.server)


def _check_server(url: str | None) -> None:
    """Raise UsageError unless the server answers and its weights can be updated from this process."""
    import urllib.error
    import urllib.request

    if url is None:
        raise UsageError("rlvr.rollouts vllm_server needs the server's URL: `server: http://HOST:PORT`")
    if not has_gpu():
        raise UsageError("rlvr.rollouts vllm_server sends the weights by NCCL, which needs a GPU in this process")
    try:
        with urllib.request.urlopen(url.rstrip("/") + "/health", timeout=10):
            pass
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the vLLM server {url} does not answer ({one_line(error, 150)}); start it with "
            """`VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}'`"""
        ) from None
