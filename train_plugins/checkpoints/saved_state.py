"""Check that a checkpoint has all that a stage resumes from; transformers starts anew, silently, what is missing."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from olmes_suite.errors import UsageError
from train_plugins.checkpoints import lineage
from train_plugins.distributed import is_sharded

STATE = "trainer_state.json"
CONFIG = "config.json"
ASYNC_STATE = "rollout_state.json"
"""Where TRL's asynchronous trainer writes the first prompt that was not trained on."""
_CONTENT: Mapping[str, tuple[str, type]] = {
    STATE: ("global_step", int), CONFIG: ("model_type", str), ASYNC_STATE: ("prompt_index", int),
    "spikes.json": ("losses", list),
}  # fmt: skip
"""A key that a JSON file must have, with the type of its value."""
OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"
WEIGHTS = ("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin")
INDEX = "model.safetensors.index.json"
VALUE_MODEL = "value_model"
SPIKES = "spikes.json"
SHARDED = ("pytorch_model_fsdp*", "optimizer_*", "optimizer.bin", "global_step*")
"""Names that FSDP and DeepSpeed give to weights and optimiser."""


def check(checkpoint: Path, processes: int, recipe: Mapping[str, Any]) -> None:
    """Raise UsageError, which names the file, for a file that is missing or damaged.

    `recipe` is the recipe as data. FSDP and DeepSpeed store weights and optimiser in folders of their own, which are
    not looked into.
    """
    trainer = recipe.get("trainer") or {}
    if trainer.get("sync_ref_model"):
        raise UsageError(
            "--resume: trainer.sync_ref_model changes the reference, which checkpoints do not hold; start again with "
            "another --output"
        )
    for file in _expected(checkpoint, processes, recipe):
        why = _damage(file)
        if why is not None:
            cause = " (trainer.save_only_model leaves it out)" if trainer.get("save_only_model") else ""
            raise UsageError(f"--resume: {file} {why}{cause}; {_advice(checkpoint, processes, recipe)}")


def notes(arguments: Mapping[str, Any]) -> list[str]:
    """Return a note for trainer arguments with which a stage cannot be resumed."""
    strategy = str(getattr(arguments.get("save_strategy"), "value", arguments.get("save_strategy")))
    if strategy == "no":
        why = "trainer.save_strategy: no writes no checkpoint before the last one"
    elif arguments.get("save_steps") == 0 and strategy != "epoch":
        why = "trainer.save_steps 0 writes no checkpoint before the last one"
    elif arguments.get("save_only_model"):
        why = "trainer.save_only_model leaves the optimiser's state out of the checkpoints"
    elif arguments.get("sync_ref_model"):
        why = "trainer.sync_ref_model changes the reference, which checkpoints do not hold"
    else:
        return []
    return [f"note: this stage cannot be resumed: {why}"]


def _expected(checkpoint: Path, processes: int, recipe: Mapping[str, Any]) -> Iterator[Path]:
    yield from (checkpoint / name for name in (STATE, CONFIG) if name != CONFIG or (checkpoint / name).exists())
    ranks = range(processes)
    for rank in ranks:
        yield checkpoint / ("rng_state.pth" if processes == 1 else f"rng_state_{rank}.pth")
    if (recipe.get("sft") or {}).get("skip_spikes"):
        yield checkpoint / SPIKES
    own = recipe.get("rlvr")
    if own and not own.get("asynchronous"):
        for rank in ranks:
            yield checkpoint / f"rollouts_{rank}.pt"
    elif own:
        yield checkpoint / ASYNC_STATE
    if is_sharded() or any(found for pattern in SHARDED for found in checkpoint.glob(pattern)):
        return
    yield checkpoint / OPTIMIZER
    yield checkpoint / SCHEDULER
    yield from _weights(checkpoint)
    if own and own.get("algorithm", "ppo") == "ppo":
        yield from _weights(checkpoint / VALUE_MODEL)


def _weights(folder: Path) -> Iterator[Path]:
    """Yield the files of the weights: one, or those that the index names."""
    index = folder / INDEX
    if not index.is_file():
        found = [folder / name for name in WEIGHTS if (folder / name).is_file()]
        yield from found or [folder / WEIGHTS[0]]
        return
    yield index
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except (OSError, ValueError, KeyError, AttributeError):
        return  # the index itself is reported
    yield from (folder / name for name in sorted(set(names)))


def _damage(file: Path) -> str | None:
    """Say what is wrong with a file; None if it is whole, as far as its ends show."""
    if not file.is_file():
        return "is missing"
    if file.suffix == ".json":
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "is damaged (not JSON)"
        needed, kind = _CONTENT.get(file.name, ("weight_map", dict))
        found = content.get(needed) if isinstance(content, dict) else None
        return None if isinstance(found, kind) else f"is damaged (it has no {needed!r})"
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt"):
                return None
        except (SafetensorError, OSError):
            return "is damaged (truncated?)"
    return None if zipfile.is_zipfile(file) else "is damaged (truncated?)"


def _advice(checkpoint: Path, processes: int, recipe: Mapping[str, Any]) -> str:
    """Say how to continue without the checkpoint: from an earlier one that has all its files, if there is one."""
    earlier = [
        one for one in lineage.whole_checkpoints(checkpoint.parent)
        if one.name != checkpoint.name and not any(map(_damage, _expected(one, processes, recipe)))
    ]  # fmt: skip
    again = "start again with another --output"
    return f"remove {checkpoint} to resume from {earlier[-1].name}, or {again}" if earlier else again
