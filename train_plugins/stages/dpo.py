"""Direct preference optimisation: length-normalised as in the Tülu 3 paper, vanilla, or SimPO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from train_plugins.data.messages import preference
from train_plugins.stages.base import Stage
from train_plugins.trainers.lora import keywords
from train_plugins.trainers.losses import DpoKeys

if TYPE_CHECKING:
    from train_plugins.config.recipe import Recipe
    from train_plugins.data.encoding import Encoded


class Dpo(Stage):
    """DPO on TRL's DPOTrainer."""

    name = "dpo"
    uses = "DPOConfig"
    own = DpoKeys

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """The paper's schedule."""
        return {"lr_scheduler_type": "linear", "warmup_steps": 0.1, "max_length": 2048, "num_train_epochs": 1}

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """Numbers that make sense together."""
        if recipe.own.beta <= 0:
            raise UsageError(f"dpo.beta must be above 0, not {recipe.own.beta}")
        if recipe.own.gamma and recipe.own.loss != "simpo":
            raise UsageError("dpo.gamma is SimPO's margin; remove it or say dpo.loss: simpo")

    def extra_arguments(self, recipe: Recipe) -> Mapping[str, Any]:
        """TRL must not load a reference model: see `reference_logprobs`."""
        return {"precompute_ref_log_probs": True}

    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """{"chosen", "rejected"}."""
        return preference(row)

    def encode(self, rows: Any, tokenizer: Any, limit: int | None, processes: int | None) -> Encoded:
        """{"prompt_ids", "chosen_ids", "rejected_ids"}; pairs whose prompt alone fills the limit are dropped."""
        from train_plugins.data.encoding import encode, pair_row

        return encode(rows, pair_row, _teaches, tokenizer, limit=limit, processes=processes)

    def trainer(self, recipe: Recipe, args: Any, rows: Any, tokenizer: Any) -> Any:
        """A DPOTrainer with the recipe's loss."""
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
