"""TRL's DPOTrainer with other losses, on rows that are already encoded. Importing this module needs TRL."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import load_from_disk
from trl import DPOTrainer

from train_plugins.trainers import lora, losses, reference_logprobs
from train_plugins.trainers.callbacks import Watched
from train_plugins.trainers.losses import DpoKeys

if TYPE_CHECKING:
    from datasets import Dataset

_TENSORS = ("input_ids", "attention_mask", "completion_mask")


def halves(inputs: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Split a batch into its chosen and rejected half, each without columns of padding."""
    size = inputs["input_ids"].shape[0] // 2
    parts = []
    for rows in (slice(None, size), slice(size, None)):
        width = int(inputs["attention_mask"][rows].sum(dim=1).max())
        parts.append({name: inputs[name][rows, :width] for name in _TENSORS})
    return parts[0], parts[1]


class PreferenceTrainer(Watched, DPOTrainer):
    """DPOTrainer for encoded rows with the losses of `losses`; the logged rewards are those that the loss compares."""

    def __init__(self, *args: Any, keys: DpoKeys, **kwargs: Any) -> None:
        self.keys = keys
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        """Return the data set unchanged: its rows are already encoded."""
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        """Add the reference's log-probabilities, from the cache or computed by TRL; SimPO needs none."""
        if getattr(self.model, "is_quantized", False):
            lora.settle(self.model, self.args.bf16 or self.args.fp16)
        if self.keys.loss == "simpo":
            return dataset
        first, place = self.accelerator.is_main_process, ""
        cached: list[dict[str, list[float]] | None] = [None]
        if first:
            how = f"{self._precompute_model_hash} bf16={self.args.bf16} fp16={self.args.fp16}"
            place = reference_logprobs.key(dataset, how)
            cached = [reference_logprobs.read(place, len(dataset))]
        broadcast_object_list(cached)  # processes on other machines have other caches: the first one's decides
        columns = cached[0]
        if columns is None:
            columns = self._reference(dataset, name, batch_size)
            if first:
                reference_logprobs.write(place, columns)
        elif first:
            print("reference log-probabilities: from the cache", file=sys.stderr)
        for column in reference_logprobs.COLUMNS:
            dataset = dataset.add_column(column, columns[column])
        return dataset

    def _reference(self, dataset: Dataset, name: str, batch_size: int) -> dict[str, list[float]]:
        """Compute the log-probabilities by TRL, whose processes exchange them in a file beside the data on disk."""
        folder = Path(self.args.output_dir) / ".reference"
        first = self.accelerator.is_main_process
        try:
            if first:
                dataset.save_to_disk(folder)
            self.accelerator.wait_for_everyone()
            done = super()._precompute_ref_logps(load_from_disk(folder), name, batch_size)
            columns = {column: list(done[column]) for column in reference_logprobs.COLUMNS}
            self.accelerator.wait_for_everyone()
        finally:
            if first:
                shutil.rmtree(folder, ignore_errors=True)
        return columns

    def _log_probs(self, model: torch.nn.Module, part: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (sum of log-probabilities, number) of each answer's tokens."""
        labels = part["input_ids"].masked_fill(part["completion_mask"] == 0, -100)
        output = model(
            input_ids=part["input_ids"], attention_mask=part["attention_mask"], labels=labels, use_cache=False,
            fused_lm_head=True,
        )  # fmt: skip
        return output.log_probs.sum(dim=1), part["completion_mask"][:, 1:].sum(dim=1).clamp(min=1)

    def _compute_loss(
        self, model: torch.nn.Module, inputs: Mapping[str, torch.Tensor], return_outputs: bool
    ) -> torch.Tensor:
        """Return the mean of the pairs' losses."""
        if return_outputs:
            raise NotImplementedError("the preference stage computes no metrics from outputs")
        parts = halves(inputs) if self.keys.separate_forward else ({name: inputs[name] for name in _TENSORS},)
        sums, lengths = (torch.cat(values) for values in zip(*(self._log_probs(model, p) for p in parts), strict=True))
        reference = (
            torch.zeros_like(sums)
            if self.keys.loss == "simpo"
            else torch.cat([inputs[column] for column in reference_logprobs.COLUMNS])
        )
        reward = losses.rewards(self.keys.loss, sums, reference, lengths, self.keys.beta)
        chosen, rejected = reward.chunk(2)
        self._note(inputs, chosen.detach(), rejected.detach(), sums.detach())
        return losses.preference(chosen, rejected, self.keys.gamma).mean()

    def _note(
        self, inputs: Mapping[str, torch.Tensor], chosen: torch.Tensor, rejected: torch.Tensor, sums: torch.Tensor
    ) -> None:
        mode = "train" if self.model.training else "eval"
        gather, metrics = self.accelerator.gather, self._metrics[mode]
        if mode == "train":
            self._total_train_tokens += int(gather(inputs["attention_mask"].sum()).sum())
        metrics["num_tokens"] = [self._total_train_tokens]
        chosen_sums, rejected_sums = sums.chunk(2)
        for name, value in (
            ("rewards/chosen", chosen), ("rewards/rejected", rejected), ("rewards/margins", chosen - rejected),
            ("rewards/accuracies", (chosen > rejected).float()),
            ("logps/chosen", chosen_sums), ("logps/rejected", rejected_sums),
        ):  # fmt: skip
            metrics[name].append(gather(value).mean().item())
