"""Reinforcement learning with verifiable rewards: PPO as in the Tülu 3 paper, GRPO as in Tülu 3.1, RLOO."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import DataError, UsageError
from olmes_suite.models.local.checkpoint import is_hub_id
from train_plugins.distributed import has_gpu, is_sharded
from train_plugins.lora import keywords
from train_plugins.memory import Beside
from train_plugins.plan import Plan
from train_plugins.rl.keys import NO_LENGTH, RlvrKeys
from train_plugins.stage import Stage, from_trl, is_classifier

if TYPE_CHECKING:
    from train_plugins.encoding import Encoded
    from train_plugins.recipe import Lora, Recipe


class Rlvr(Stage):
    """RLVR on TRL's GRPO and RLOO trainers, and PPO on the former."""

    name = "rlvr"
    uses = "GRPOConfig"
    own = RlvrKeys

    def config(self, recipe: Recipe | None = None) -> type:
        """The configuration class of the recipe's algorithm."""
        algorithm = recipe.own.algorithm if recipe else "grpo"
        found: type = from_trl("RLOOConfig" if algorithm == "rloo" else "GRPOConfig")
        if recipe and recipe.own.asynchronous:
            from train_plugins.asynchronous import AsyncGRPOConfig

            return AsyncGRPOConfig
        if algorithm == "ppo":
            from train_plugins.ppo import PpoConfig

            return PpoConfig
        return found

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """The paper's (Table 21) for PPO; the others have Tülu 3.1's schedule and group. Dropout off, one minibatch.

        The keys under `rlvr` have one default for all algorithms: the recipe `tulu31_grpo_8b` has Tülu 3.1's numbers.
        """
        ppo = recipe.own.algorithm == "ppo"
        common = {"epsilon": 0.2, "temperature": 1.0, "max_completion_length": 2048, "max_grad_norm": 1.0}
        if recipe.own.asynchronous:
            return {**common, "lr_scheduler_type": "constant", "num_generations": 16, "num_train_epochs": 1}
        return {
            **common,
            "lr_scheduler_type": "linear" if ppo else "constant",
            "num_generations": 1 if ppo else 16,
            "num_iterations": 4 if ppo else 1,
            "disable_dropout": True,
            "num_train_epochs": 1,
            # TRL multiplies the KL by the ratio of policies unless told not to; Tülu 3.1 does not
            **({"use_bias_correction_kl": False} if recipe.own.algorithm == "grpo" else {}),
        }

    def extra_arguments(self, recipe: Recipe) -> Mapping[str, Any]:
        """β, and where rollouts come from."""
        own = recipe.own
        if own.asynchronous:
            return {"vllm_server_base_url": own.server} if own.server else {}
        return {
            "beta": own.beta,
            **({} if own.algorithm == "rloo" else {"loss_type": "dapo"}),
            **(
                {}
                if own.rollouts == "transformers"
                else {"use_vllm": True, "vllm_mode": own.rollouts.removeprefix("vllm_")}
            ),
            **({"vllm_server_base_url": own.server} if own.server else {}),
        }

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """Keys that make sense together, a value model that is one, rollouts that can be had."""
        _check_numbers(recipe.own, arguments)
        if recipe.own.algorithm == "ppo":
            _check_value_model(recipe)
        elif recipe.own.value_model or recipe.own.fresh_head:
            raise UsageError(f"rlvr: {recipe.own.algorithm} has no value model; remove value_model and fresh_head")
        if recipe.lora is not None:
            _check_adapter(recipe.lora, recipe.own, arguments)
        _check_rollouts(recipe.own)

    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """{"messages", "verifier", "truth", "extra"}."""
        from train_plugins.prompts import prompt_row

        return prompt_row(row)

    def select(self, recipe: Recipe, rows: Any) -> Any:
        """The rows with verifiers by their own names."""
        from train_plugins.prompts import named

        return named(rows, recipe.own.verifiers)

    def limit(self, recipe: Recipe, arguments: Mapping[str, Any]) -> tuple[str, int | None]:
        """Of prompts."""
        return "rlvr.max_prompt_length", recipe.own.max_prompt_length

    def tokens(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int:
        """Prompt and response."""
        return int(recipe.own.max_prompt_length) + int(arguments.get("max_completion_length") or NO_LENGTH)

    def beside(self, recipe: Recipe) -> tuple[Beside, ...]:
        """The reference, unless the policy without its adapter is the reference; PPO's value model."""
        own, found = recipe.own, []
        if own.beta and recipe.lora is None:
            found.append(Beside(recipe.model, trained=False))
        if own.algorithm == "ppo":
            found.append(Beside(own.value_model or recipe.model, trained=True))
        return tuple(found)

    def encode(self, rows: Any, tokenizer: Any, limit: int | None, processes: int | None) -> Encoded:
        """{"prompt", "verifier", "truth", "extra", "row"}; rows with a prompt over the limit are dropped."""
        from train_plugins.prompts import encode_prompts

        return encode_prompts(rows, tokenizer, limit, processes)

    def plan(self, encoded: Encoded, arguments: Mapping[str, Any], processes: int) -> Plan:
        """Steps as TRL counts them: prompts that do not fill a rollout are left over in each epoch."""
        return plan_rollouts(len(encoded.rows), encoded.tokens, arguments, processes)

    def watchers(self, recipe: Recipe, output: Path) -> tuple[Any, ...]:
        """The history of rewards, and the warning of over-optimisation."""
        from train_plugins.watching import Watching

        return (Watching(output, recipe.eval.every if recipe.eval else None),)

    def trainer(self, recipe: Recipe, args: Any, rows: Any, tokenizer: Any) -> Any:
        """The trainer of the recipe's algorithm, its vLLM started or reached."""
        from train_plugins import vllm_rollouts

        common = {"model": recipe.model, "args": args, "train_dataset": rows, "processing_class": tokenizer,
                  "keys": recipe.own, **keywords(recipe.lora, self.name)}  # fmt: skip
        if recipe.own.asynchronous:
            from train_plugins.asynchronous import AsyncGrpo

            return AsyncGrpo(**common)
        with vllm_rollouts.starting(recipe.own, args.max_completion_length or NO_LENGTH, has_gpu()):
            if recipe.own.algorithm != "ppo":
                from train_plugins.rollouts import Grpo, Rloo

                return {"grpo": Grpo, "rloo": Rloo}[recipe.own.algorithm](**common)
            from train_plugins.ppo import Ppo

            return Ppo(**common, value_source=recipe.own.value_model or recipe.model)


def rollout_size(arguments: Mapping[str, Any], processes: int) -> tuple[int, int]:
    """(responses, forward passes of each process that they are split into) of one rollout."""
    at_once = int(arguments.get("per_device_train_batch_size", 8)) * processes
    steps = arguments.get("steps_per_generation") or arguments.get("gradient_accumulation_steps", 1)
    whole = int(arguments.get("generation_batch_size") or at_once * int(steps))
    return whole, max(whole // at_once, 1)


def plan_rollouts(prompts: int, tokens: int, arguments: Mapping[str, Any], processes: int) -> Plan:
    """Count rollouts and steps. Raises DataError for fewer prompts than one rollout: TRL would train 0 steps.

    The tokens are those of all prompts and of responses of the full length.
    """
    responses, passes = rollout_size(arguments, processes)
    group = int(arguments["num_generations"])
    wanted = responses // group
    if prompts < wanted:
        raise DataError(
            f"{prompts} prompts to train on are fewer than the {wanted} of one rollout ({responses} responses, "
            f"{group} to a prompt); add data or lower the batch"
        )
    accumulated = int(arguments.get("gradient_accumulation_steps", 1))
    reuse = passes * int(arguments.get("num_iterations", 1))
    a_epoch = max(math.ceil(prompts // wanted * reuse / accumulated), 1)
    limit = int(arguments.get("max_steps", -1))
    steps = limit if limit > 0 else math.ceil(float(arguments.get("num_train_epochs", 3.0)) * a_epoch)
    rollouts = math.ceil(steps * accumulated / reuse)
    length = tokens / prompts + int(arguments.get("max_completion_length") or NO_LENGTH)
    batch = int(arguments.get("per_device_train_batch_size", 8)) * processes * accumulated
    return Plan(prompts, batch, accumulated, processes, steps, round(rollouts * responses * length))


def _check_numbers(own: RlvrKeys, arguments: Mapping[str, Any]) -> None:
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


def _check_value_model(recipe: Recipe) -> None:
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


def _check_adapter(adapter: Lora, own: RlvrKeys, arguments: Mapping[str, Any]) -> None:
    """What TRL cannot do with adapters, or would leave out without a word."""
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


def _check_rollouts(own: RlvrKeys) -> None:
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
            f"the vLLM server {url} does not answer ({' '.join(str(error).split())[:150]}); start it with "
            """`VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config '{"backend": "nccl"}'`"""
        ) from None
