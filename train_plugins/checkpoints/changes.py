"""What may change in a recipe between the starts of one stage, and why the rest may not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from olmes_suite.errors import UsageError
from train_plugins.config import trainer_fields

FREE = frozenset({"eval", "output", "final", "decontam", "gate"})
"""Keys that may change."""
POLICY = "decontam.on_contamination"
"""The key under `decontam` that must stay: it decides which rows are trained on, and what the lineage records."""
FREE_RLVR = frozenset({"rlvr.server", "rlvr.workers"})
SPLIT = frozenset({"batch_size", "trainer.per_device_train_batch_size", "trainer.gradient_accumulation_steps"})
"""Keys that split a step into passes; they may change as long as a step has the same rows."""
ROLLOUTS = frozenset({"trainer.steps_per_generation", "trainer.generation_batch_size"})
"""Keys that do the same to a rollout."""
OVERRIDDEN = frozenset(
    f"trainer.{name}"
    for name in (
        "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args",
        "optim_target_modules", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
    )
)  # fmt: skip
"""Keys that the saved state of optimiser and schedule holds."""
PACKED = 4096
"""Default of trainer.max_length in SFT."""
LENGTH = frozenset({"trainer.max_steps", "trainer.num_train_epochs"})


def check(then: Mapping[str, Any], now: Mapping[str, Any], processes: int) -> list[str]:
    """Return notes on the allowed differences between the recipes of a checkpoint and of its stage.

    Raises UsageError for a difference that changes what is trained. `data` is not compared here: the rows are.
    """
    old, new = flatten(then), flatten(now)
    running = {f"trainer.{name}" for name in trainer_fields.running(_table(now))}
    changed = [key for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]
    split = [key for key in changed if key in SPLIT or key in ROLLOUTS]
    for key in changed:
        if key not in split and not _free(key, running):
            raise _refused(key, old.get(key), new.get(key), _reason(key))
    if not split:
        return []
    for name, count in (("a step", _batch), ("a rollout", _rollout)):
        rows = count(old, processes), count(new, processes)
        if rows[0] != rows[1]:
            raise _refused(
                split[0], old.get(split[0]), new.get(split[0]), f"{name} would have {rows[1]} rows, not {rows[0]}"
            )
    if now.get("rlvr", {}).get("asynchronous"):
        raise _refused(
            split[0], old.get(split[0]), new.get(split[0]), "rollouts of the asynchronous trainer depend on it"
        )
    size = _at_once(old, processes), _at_once(new, processes)
    if size[0] == size[1]:
        return []
    return [
        f"note: a pass has {size[1]} rows, {size[0]} before the checkpoint; a step has the same "
        f"{_batch(new, processes)} rows, but sums are rounded differently, so the weights may differ in their last bits"
    ]


def renamed(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Return whether the recipes describe their data differently: by other paths, names or limits."""
    return bool(then.get("data") != now.get("data"))


def flatten(data: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings into one, with keys joined by dots."""
    if not isinstance(data, Mapping):
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def _free(key: str, running: set[str]) -> bool:
    if key == POLICY:
        return False
    first = key.partition(".")[0]
    return first in FREE or first == "data" or key in FREE_RLVR or key in running


def _reason(key: str) -> str:
    if key == POLICY:
        return "earlier steps were trained on the rows that the old value left"
    if key in OVERRIDDEN:
        return "the saved state of optimiser and schedule would override it"
    if key in LENGTH:
        return "the saved schedule was made for the old number of steps"
    if key == "model":
        return "the stage started from the old one, and its reference and lineage are of it"
    return "earlier steps were trained with the old value"


def _refused(key: str, old: Any, new: Any, why: str) -> UsageError:
    return UsageError(
        f"--resume: {key} was {old!r} and is now {new!r}; {why}. Resume with the old value, or start again with "
        "another --output"
    )


def _table(recipe: Mapping[str, Any]) -> trainer_fields.Table:
    """Return the table of the recipe's stage; that of transformers for a stage of another package."""
    if isinstance(own := recipe.get("rlvr"), Mapping):
        return trainer_fields.TABLES["async_grpo" if own.get("asynchronous") else own.get("algorithm", "ppo")]
    found: Iterator[trainer_fields.Table] = (
        trainer_fields.TABLES[name] for name in ("sft", "rm", "dpo") if name in recipe
    )
    return next(found, trainer_fields.of_another_package(()))


def _at_once(flat: Mapping[str, Any], processes: int) -> int:
    return int(flat.get("trainer.per_device_train_batch_size", 8)) * processes


def _batch(flat: Mapping[str, Any], processes: int) -> int:
    """Return the rows of a step over all processes."""
    if flat.get("batch_size"):
        return int(flat["batch_size"])
    if flat.get("sft.batch_tokens"):
        return int(flat["sft.batch_tokens"]) // int(flat.get("trainer.max_length") or PACKED)
    return _at_once(flat, processes) * int(flat.get("trainer.gradient_accumulation_steps", 1))


def _rollout(flat: Mapping[str, Any], processes: int) -> int:
    """Return the responses of a rollout over all processes; the rows of a step in other stages."""
    if whole := flat.get("trainer.generation_batch_size"):
        return int(whole)
    steps = flat.get("trainer.steps_per_generation")
    return _at_once(flat, processes) * int(steps) if steps else _batch(flat, processes)
