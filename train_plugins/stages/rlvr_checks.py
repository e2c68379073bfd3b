"""Checks of a recipe's `rlvr` keys: numbers, value model, adapters, and where rollouts come from."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.devices import has_gpu
from olmes_suite.errors import UsageError, one_line
from olmes_suite.models.local.checkpoint import is_hub_id
from train_plugins.distributed import is_sharded
from train_plugins.rl.keys import RlvrKeys
from train_plugins.stages.base import is_classifier

if TYPE_CHECKING:
    from train_plugins.config.recipe import Lora, Recipe


def rollout_size(arguments: Mapping[str, Any], processes: int) -> tuple[int, int]:
    """(responses, forward passes of each process that they are split into) of one rollout."""
    at_once = int(arguments.get("per_device_train_batch_size", 8)) * processes
    steps = arguments.get("steps_per_generation") or arguments.get("gradient_accumulation_steps", 1)
    whole = int(arguments.get("generation_batch_size") or at_once * int(steps))
    return whole, max(whole // at_once, 1)


def check_numbers(own: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for numbers out of range, or a rollout that does not divide into groups."""
    if own.beta < 0:
        raise UsageError(f"rlvr.beta must be 0 or above, not {own.beta}")
    if own.reward <= 0:
        raise UsageError(f"rlvr.reward must be above 0, not {own.reward}")
    if own.no_eos_penalty is not None and own.no_eos_penalty > 0:
        raise UsageError(f"rlvr.no_eos_penalty replaces the reward and must not be above 0, not {own.no_eos_penalty}")
    for name, value, low, high in (
        ("gamma", own.gamma, 0, 1), ("lam", own.lam, 0, 1), ("max_prompt_length", own.max_prompt_length, 1, math.inf),
        ("workers", own.workers, 1, math.inf), ("timeout", own.timeout, 1e-3, math.inf),
        ("value_coef", own.value_coef, 0, math.inf), ("value_clip", own.value_clip, 0, math.inf),
    ):  # fmt: skip
        if not low <= value <= high:
            raise UsageError(f"rlvr.{name} must lie between {low} and {high}, not {value}")
    from train_plugins.distributed import world_size

    responses, _ = rollout_size(arguments, world_size())
    group = int(arguments["num_generations"])
    if group < 1 or (own.algorithm != "ppo" and group < 2):
        raise UsageError(f"trainer.num_generations {group}: {own.algorithm} compares two or more responses to a prompt")
    if responses % group:
        raise UsageError(f"the {responses} responses of a rollout are no multiple of trainer.num_generations {group}")


def check_value_model(recipe: Recipe) -> None:
    """Raise UsageError unless PPO has one usable value model: a reward model, or a fresh head."""
    own = recipe.own
    if own.value_model is None and not own.fresh_head:
        raise UsageError(
            "rlvr: ppo needs `value_model`, a reward model (`olmes train rm`), or `fresh_head: true` to start from the "
            "policy with a random head"
        )
    if own.value_model is None:
        return
    if own.fresh_head:
        raise UsageError("rlvr: give either value_model or fresh_head")
    folder = Path(own.value_model).expanduser()
    on_the_hub = "/" in own.value_model and is_hub_id(own.value_model)
    if not on_the_hub and not (folder / "config.json").is_file():
        raise UsageError(
            f"rlvr.value_model {own.value_model}: no such checkpoint; `olmes train rm` makes one, and on the Hub it is "
            "ORGANISATION/NAME"
        )
    if is_classifier(own.value_model) is False:
        raise UsageError(
            f"rlvr.value_model {own.value_model}: a language model, which has no reward head; name a reward model, or "
            "say `fresh_head: true` in its place"
        )
    _check_fit(folder, Path(recipe.model).expanduser())


def _check_fit(critic: Path, policy: Path) -> None:
    """One label, and the policy's vocabulary; a checkpoint on the Hub is not looked at."""
    config = _json(critic / "config.json")
    labels = len(config.get("id2label") or ()) or int(config.get("num_labels") or 2)
    if config and labels != 1:
        raise UsageError(f"rlvr.value_model {critic}: has {labels} labels; a reward model has one")
    theirs, own = (_json(folder / "tokenizer.json").get("model", {}).get("vocab") for folder in (critic, policy))
    if theirs is not None and own is not None and theirs != own:
        raise UsageError(
            f"rlvr.value_model {critic}: has another vocabulary than {policy}; both read the same token ids"
        )


def _json(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def check_adapter(adapter: Lora, own: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """Raise UsageError for settings that TRL cannot combine with adapters, or would ignore silently."""
    if own.asynchronous:
        raise UsageError("rlvr.asynchronous trains all weights; remove lora or asynchronous")
    if adapter.dropout and arguments.get("disable_dropout"):
        raise UsageError(
            f"lora.dropout {adapter.dropout}: rlvr switches all dropout off; remove it, or say "
            "trainer.disable_dropout: false"
        )
    if arguments.get("sync_ref_model"):
        raise UsageError("trainer.sync_ref_model: with lora the reference is the base, which stays as it is")
    if own.rollouts == "transformers":
        return
    if adapter.bits:
        raise UsageError(f"rlvr.rollouts {own.rollouts} takes whole weights; with lora.bits sample by transformers")
    if is_sharded():
        raise UsageError(
            f"rlvr.rollouts {own.rollouts} with lora needs each process to hold the whole model: no FSDP, no DeepSpeed"
        )


def _check_asynchronous(own: RlvrKeys) -> None:
    if own.algorithm != "grpo" or own.rollouts != "vllm_server":
        raise UsageError("rlvr.asynchronous is for `algorithm: grpo` with `rollouts: vllm_server`")
    if own.beta:
        raise UsageError(f"rlvr.asynchronous has no reference model, so no KL term: say `beta: 0`, not {own.beta}")


def check_rollouts(own: RlvrKeys) -> None:
    """Raise UsageError for an engine of rollouts that cannot be had here, or keys that contradict it."""
    if own.server is not None and own.rollouts != "vllm_server":
        raise UsageError("rlvr.server is for `rollouts: vllm_server`; remove it or say so")
    if own.asynchronous:
        _check_asynchronous(own)
    if own.rollouts == "transformers":
        return
    if own.asynchronous and not has_gpu():
        raise UsageError("rlvr.asynchronous needs a GPU: the weights go to the server by NCCL")
    if find_spec("vllm") is None:
        raise UsageError(f"rlvr.rollouts {own.rollouts} needs vLLM: pip install 'trl[vllm]'")
    if own.rollouts == "vllm_server":
        _check_server(own.server)


def _check_server(url: str | None) -> None:
    """It answers, and its weights can be updated from here."""
    import urllib.error
    import urllib.request

    if url is None:
        raise UsageError("rlvr.rollouts vllm_server: say where it is: `server: http://HOST:PORT`")
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
