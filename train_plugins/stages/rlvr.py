"""Reinforcement learning with verifiable rewards: PPO as in the Tülu 3 paper, GRPO as in Tülu 3.1, RLOO."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.devices import has_gpu
from olmes_suite.errors import DataError, UsageError
from train_plugins.rl.keys import NO_LENGTH, RlvrKeys
from train_plugins.stages.base import Stage, from_trl
from train_plugins.stages.memory import Beside
from train_plugins.stages.plan import Plan
from train_plugins.stages.rlvr_checks import (
    check_adapter,
    check_numbers,
    check_rollouts,
    check_value_model,
    rollout_size,
)
from train_plugins.trainers.lora import keywords

if TYPE_CHECKING:
    from train_plugins.config.recipe import Recipe
    from train_plugins.data.encoding import Encoded


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
            from train_plugins.rl.async_grpo import AsyncGRPOConfig

            return AsyncGRPOConfig
        if algorithm == "ppo":
            from train_plugins.rl.ppo import PpoConfig

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
        check_numbers(recipe.own, arguments)
        if recipe.own.algorithm == "ppo":
            check_value_model(recipe)
        elif recipe.own.value_model or recipe.own.fresh_head:
            raise UsageError(f"rlvr: {recipe.own.algorithm} has no value model; remove value_model and fresh_head")
        if recipe.lora is not None:
            check_adapter(recipe.lora, recipe.own, arguments)
        check_rollouts(recipe.own)

    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """{"messages", "verifier", "truth", "extra"}."""
        from train_plugins.data.rlvr_rows import prompt_row

        return prompt_row(row)

    def select(self, recipe: Recipe, rows: Any) -> Any:
        """The rows with verifiers by their own names."""
        from train_plugins.data.rlvr_rows import named

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
        from train_plugins.data.rlvr_rows import encode_prompts

        return encode_prompts(rows, tokenizer, limit, processes)

    def plan(self, encoded: Encoded, arguments: Mapping[str, Any], processes: int) -> Plan:
        """Steps as TRL counts them: prompts that do not fill a rollout are left over in each epoch."""
        return plan_rollouts(len(encoded.rows), encoded.tokens, arguments, processes)

    def watchers(self, recipe: Recipe, output: Path) -> tuple[Any, ...]:
        """The history of rewards, and the warning of over-optimisation."""
        from train_plugins.rl.reward_history import Watching

        return (Watching(output, recipe.eval.every if recipe.eval else None),)

    def trainer(self, recipe: Recipe, args: Any, rows: Any, tokenizer: Any) -> Any:
        """The trainer of the recipe's algorithm, its vLLM started or reached."""
        from train_plugins.rl import vllm_rollouts

        common = {"model": recipe.model, "args": args, "train_dataset": rows, "processing_class": tokenizer,
                  "keys": recipe.own, **keywords(recipe.lora, self.name)}  # fmt: skip
        if recipe.own.asynchronous:
            from train_plugins.rl.async_grpo import AsyncGrpo

            return AsyncGrpo(**common)
        with vllm_rollouts.starting(recipe.own, args.max_completion_length or NO_LENGTH, has_gpu()):
            if recipe.own.algorithm != "ppo":
                from train_plugins.rl.rollouts import Grpo, Rloo

                return {"grpo": Grpo, "rloo": Rloo}[recipe.own.algorithm](**common)
            from train_plugins.rl.ppo import Ppo

            return Ppo(**common, value_source=recipe.own.value_model or recipe.model)


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
