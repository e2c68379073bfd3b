"""Reinforcement learning with verifiable rewards: PPO as in the Tülu 3 paper, GRPO as in Tülu 3.1, RLOO."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from olmes_suite.devices import has_gpu
from olmes_suite.errors import DataError, UsageError
from olmes_suite.thinking import choice_of
from olmes_suite.wording import count
from train_plugins.config import trainer_fields
from train_plugins.rl import tool_setup
from train_plugins.rl.keys import NO_LENGTH, RlvrKeys
from train_plugins.stages.base import Stage, from_trl
from train_plugins.stages.memory import Beside
from train_plugins.stages.plan import Plan
from train_plugins.stages.price import Passes
from train_plugins.stages.rlvr_checks import (
    check_adapter,
    check_engine_keys,
    check_numbers,
    check_rollouts,
    check_sampling,
    check_tools,
    check_value_model,
    rollout_size,
)
from train_plugins.trainers.lora import keywords

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from train_plugins.config.recipe import Recipe
    from train_plugins.config.trainer_fields import Table
    from train_plugins.data.encoding import Encoded


MOST_CALLS = 10
"""The largest number of turns with calls of tools in a response, unless the recipe sets another; TRL has no limit."""


class Rlvr(Stage):
    """RLVR on TRL's GRPO and RLOO trainers, with PPO on top of the GRPO trainer."""

    name = "rlvr"
    uses = "GRPOConfig"
    own = RlvrKeys
    reads = "prompt"

    def config(self, recipe: Recipe | None = None) -> type:
        """Return the configuration class of the recipe's algorithm."""
        algorithm = recipe.own.algorithm if recipe else "grpo"
        config: type = from_trl("RLOOConfig" if algorithm == "rloo" else "GRPOConfig")
        if recipe and recipe.own.asynchronous:
            from train_plugins.rl.async_grpo import AsyncGRPOConfig

            return AsyncGRPOConfig
        if algorithm == "ppo":
            from train_plugins.rl.ppo import PpoConfig

            return PpoConfig
        return config

    def fields(self, recipe: Recipe) -> Table:
        """Return what TRL's arguments do to the recipe's algorithm."""
        table = trainer_fields.TABLES["async_grpo" if recipe.own.asynchronous else recipe.own.algorithm]
        return {**table, **trainer_fields.TOOLS} if recipe.own.calls_tools else table

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return the paper's settings for PPO (Table 21), and Tülu 3.1's schedule and group for the others.

        Dropout is off. The keys under `rlvr` have the same defaults for all algorithms; the recipe `tulu31_grpo_8b`
        has Tülu 3.1's numbers.
        """
        ppo = recipe.own.algorithm == "ppo"
        common = {"epsilon": 0.2, "temperature": 1.0, "max_completion_length": 2048, "max_grad_norm": 1.0}
        if recipe.own.calls_tools:
            common["max_tool_calling_iterations"] = MOST_CALLS
        if recipe.own.asynchronous:
            return {**common, "lr_scheduler_type": "constant", "num_generations": 16, "num_train_epochs": 1}
        return {
            **common,
            "lr_scheduler_type": "linear" if ppo else "constant",
            "num_generations": 1 if ppo else 16,
            "num_iterations": 4 if ppo else 1,
            "disable_dropout": True,
            "num_train_epochs": 1,
            # by default TRL multiplies the KL by the ratio of policies; Tülu 3.1 does not
            **({"use_bias_correction_kl": False} if recipe.own.algorithm == "grpo" else {}),
        }

    def extra_arguments(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return β and the settings of the rollouts' engine."""
        keys = recipe.own
        if keys.asynchronous:
            return {"vllm_server_base_url": keys.server} if keys.server else {}
        return {
            "beta": keys.beta,
            **({} if keys.algorithm == "rloo" else {"loss_type": "dapo"}),
            **(
                {}
                if keys.rollouts == "transformers"
                else {"use_vllm": True, "vllm_mode": keys.rollouts.removeprefix("vllm_")}
            ),
            **({"vllm_server_base_url": keys.server} if keys.server else {}),
        }

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """Check that the keys fit together, and that value model and rollout engine are usable. Raises UsageError."""
        from train_plugins.rl.rewards import check_rewards

        check_numbers(recipe.own, arguments)
        check_sampling(recipe.own, arguments)
        if recipe.own.algorithm == "ppo":
            check_value_model(recipe)
        elif recipe.own.value_model or recipe.own.fresh_head:
            raise UsageError(f"rlvr: {recipe.own.algorithm} has no value model; remove value_model and fresh_head")
        if recipe.lora is not None:
            check_adapter(recipe.lora, recipe.own, arguments)
        check_tools(recipe.own, arguments)
        check_engine_keys(recipe.own, arguments)
        check_rewards(recipe.own)
        tool_setup.load(recipe)
        choice_of(recipe.own.thinking, "rlvr.thinking:")

    def check_machine(self, recipe: Recipe) -> None:
        """Check that the engine of the rollouts is there. Raises UsageError."""
        check_rollouts(recipe.own)

    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return {"messages", "verifier", "truth", "extra"} of a row."""
        from train_plugins.data.rlvr_rows import prompt_row

        return prompt_row(row)

    def row_reader(self, recipe: Recipe) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Return a function that also reads the ground truth as the row's verifier does."""
        from train_plugins.data.rlvr_rows import in_environment
        from train_plugins.rl.rewards import row_reader

        names = tool_setup.environment_names(recipe.own)
        own = {"verifier": "environment"} if recipe.own.environment is not None else {}
        read = row_reader(recipe.own)
        return lambda row: in_environment(read(_named(row, own)), names)

    def select(self, recipe: Recipe, rows: Dataset) -> Dataset:
        """Replace the verifiers' names in the data by the registered ones, and check the judge that they need."""
        from train_plugins.data.rlvr_rows import named
        from train_plugins.rl.rewards import Rewards, check_judge_of

        rows = named(rows, recipe.own.verifiers)
        check_judge_of(recipe.own, Rewards.of(recipe.own).verifiers(set(rows["verifier"])))
        return rows

    def limit(self, recipe: Recipe, arguments: Mapping[str, Any]) -> tuple[str, int | None]:
        """Return the length limit of prompts."""
        return "rlvr.max_prompt_length", recipe.own.max_prompt_length

    def tokens(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int:
        """Return the maximum number of tokens of prompt and response together."""
        return int(recipe.own.max_prompt_length) + int(arguments.get("max_completion_length") or NO_LENGTH)

    def longest(self, encoded: Encoded, arguments: Mapping[str, Any]) -> int:
        """Return the tokens of the longest prompt with the longest response."""
        return encoded.longest + int(arguments.get("max_completion_length") or NO_LENGTH)

    def beside(self, recipe: Recipe) -> tuple[Beside, ...]:
        """Return PPO's value model, and the reference unless the policy without its adapter serves as one."""
        keys, models = recipe.own, []
        if keys.beta and recipe.lora is None:
            models.append(Beside(recipe.model, trained=False))
        if keys.algorithm == "ppo":
            models.append(Beside(keys.value_model or recipe.model, trained=True))
        return tuple(models)

    def encode(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int | None, processes: int | None
    ) -> Encoded:
        """Encode rows as {"prompt", "verifier", "truth", "extra", "row"}; prompts over the limit are dropped."""
        from train_plugins.data.rlvr_rows import encode_prompts

        return encode_prompts(rows, tokenizer, limit, processes)

    def prepare_tokenizer(
        self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase, arguments: Mapping[str, Any]
    ) -> None:
        """Make the tokenizer read calls of tools. Raises UsageError for a chat template without them."""
        tool_setup.prepare(recipe, tokenizer, arguments)

    def has_engine(self, recipe: Recipe) -> bool:
        """Return whether rollouts are sampled by vLLM in the training processes."""
        return bool(recipe.own.rollouts == "vllm_colocate" and not recipe.own.asynchronous)

    def encoder(self, recipe: Recipe) -> Callable[..., Encoded]:
        """Return a function that renders prompts with the descriptions of the tools."""
        if not recipe.own.calls_tools:
            return self.encode
        from functools import partial

        from train_plugins.data.rlvr_rows import encode_prompts

        return partial(encode_prompts, tools=tool_setup.schemas(recipe))

    def plan(self, encoded: Encoded, arguments: Mapping[str, Any], processes: int) -> Plan:
        """Count the steps as TRL does: prompts that do not fill a rollout are skipped in each epoch."""
        return plan_rollouts(len(encoded.rows), encoded.tokens, arguments, processes)

    def price(self, recipe: Recipe, arguments: Mapping[str, Any]) -> Passes:
        """Count the passes of a sampled token: sampling, old and reference log-probabilities, learning, values."""
        keys, models = recipe.own, 2 if recipe.own.algorithm == "ppo" else 1
        corrected = keys.rollouts != "transformers" and arguments.get("vllm_importance_sampling_correction", True)
        forward = 1.0 + bool(keys.beta) + bool(corrected) + (models - 1)
        learnt = float(models * int(arguments.get("num_iterations", 1)))
        assumed = "for prompts and responses of full length"
        if keys.active_sampling:
            assumed += "; the groups that active sampling drops are not counted"
        return replace(super().price(recipe, arguments), learnt=learnt, forward=forward, assumed=assumed)

    def watchers(self, recipe: Recipe, output: Path) -> tuple[Any, ...]:
        """Return the callback for the history of rewards and the warning of over-optimisation."""
        from train_plugins.rl.reward_history import Watching

        return (Watching(output, recipe.eval.every if recipe.eval else None),)

    def trainer(
        self, recipe: Recipe, args: TrainingArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase
    ) -> Trainer:
        """Return the trainer of the recipe's algorithm, with its vLLM engine or server ready."""
        from train_plugins.rl import vllm_rollouts

        common = {"model": recipe.model, "args": args, "train_dataset": rows, "processing_class": tokenizer,
                  "keys": recipe.own, **keywords(recipe.lora, self.name)}  # fmt: skip
        if recipe.own.asynchronous:
            from train_plugins.rl.async_grpo import AsyncGrpo

            return AsyncGrpo(**common)
        with vllm_rollouts.starting(recipe.own, args.max_completion_length or NO_LENGTH, has_gpu()):
            if recipe.own.algorithm != "ppo":
                from train_plugins.rl.rollouts import Grpo, Rloo

                if recipe.own.algorithm == "grpo":
                    loaded = tool_setup.load(recipe)
                    return Grpo(**common, tools=loaded.tools, factories=loaded.environments)
                return Rloo(**common)
            from train_plugins.rl.ppo import Ppo

            return Ppo(**common, value_source=recipe.own.value_model or recipe.model)


def _named(row: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with a default verifier where it names none."""
    return dict(row) if row.get("verifier") or row.get("dataset") else {**row, **default}


def plan_rollouts(prompts: int, tokens: int, arguments: Mapping[str, Any], processes: int) -> Plan:
    """Count rollouts and steps. Raises DataError for fewer prompts than one rollout: TRL would train 0 steps.

    The count of tokens assumes responses of the full length.
    """
    responses, passes = rollout_size(arguments, processes)
    group = int(arguments["num_generations"])
    needed = responses // group
    if prompts < needed:
        verb = "is" if prompts == 1 else "are"
        raise DataError(
            f"{count(prompts, 'prompt')} to train on {verb} fewer than the {needed} of one rollout "
            f"({responses} responses, {group} per prompt); add data or lower batch_size"
        )
    accumulated = int(arguments.get("gradient_accumulation_steps", 1))
    reuse = passes * int(arguments.get("num_iterations", 1))
    steps_per_epoch = max(math.ceil(prompts // needed * reuse / accumulated), 1)
    limit = int(arguments.get("max_steps", -1))
    steps = limit if limit > 0 else math.ceil(float(arguments.get("num_train_epochs", 3.0)) * steps_per_epoch)
    rollouts = math.ceil(steps * accumulated / reuse)
    length = tokens / prompts + int(arguments.get("max_completion_length") or NO_LENGTH)
    batch = int(arguments.get("per_device_train_batch_size", 8)) * processes * accumulated
    return Plan(prompts, batch, accumulated, processes, steps, round(rollouts * responses * length))
