"""A reward model: a sequence classifier with one label, trained on preference pairs (Bradley–Terry)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from olmes_suite.errors import UsageError
from train_plugins.config import trainer_fields
from train_plugins.data.messages import preference
from train_plugins.stages.base import Stage, from_trl, is_classifier
from train_plugins.trainers.lora import keywords

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from train_plugins.config.recipe import Recipe
    from train_plugins.config.trainer_fields import Table
    from train_plugins.data.encoding import Encoded


@dataclass(frozen=True, slots=True)
class RewardKeys:
    """Keys under `rm`."""

    fresh_head: bool = False
    """Whether the checkpoint is a language model, whose reward head starts from random numbers."""


class RewardModel(Stage):
    """A reward model on TRL's RewardTrainer."""

    name = "rm"
    uses = "RewardConfig"
    own = RewardKeys
    reads = "pair"
    pooled = True
    generates = False

    def fields(self, recipe: Recipe) -> Table:
        """Return what TRL's arguments do to the stage."""
        return trainer_fields.RM

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return the Tülu 3 paper's settings (Table 36)."""
        return {"lr_scheduler_type": "linear", "max_length": 2048, "num_train_epochs": 1}

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """Raise UsageError unless `fresh_head` fits the checkpoint: transformers would silently add a random head."""
        classifies = is_classifier(recipe.model)
        if classifies is False and not recipe.own.fresh_head:
            raise UsageError(
                f"{recipe.model}: a language model, which has no reward head; set `rm: {{fresh_head: true}}` to start "
                "from a random one"
            )
        if classifies and recipe.own.fresh_head:
            raise UsageError(f"{recipe.model}: has a reward head already; remove rm.fresh_head")

    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return {"chosen", "rejected"} of a row."""
        return preference(row)

    def encode(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int | None, processes: int | None
    ) -> Encoded:
        """Encode pairs as {"chosen_ids", "rejected_ids"}; pairs over the limit are dropped, not cut."""
        from train_plugins.data.encoding import encode
        from train_plugins.data.pairs import whole_pair_row

        return encode(rows, whole_pair_row, _fits, tokenizer, limit=limit, processes=processes)

    def checker(self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Callable[[dict[str, Any]], None]:
        """Return a function that renders a pair as `encode` will."""
        from train_plugins.data.pairs import check

        return partial(check, tokenizer=tokenizer)

    def trainer(
        self, recipe: Recipe, args: TrainingArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase
    ) -> Trainer:
        """Return a RewardTrainer."""
        return _trainer_class()(
            model=recipe.model, args=args, train_dataset=rows, processing_class=tokenizer,
            **keywords(recipe.lora, self.name),
        )  # fmt: skip


def _fits(row: dict[str, Any], limit: int | None) -> bool:
    return limit is None or row["full"] <= limit


@lru_cache(maxsize=1)
def _trainer_class() -> type:
    from train_plugins.trainers.callbacks import Watched

    class WatchedRewardTrainer(Watched, from_trl("RewardTrainer")):  # type: ignore[misc]
        """RewardTrainer with `Watched` mixed in."""

    return WatchedRewardTrainer
