"""Supervised fine-tuning: the loss on the assistant's turns, summed over tokens as in the Tülu 3 paper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal

from olmes_suite.errors import UsageError
from train_plugins.config import trainer_fields
from train_plugins.config.plain import UNSET
from train_plugins.data import masks
from train_plugins.data.messages import conversation
from train_plugins.distributed import is_deepspeed
from train_plugins.stages.base import Stage, from_trl
from train_plugins.trainers import spikes
from train_plugins.trainers.lora import keywords

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor, nn
    from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

    from train_plugins.config.recipe import Recipe
    from train_plugins.config.trainer_fields import Table
    from train_plugins.data.conversations import Way
    from train_plugins.data.encoding import Encoded


@dataclass(frozen=True, slots=True)
class SftKeys:
    """Keys under `sft`."""

    loss: Literal["sum", "mean"] = "sum"
    """sum: over the tokens of the whole batch, without a divisor (the paper's fix of equation 2). mean: that sum
    divided by the number of tokens. A learning rate for one does not suit the other."""
    reasoning: masks.Reasoning | None = field(default=None, metadata=UNSET)
    """What becomes of the reasoning of earlier turns. per_turn: one row per assistant turn, each behind the prompt that
    inference gives. keep: one row per conversation, with all reasoning. last: only the last turn is trained. None:
    per_turn for conversations of which the chat template drops a part, otherwise one row."""
    batch_tokens: int | None = field(default=None, metadata=UNSET)
    """Tokens in one optimiser step over all processes, padding of packed sequences included; a multiple of
    `trainer.max_length`. Needs `trainer.packing`; replaces `batch_size`."""
    skip_spikes: spikes.SpikeKeys | None = field(default=None, metadata=UNSET)
    """Skip the steps whose loss or gradient norm is an outlier; None: no step is skipped."""


class Sft(Stage):
    """SFT on TRL's SFTTrainer."""

    name = "sft"
    uses = "SFTConfig"
    own = SftKeys
    reads = "conversation"
    masked = True

    def __init__(self) -> None:
        self._found: tuple[PreTrainedTokenizerBase, Way] | None = None

    def fields(self, recipe: Recipe) -> Table:
        """Return what TRL's arguments do to the stage."""
        return trainer_fields.SFT

    def defaults(self, recipe: Recipe) -> Mapping[str, Any]:
        """Return the paper's schedule, without clipping for the sum, whose gradient grows with the batch's tokens."""
        return {
            "lr_scheduler_type": "linear",
            "warmup_steps": 0.03,
            "max_length": 4096,
            "max_grad_norm": 0.0 if recipe.own.loss == "sum" else 1.0,
        }

    def check(self, recipe: Recipe, arguments: Mapping[str, Any]) -> None:
        """Raise UsageError for packing that has no length to fill, and rows without padding that TRL cannot limit."""
        spikes.check(recipe.own.skip_spikes)
        if recipe.own.skip_spikes and is_deepspeed():
            raise UsageError(
                "sft.skip_spikes: DeepSpeed steps on its own gradients; use FSDP or DDP, or remove the key"
            )
        if arguments.get("packing") and arguments.get("max_length", 0) is None:
            raise UsageError("trainer.packing fills sequences of trainer.max_length tokens; set max_length to a number")
        if (
            arguments.get("padding_free")
            and not arguments.get("packing")
            and arguments.get("max_length", 0) is not None
        ):
            raise UsageError("trainer.padding_free needs packing: true or max_length: null")

    def batch_size(self, recipe: Recipe, arguments: Mapping[str, Any]) -> int | None:
        """Return the rows of a step; with `batch_tokens` the number of packed sequences. Raises UsageError."""
        tokens = recipe.own.batch_tokens
        if tokens is None:
            return recipe.batch_size
        length = arguments.get("max_length")
        if recipe.batch_size is not None or "gradient_accumulation_steps" in recipe.trainer:
            raise UsageError("give one of `batch_size`, sft.batch_tokens and trainer.gradient_accumulation_steps")
        if not arguments.get("packing") or not length:
            raise UsageError(
                "sft.batch_tokens counts sequences packed to trainer.max_length; set trainer.packing: true, or use "
                "`batch_size`, which counts rows"
            )
        if tokens < length or tokens % length:
            raise UsageError(f"sft.batch_tokens {tokens} is not a multiple of trainer.max_length {length}")
        return int(tokens // length)

    def form(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return {"messages"} of a row."""
        return conversation(row)

    def encode(
        self, rows: Dataset, tokenizer: PreTrainedTokenizerBase, limit: int | None, processes: int | None,
        recipe: Recipe | None = None,
    ) -> Encoded:  # fmt: skip
        """Encode rows as {"input_ids", "labels"}; rows without a trained token within the limit are dropped."""
        from train_plugins.data import conversations

        found = self._way(tokenizer, recipe)
        return conversations.encode_conversations(rows, tokenizer, found, limit=limit, processes=processes)

    def encoder(self, recipe: Recipe) -> Callable[..., Encoded]:
        """Return `encode` with what the recipe says about reasoning."""
        return partial(self.encode, recipe=recipe)

    def checker(self, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> Callable[[dict[str, Any]], None]:
        """Return a function that renders a conversation as `encode` will."""
        from train_plugins.data import conversations

        return partial(conversations.check, tokenizer=tokenizer, found=self._way(tokenizer, recipe))

    def _way(self, tokenizer: PreTrainedTokenizerBase, recipe: Recipe | None) -> Way:
        """Decide once how conversations are rendered and masked. Raises UsageError."""
        from train_plugins.data import conversations, turn_end

        if self._found is None or self._found[0] is not tokenizer:
            ends = turn_end.end_ids(tokenizer, recipe.model) if recipe else [tokenizer.eos_token_id]
            named = [str(token) for token in tokenizer.convert_ids_to_tokens(ends)]
            reasoning = recipe.own.reasoning if recipe else None
            self._found = tokenizer, conversations.way(tokenizer, reasoning, named)
        return self._found[1]

    def trainer(
        self, recipe: Recipe, args: TrainingArguments, rows: Dataset, tokenizer: PreTrainedTokenizerBase
    ) -> Trainer:
        """Return an SFTTrainer with the recipe's loss."""
        return _trainer_class()(
            model=recipe.model,
            args=args,
            train_dataset=rows,
            processing_class=tokenizer,
            summed=recipe.own.loss == "sum",
            skip_spikes=recipe.own.skip_spikes,
            **keywords(recipe.lora, self.name),
        )


@lru_cache(maxsize=1)
def _trainer_class() -> type:
    from train_plugins.trainers.callbacks import Watched

    class SumLossTrainer(spikes.SkipsSpikes, Watched, from_trl("SFTTrainer")):  # type: ignore[misc]
        """SFTTrainer whose loss may be the sum over tokens, and which may skip outlying steps."""

        def __init__(self, *args: Any, summed: bool, skip_spikes: spikes.SpikeKeys | None, **kwargs: Any) -> None:
            self.summed, self.spikes, self.window = summed, skip_spikes, spikes.Window()
            super().__init__(*args, **kwargs)

        def compute_loss(
            self, model: nn.Module, inputs: Mapping[str, Tensor], return_outputs: bool = False,
            num_items_in_batch: Tensor | int | None = None,
        ) -> Tensor | tuple[Tensor, Any]:  # fmt: skip
            """Return the sum of the losses of the batch's tokens, and log their mean as `token_loss`.

            TRL's loss is the micro-batch's sum divided by the batch's tokens (`num_items_in_batch`, over all processes
            and accumulated passes); multiplied by that number it is the sum, however the batch is split.
            """
            result = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            if not self.summed or num_items_in_batch is None:
                return result
            loss, outputs = result if return_outputs else (result, None)
            total = loss * num_items_in_batch
            if self.model.training:
                here = (inputs["labels"] != -100).sum().clamp(min=1)
                shared = self.accelerator.num_processes if self.args.average_tokens_across_devices else 1
                self._metrics["train"]["token_loss"].append((total.detach() / (here * shared)).item())
            return (total, outputs) if return_outputs else total

    return SumLossTrainer
