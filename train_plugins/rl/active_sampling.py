"""Active sampling (OLMo 3, §4.4): groups whose responses all score the same are dropped, and further prompts drawn.

A rollout is filled in rounds. The prompts come from an order of their own, whose position is part of a checkpoint, so
that a resumed stage draws the same prompts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from olmes_suite.errors import StageRefused
from train_plugins.rl import advantages

if TYPE_CHECKING:
    from train_plugins.rl.keys import RlvrKeys

Batch = Mapping[str, Any]
"""A rollout as TRL's trainer makes it: tensors with a row for each response, by name."""
EPOCH_STRIDE = 1_000_003
"""Difference between the seeds of two passes over the prompts."""
LEAST = 1 / 8
"""Share of useful groups, at least, that the size of a further round is computed from."""
PROMPT_SIDE = ("prompt_ids", "prompt_mask")


class Prompts:
    """The order in which prompts are drawn: a permutation for each pass over them. `retired` prompts are skipped."""

    def __init__(self, count: int, seed: int, shuffle: bool) -> None:
        self.count = count
        self.seed = seed
        self.shuffle = shuffle
        self.position = 0
        """Number of places passed in all permutations together."""
        self.retired: set[int] = set()
        self.cached: tuple[int, list[int]] = (-1, [])

    def draw(self, number: int) -> list[int]:
        """Return the next `number` prompts, as row numbers. Raises StageRefused if all are retired."""
        if len(self.retired) >= self.count:
            raise StageRefused(
                f"all {self.count} prompts are solved in more than rlvr.retire_above of their responses; add harder "
                "prompts, or raise the limit"
            )
        found: list[int] = []
        while len(found) < number:
            row = self._at(self.position)
            self.position += 1
            if row not in self.retired:
                found.append(row)
        return found

    def _at(self, position: int) -> int:
        turn, place = divmod(position, self.count)
        if not self.shuffle:
            return place
        if self.cached[0] != turn:
            generator = torch.Generator().manual_seed(self.seed + EPOCH_STRIDE * turn)
            self.cached = turn, torch.randperm(self.count, generator=generator).tolist()
        return self.cached[1][place]


def round_size(needed: int, kept: int, drawn: int, group: int, processes: int) -> int:
    """Return the number of prompts to draw next.

    That is as many as fill the rollout if the share of useful groups stays as it was, at most those of a whole rollout,
    and so many that the processes get equal numbers of responses.
    """
    share = max(kept / drawn, LEAST) if drawn else 1.0
    size = min(math.ceil((needed - kept) / share), needed)
    while size * group % processes:
        size += 1
    return size


def joined(parts: Sequence[Batch], fills: Mapping[str, float]) -> dict[str, Any]:
    """Join rollouts row by row, padding the shorter ones: prompts on the left, everything else on the right.

    `fills` are the values of the padding by name, 0 unless named. What is not a tensor of rows is left out.
    """
    whole = {}
    for name, first in parts[0].items():
        if not isinstance(first, torch.Tensor) or first.ndim == 0:
            continue
        tensors = [part[name] for part in parts]
        if first.ndim > 1:
            width = max(one.size(1) for one in tensors)
            tensors = [_padded(one, width, name in PROMPT_SIDE, fills.get(name, 0.0)) for one in tensors]
        whole[name] = torch.cat(tensors)
    return whole


def _padded(tensor: torch.Tensor, width: int, left: bool, fill: float) -> torch.Tensor:
    missing = width - tensor.size(1)
    if not missing:
        return tensor
    padding = tensor.new_full((tensor.size(0), missing), fill)
    return torch.cat([padding, tensor] if left else [tensor, padding], dim=1)


def trimmed(batch: Batch) -> dict[str, Any]:
    """Cut off the columns in which every row is padding."""
    first = int(batch["prompt_mask"].any(dim=0).int().argmax())
    answered = batch["completion_mask"].any(dim=0).nonzero()
    last = int(answered.max()) + 1 if len(answered) else 1
    width = batch["completion_ids"].size(1)
    cut = {}
    for name, tensor in batch.items():
        if name in PROMPT_SIDE:
            tensor = tensor[:, first:]
        elif tensor.ndim > 1 and tensor.size(1) == width:
            tensor = tensor[:, :last]
        cut[name] = tensor
    return cut


