"""Direct preference optimisation: length-normalised as in the Tülu 3 paper, vanilla, or SimPO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from train_plugins.config import trainer_fields
from train_plugins.data.messages import preference
from train_plugins.stages.base import Stage
from train_plugins.stages.price import Passes
from train_plugins.trainers.lora import keywords
from train_plugins.trainers.losses import DpoKeys

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from train_plugins.config.recipe import Recipe
    from train_plugins.config.trainer_fields import Table
    from train_plugins.data.encoding import Encoded


class Dpo(Stage):
    """DPO on TRL's DPOTrainer."""

    name = "dpo"
    uses = "DPOConfig"
    own = DpoKeys
    reads = "pair"

    def fields(self, recipe: Recipe) -> Table:
        """Return what TRL's arguments do to the stage."""
        return trainer_fields.DPO

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return the Tülu 3 paper's schedule."""
        return {"lr_scheduler_type": "linear", "warmup_steps": 0.1, "max_length": 2048, "num_train_epochs": 1}

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """Check β, and that a margin is set only for SimPO. Raises UsageError."""
        if recipe.own.beta <= 0:
            raise UsageError(f"dpo.beta must be above 0, not {recipe.own.beta}")
        if recipe.own.gamma and recipe.own.loss != "simpo":
            raise UsageError("dpo.gamma is SimPO's margin; remove it or set dpo.loss: simpo")

    def longest_row(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int:
        """Return the tokens of a pair with two answers of full length."""
        return 2 * super().longest_row(recipe, arguments)

    def price(self, recipe: Recipe, arguments: Mapping[str, Any]) -> Passes:
        """Add the reference's pass, which SimPO does not have."""
        return replace(super().price(recipe, arguments), forward=0.0 if recipe.own.loss == "simpo" else 1.0)

    def extra_arguments(self, recipe: Recipe) -> Mapping[str, Any]:
        """Keep TRL from loading a reference model; see `reference_logprobs`."""
        return {"precompute_ref_log_probs": True}

    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return {"chosen", "rejected"} of a row."""
        return preference(row)

    def encode(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int | None, processes: int | None
    ) -> Encoded:
        """Encode pairs as {"prompt_ids", "chosen_ids", "rejected_ids"}, without those whose prompt fills the limit."""
        from train_plugins.data.encoding import encode
        from train_plugins.data.pairs import pair_row

        return encode(rows, pair_row, _teaches, tokenizer, limit=limit, processes=processes)

    def checker(self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Callable[[dict[str, Any]], None]:
        """Return a function that renders a pair as `encode` will."""
        from train_plugins.data.pairs import check

        return partial(check, tokenizer=tokenizer)

    def trainer(
        self, recipe: Recipe, args: TrainingArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase
    ) -> Trainer:
        """Return a DPOTrainer with the recipe's loss."""
        from train_plugins.trainers.preference import PreferenceTrainer

        return PreferenceTrainer(
            model=recipe.model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            keys=recipe.own,
            **keywords(recipe.lora, self.name),
        )


def _teaches(row: dict[str, Any], limit: int | None) -> bool:
    return bool(row["chosen_ids"] and row["rejected_ids"])