class ActiveSampling:
    """Mixin for `Rollouts` on TRL's GRPO trainer, placed before them. Does nothing unless the keys ask for it."""

    keys: RlvrKeys
    facts: torch.Tensor
    prompts: Prompts | None = None
    refilling: bool = False
    """Whether this is a further round of a rollout."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """Fill a rollout with groups that have a signal; `inputs`, the trainer's own prompts, only say how many.

        Raises StageRefused if `active_sampling_limit` is reached first.
        """
        if not self.keys.active_sampling or not self.model.training:  # type: ignore[attr-defined]
            return self._round(inputs)
        group, processes = self.num_generations, self.accelerator.num_processes  # type: ignore[attr-defined]
        needed = len(inputs) * processes // group
        parts: list[Batch] = []
        kept = drawn = 0
        while kept < needed:
            size = round_size(needed, kept, drawn, group, processes)
            if drawn and drawn + size > self.keys.active_sampling_limit * needed:
                raise self._starved(kept, drawn, needed)
            self.refilling = drawn > 0
            rows = self._order().draw(size)
            part, useful = self._useful(rows, group)
            drawn, kept = drawn + size, kept + useful
            parts += [part] if useful else []
        self._note("rlvr/drawn", drawn / needed)  # type: ignore[attr-defined]
        return self._share(joined(parts, self._fills()), len(inputs))

    def _round(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)  # type: ignore[misc]
        return out

    def _useful(self, prompts: Sequence[int], group: int) -> tuple[Batch, int]:
        """Sample responses to prompts; return those of useful groups, of all processes, and the number of groups."""
        data, accelerator = self.train_dataset, self.accelerator  # type: ignore[attr-defined]
        numbers = [row for row in prompts for _ in range(group)]
        share = len(numbers) // accelerator.num_processes
        mine = numbers[accelerator.process_index * share : (accelerator.process_index + 1) * share]
        out = self._round([dict(data[row]) for row in mine])
        whole = joined([self._gathered(out)], {})
        scores, fractions = self.facts[:, 0].view(-1, group), self.facts[:, 1].view(-1, group)
        self._retire(prompts, fractions)
        chosen = advantages.spread(scores)
        return {name: tensor[chosen.repeat_interleave(group)] for name, tensor in whole.items()}, int(chosen.sum())

    def _gathered(self, out: Batch) -> dict[str, Any]:
        """Return the rows of all processes, in their order."""
        accelerator, fills = self.accelerator, self._fills()  # type: ignore[attr-defined]
        if accelerator.num_processes == 1:
            return dict(out)
        found = {}
        for name, tensor in out.items():
            if isinstance(tensor, torch.Tensor) and tensor.ndim:
                if tensor.ndim > 1:
                    fill = int(fills.get(name, 0))
                    tensor = accelerator.pad_across_processes(
                        tensor.contiguous(), dim=1, pad_index=fill, pad_first=name in PROMPT_SIDE
                    )
                found[name] = accelerator.gather(tensor.contiguous())
        return found

    def _share(self, whole: Batch, count: int) -> dict[str, Any]:
        """Return this process's `count` rows of the filled rollout, with the number of its trained tokens."""
        accelerator = self.accelerator  # type: ignore[attr-defined]
        full = {name: tensor[: count * accelerator.num_processes] for name, tensor in whole.items()}
        trained = full["completion_mask"] * full["tool_mask"] if "tool_mask" in full else full["completion_mask"]
        start = accelerator.process_index * count
        out = trimmed({name: tensor[start : start + count] for name, tensor in full.items()})
        return {**out, "num_items_in_batch": trained.sum()}

    def _fills(self) -> dict[str, float]:
        pad = float(self._tokenizer.pad_token_id)  # type: ignore[attr-defined]
        return {"prompt_ids": pad, "completion_ids": pad, "tool_mask": 1.0}

    # Prompts

    def _order(self) -> Prompts:
        if self.prompts is None:
            data, args = self.train_dataset, self.args  # type: ignore[attr-defined]
            self.prompts = Prompts(len(data), args.seed, self.shuffle_dataset)  # type: ignore[attr-defined]
        return self.prompts

    def _retire(self, prompts: Collection[int], fractions: torch.Tensor) -> None:
        """Draw those prompts no more whose responses were verified above `retire_above` in the mean."""
        limit = self.keys.retire_above
        if limit is None:
            return
        means = fractions.nanmean(dim=1).tolist()
        self._order().retired |= {row for row, mean in zip(prompts, means, strict=True) if mean > limit}
        self._note("rlvr/retired", len(self._order().retired))  # type: ignore[attr-defined]

    def _starved(self, kept: int, drawn: int, needed: int) -> StageRefused:
        return StageRefused(
            f"active sampling: of {drawn} prompts drawn for one rollout only {kept} had responses with different "
            f"rewards, and {needed} are needed; check the verifiers and the prompts' difficulty (`olmes data "
            "passrate`), or raise rlvr.active_sampling_limit"
        )

    def _watch(self, *args: Any) -> None:
        """Watch only the first round of a rollout: those that fill it up are too small for its statistics."""
        if not self.refilling:
            super()._watch(*args)  # type: ignore[misc]

    def _check_verdicts(self, facts: torch.Tensor) -> None:
        """Leave the check of a single round to the limit on all rounds, like `_stop_without_signal`."""
        if not self.keys.active_sampling:
            super()._check_verdicts(facts)  # type: ignore[misc]

    def _stop_without_signal(self, facts: torch.Tensor) -> None:
        if not self.keys.active_sampling:
            super()._stop_without_signal(facts)  # type: ignore[misc]

    # Resuming

    def _rollout_state(self) -> dict[str, Any]:
        state: dict[str, Any] = super()._rollout_state()  # type: ignore[misc]
        if self.keys.active_sampling:
            state |= {"position": self._order().position, "retired": sorted(self._order().retired)}
        return state

    def _take_rollout_state(self, state: Mapping[str, Any]) -> None:
        super()._take_rollout_state(state)  # type: ignore[misc]
        if self.keys.active_sampling:
            self._order().position = int(state["position"])
            self._order().retired = set(state["retired"])
